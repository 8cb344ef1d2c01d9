"""The tables of test_bad_files.py, test_bad_commands.py and test_bad_arguments.py: bad inputs, and their messages."""
import pytest

TABLES = {}


def table(test):
    """Parametrise a test with the rows of its table, each a name, what is bad, and what is said."""
    rows = TABLES[test.__name__]
    return pytest.mark.parametrize("bad, message", [row[1:] for row in rows], ids=[row[0] for row in rows])(test)
