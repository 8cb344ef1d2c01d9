"""The committed notebooks: clean, executed, of short cells, and running in the smoke profile."""
import json
import os
import re
import tomllib
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from d3ad.data import synthetic
from d3ad.infra.profiles import PROFILE_FOLDER
from d3ad.study import runner
from d3ad.study.running import clean_notebooks
from d3ad.study.running.nursery import Nursery

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("[0-9][0-9]_*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
SMOKE = tomllib.loads((PROFILE_FOLDER / "smoke.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    """One folder for all notebooks, so that they share a cache; run_tests.sh lends it to nbval too."""
    return Path(os.environ.get("D3AD_TEST_OUT") or tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def nursery():
    """Kernels that have imported what the notebooks need."""
    with Nursery() as started:
        yield started


def code_cells(path: Path) -> list:
    """The code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@each
def test_is_clean(path):
    text = path.read_text(encoding="utf-8")
    clean = clean_notebooks.to_text(clean_notebooks.normalise(nbformat.read(path, as_version=4)))
    assert text == clean, f"type: python -m d3ad.study.runner --normalise notebooks/{path.name}"


@each
def test_was_executed(path):
    assert [cell.source for cell in code_cells(path) if cell.execution_count is None] == []


@each
def test_has_one_cell_of_parameters(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    runner.check_parameters(path, {"profile": "", "data_root": "", "out": ""})


@each
def test_has_short_cells(path):
    assert max(len(cell.source.splitlines()) for cell in code_cells(path)) <= 40


@each
def test_is_small(path):
    assert path.stat().st_size < 1_000_000


@each
def test_shows_no_error_and_no_address(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    assert [text for text in texts if re.search(r" at 0x[0-9a-f]+", text)] == []


@each
@pytest.mark.notebook
def test_runs_in_the_smoke_profile(path, out, nursery, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    parameters = {"profile": "smoke", "data_root": "", "out": str(out)}
    runner.execute(path, out / "notebooks" / "smoke" / path.name, parameters, nursery=nursery)


@pytest.mark.notebook
@pytest.mark.parametrize("profile, category, table", [
    ("visa", "board", 1), pytest.param("btad", "washer", 3, marks=pytest.mark.long),
    pytest.param("mvtec", "weave", 6, marks=pytest.mark.long)])
def test_profiles_on_real_datasets_take_the_same_path(profile, category, table, tmp_path, nursery, monkeypatch):
    """Tiny datasets in the real layouts under --data-root, the profiles' own loaders, tiny networks."""
    synthetic.write(tmp_path / "data", profile, category, *SMOKE["study"]["counts"])
    networks = {k: v for k, v in {**SMOKE, **SMOKE["study"]}.items()
                if k not in ("study", "source", "datasets", "categories", "counts", "spread_categories", "seeds")}
    networks["baselines"] = ["PaDiM", "CFA"]  # one that trains nothing, one that does; the smoke profile has all
    monkeypatch.setenv("D3AD_SET", json.dumps(networks))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    source = next(path for path in NOTEBOOKS if path.stem.startswith("07"))
    runner.execute(source, tmp_path / source.name,
                   dict(profile=profile, data_root=str(tmp_path / "data"), out=str(tmp_path)), nursery=nursery)
    frame = pd.read_csv(tmp_path / f"results/{profile}-changed/table{table}.csv", dtype={"category": str})
    rows = frame[frame["method"] == "D3AD"].set_index("category")
    assert rows.loc["Average", "reported_i_auroc"] > 90 and pd.isna(rows.loc["Average", "measured_i_auroc"])
    assert 0 <= rows.loc["Average of 1", "measured_i_auroc"] <= 100  # of one category: a row of its own
    assert frame[frame["category"] == category]["measured_pro"].notna().all()
    assert not (tmp_path / f"results/{profile}").exists()
