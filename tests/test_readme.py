"""The README: its numbers come from results/, its links lead somewhere, its commands exist."""
import re
from pathlib import Path

from d3ad.study import readme

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_numbers_are_those_of_the_committed_results():
    assert readme.with_blocks(README) == README, "type: python -m d3ad.study.readme"


def test_its_links_lead_to_files():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_its_commands_parse():
    from d3ad.app.cli import parser
    commands = re.findall(r"^python -m d3ad (\w.*?)(?:  +#.*)?$", README, flags=re.M)
    assert len(commands) >= 4
    for command in commands:
        parser().parse_args(command.split())


def test_no_placeholder_is_left():
    assert not re.search(r"@[A-Z_]+@", README)
