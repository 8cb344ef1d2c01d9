"""Tables: reported and measured side by side, in three formats, and what is said of empty cells."""
import dataclasses

import pandas as pd
import pytest

from d3ad.study import long_runs, paper, tables
from d3ad.study.workspace import open_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return open_workspace("smoke", out=str(tmp_path_factory.mktemp("out")), categories=["weave"], datasets=["mvtec"])


def named(method: str, **values) -> pd.DataFrame:
    return pd.DataFrame([dict(dataset="VisA-like", category="Average", method=method, **values)])


def test_reported_and_measured_stay_apart(workspace):
    measured = pd.DataFrame([dict(dataset="VisA-like", category="Average", method="DIC", measured_pro=50.0)])
    table = tables.beside_paper(4, measured)
    paper, ours = table[table["dataset"] == "VisA"], table[table["dataset"] == "VisA-like"]
    assert paper["measured_pro"].isna().all() and ours["reported_pro"].isna().all() and len(paper) == 5
    same = tables.beside_paper(4, measured.assign(dataset="VisA"))
    assert same.query("method == 'DIC'")[["reported_pro", "measured_pro"]].values.tolist() == [[94.1, 50.0]]


def test_a_table_is_laid_out_as_the_paper_prints_it(workspace):
    measured = pd.DataFrame([dict(dataset="BTAD", category="01", method="D3AD", measured_i_auroc=90.04,
                                  measured_pro=None)])
    laid_out = tables.layout(tables.beside_paper(3, measured), "md").set_index(["dataset", "category"])
    row = laid_out.loc[("BTAD", "01")]
    assert row["FastFlow"] == "**99.4** / 71.7" and row["D3AD"] == "98.9 / **80.0**" and row["D3AD, measured"] == "90.0"
    assert laid_out.loc[("BTAD", "Average"), "D3AD, measured"] == ""


def test_a_table_of_the_paper_takes_its_own_dataset_and_methods(workspace):
    values = dict(split=workspace.study.split, measured_p_auroc=98.0, measured_pro=90.0)
    title = workspace.title("visa")
    frame = pd.DataFrame([dict(dataset=title, category="Average", method="D3AD", **values),
                          dict(dataset=title, category="board", method="D3AD", **values),
                          dict(dataset=title, category="Average", method="FastFlow", **values),
                          dict(dataset="another", category="Average", method="D3AD", **values)])
    rows = tables.of_dataset(workspace, frame, "visa", "p_auroc", average_only=True)
    assert list(rows) == ["dataset", "category", "method", "measured_p_auroc"]
    assert rows["method"].tolist() == ["D3AD", "FastFlow"]
    assert len(tables.of_dataset(workspace, frame, "visa", "pro")) == 3
    with_200 = frame.assign(measured_pro_200=80.0)
    assert list(tables.of_dataset(workspace, with_200, "visa", "pro"))[-2:] == ["measured_pro", "measured_pro_200"]
    tables.of_paper(workspace, 7, rows, "P-AUROC on VisA")
    written = pd.read_csv(workspace.results / "table7.csv")
    assert written.query("dataset == @title")["method"].tolist() == ["D3AD"]  # Table 7 has no FastFlow
    assert "PatchCore" in tables.of_paper(workspace, 7, rows[:0], "nothing measured").data


def test_tables_are_written_in_three_formats(workspace):
    measured = pd.DataFrame([dict(dataset="MVTec-like", category="weave", method="D3AD", measured_i_auroc=99.0,
                                  measured_p_auroc=98.0, measured_pro=95.0)])
    tables.save_layouts(workspace, tables.beside_paper(6, measured), "table6", "Table 6: 100 % of it")
    tex = (workspace.results / "table6.tex").read_text()
    assert "\\toprule" in tex and "\\textbf{100.0}" in tex and "100 \\% of it" in tex and "metal nut" in tex
    caption, _, about, *_, last, _, empty = (workspace.results / "table6.md").read_text().splitlines()
    assert last.startswith("| MVTec-like, measured | weave |") and last.endswith("| 99.0 / 98.0 / 95.0 |")
    assert caption == "Table 6: 100 % of it" and empty.startswith("Empty cells: SimpleNet needs about 4 minutes")
    assert about == ("Measured in the profile smoke: features of ResNet-18, trained here; 64 x 64 pixels; seed 0. PRO "
                     "is exact.")
    assert f"100 \\% of it. {about}" in tex


