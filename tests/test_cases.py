"""Cases from the field: each script under cases/ is what went wrong for somebody who inspects parts, and must behave
now."""
import contextlib
import io
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("cases")


@pytest.mark.parametrize("case", sorted(FOLDER.glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_a_case_from_the_field(case, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("_common", None)  # each case has a folder of its own
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as stop:
            runpy.run_path(str(case), run_name="__main__")
    finally:
        common = sys.modules.pop("_common", None)
        if common:
            common.shutil.rmtree(common.TMP, ignore_errors=True)
    if stop.value.code == 3:
        pytest.skip(said.getvalue())
    assert stop.value.code == 0, said.getvalue()
