"""The measured parts of README.md and of docs/: made from results/, never typed.

    python -m d3ad.study.readme        # write them anew

A block stands between two markers, `<!-- name: written by python -m d3ad.study.readme -->` and `<!-- end -->`.  It
tells of whatever profiles have results; what a profile lacks is left out, or called "pending" or "not measured".
Each block is a function that takes the way up to the repository's root, "" or "../".
"""
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from d3ad.infra.files import ROOT
from d3ad.study.readme import comparisons, distances, ledger, overview, speed

MARKED = re.compile(r"(<!-- ([\w-]+): written by python -m d3ad\.study\.readme -->\n).*?(<!-- end -->)", flags=re.S)
BLOCKS: dict[str, Callable[[str], str]] = {
    "profiles": overview.profiles, "results": overview.results, "state": overview.state, "gallery": overview.gallery,
    "own-part": overview.own_part, "own-parts": overview.own_parts,
    "headlines": partial(ledger.ledger, headlines=ledger.HEADLINES), "ledger": ledger.ledger, "rule": ledger.rule,
    "counts": ledger.counts, "distances": distances.distances,
    "baseline-files": comparisons.baseline_files, "baselines": comparisons.baselines,
    "text-against-code": comparisons.text_against_code, "memory": comparisons.memory,
    "speed": speed.speed, "methods": speed.methods, "growth": speed.growth, "presets": speed.presets,
}


def pages() -> list[Path]:
    """README.md and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def with_blocks(text: str, up: str = "") -> str:
    """A page's text with its blocks made anew.  up: the way from the page to the repository's root, "" or "../".

    Raises ValueError for a block of another name.
    """
    if unknown := {match[2] for match in MARKED.finditer(text)} - set(BLOCKS):
        raise ValueError(f"no block is called {', '.join(sorted(unknown))}; there are {', '.join(BLOCKS)}")
    return MARKED.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](up)}\n{match[3]}", text)


def up_from(page: Path) -> str:
    """The way from a page to the repository's root."""
    return "../" * (len(page.relative_to(ROOT).parts) - 1)