def test_a_table_says_which_pro_it_shows(workspace):
    values = (("pill", "D3AD", 70.0), ("pill", "PatchCore", 71.0), ("bottle", "D3AD", 72.0),
              ("bottle", "SimpleNet", None), ("Average", "D3AD", 73.0))
    rows = [dict(dataset="MVTec AD", category=category, method=method, measured_pro=80.0, measured_pro_200=value)
            for category, method, value in values]
    frame = tables.beside_paper(6, pd.DataFrame([*rows, rows[0] | dict(dataset="MVTec-like")]))
    assert list(frame)[-2:] == ["measured_pro", "measured_pro_200"]
    cells = tables.layout(frame, "md").set_index(["dataset", "category"])["D3AD, measured"]
    assert cells["MVTec AD", "pill"] == "70.0" and "80.0" in cells["MVTec AD", "bottle"]
    assert cells["MVTec AD", "Average of 2"] == "73.0" and cells["MVTec-like", "pill"] == "80.0"
    about = tables.what_was_measured(workspace, frame)
    assert about.endswith("PRO has 200 thresholds, as in the authors' code, on datasets with a reported one; "
                          "elsewhere, and in bottle, it is exact.")
    assert tables.what_was_measured(workspace, frame[:3]) == "Nothing of it was measured in the profile smoke."
    assert "PRO" not in tables.what_was_measured(workspace, tables.beside_paper(7, named("D3AD", measured_p_auroc=9.0)))


def test_empty_cells_are_explained(workspace, monkeypatch):
    frame = tables.beside_paper(1, named("D3AD", measured_pro=90.0))
    monkeypatch.setattr(long_runs, "methods", lambda profile: set())
    needs = "RD4AD needs about 3 minutes of training a category, DRAEM about 280 (80 images of 128 pixels, one core); "
    run = ("python -m d3ad.study.measure --profile mvtec-cpu --data-root DIR measures {} (networks on pixels for at "
           "most 30 minutes)")
    others = "; not in this profile's list: SPADE, PaDiM, PatchCore."
    assert tables.empty_cells(workspace, frame) == f"Empty cells: {needs}{run.format('them')}{others}"
    monkeypatch.setattr(long_runs, "methods", lambda profile: {"RD4AD"})
    found = f"{needs}measured in mvtec-cpu: RD4AD; {run.format('DRAEM')}{others}"
    assert tables.empty_cells(workspace, frame) == f"Empty cells: {found}"
    own = dataclasses.replace(workspace, study=workspace.study.replace(long_baselines=("RD4AD", "DRAEM")))
    assert "--profile smoke measures them;" in tables.empty_cells(own, frame)
    assert tables.empty_cells(workspace, paper.reported(1).assign(measured_pro=None)) == ""  # the data weren't there
    some = pd.DataFrame([dict(dataset="MVTec AD", category=category, method=method, measured_pro=90.0)
                         for category, method in (("pill", "D3AD"), ("bottle", "D3AD"), ("bottle", "SimpleNet"))])
    assert "; SimpleNet was measured on bottle only." in tables.empty_cells(workspace, tables.beside_paper(6, some))


def test_what_is_like_ddad_never_stands_in_its_row(workspace):
    rows = pd.concat([named(method, measured_pro=90.0) for method in ("D3AD", "DDAD-like", "SPADE")])
    shown = tables.of_paper(workspace, 2, rows.assign(dataset="VisA"), "diffusion models").data
    written = pd.read_csv(workspace.results / "table2.csv").set_index("method")
    assert pd.isna(written.loc["DDAD", "measured_pro"]) and written.loc["DDAD-like", "measured_pro"] == 90
    assert "SPADE" not in written.index and "there is no DDAD here, only DDAD-like" in shown
