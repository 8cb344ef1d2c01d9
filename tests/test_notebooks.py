"""The committed notebooks: clean, executed, of short cells, and running in the smoke profile."""
import os
import re
from pathlib import Path

import nbformat
import pytest

from d3ad import runner

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("[0-9][0-9]_*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    """One folder for all notebooks, so that they share a cache; run_tests.sh lends it to nbval too."""
    return Path(os.environ.get("D3AD_TEST_OUT") or tmp_path_factory.mktemp("out"))


def code_cells(path: Path) -> list:
    """The code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_is_clean(path):
    text = path.read_text(encoding="utf-8")
    clean = runner.to_text(runner.normalise(nbformat.read(path, as_version=4)))
    assert text == clean, f"type: python -m d3ad.runner --normalise notebooks/{path.name}"


def test_was_executed(path):
    assert [cell.source for cell in code_cells(path) if cell.execution_count is None] == []


def test_has_one_cell_of_parameters(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    runner.check_parameters(path, {"profile": "", "data_root": "", "out": ""})


def test_has_short_cells(path):
    assert max(len(cell.source.splitlines()) for cell in code_cells(path)) <= 40


def test_is_small(path):
    assert path.stat().st_size < 1_000_000


def test_shows_no_error_and_no_address(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    assert [text for text in texts if re.search(r" at 0x[0-9a-f]+", text)] == []


@pytest.mark.notebook
def test_runs_in_the_smoke_profile(path, out, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    parameters = {"profile": "smoke", "data_root": "", "out": str(out)}
    runner.execute(path, out / "notebooks" / "smoke" / path.name, parameters)
