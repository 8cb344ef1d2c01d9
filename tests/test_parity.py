"""The table that holds baselines against published numbers, from cells that are made up."""
import json

import pytest

from d3ad.infra.files import ROOT
from d3ad.study import parity


def write(folder, method: str, category: str, seed: int, **numbers) -> None:
    (folder / f"{method}-{category}-{seed}-{parity.VERSION}.json").write_text(json.dumps(numbers))


def test_cells_become_a_table_with_differences(tmp_path):
    for seed, value in enumerate((99.0, 100.0)):
        write(tmp_path, "PaDiM", "bottle", seed, i_auroc=value, p_auroc=98)
    frame = parity.table(tmp_path).set_index(["method", "metric", "category"])
    row = frame.loc[("PaDiM", "i_auroc", "bottle")]
    assert row["measured"] == 99.5 and row["difference"] == pytest.approx(0.1) and row["seeds"] == 2
    assert frame["measured"].notna().sum() == 2  # what was not measured stays empty
    assert parity.mean_difference(parity.table(tmp_path)).empty  # not before all categories are measured
    for category in parity.CATEGORIES:
        write(tmp_path, "PatchCore", category, 0, i_auroc=96, p_auroc=97)
    mean = parity.mean_difference(parity.table(tmp_path))
    assert mean[("PatchCore", "i_auroc")] == pytest.approx((4.0 + 4.4 + 1.7 + 3.6) / 4)


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(parity, "measure", lambda method, category, *_: done.append(category)
                        or dict(i_auroc=90.0, p_auroc=90.0))
    command = ["--data-root", "x", "--weights", "y", "--out", str(tmp_path), "--methods", "PaDiM"]
    parity.main([*command, "--categories", "bottle", "pill"])
    parity.main(command)
    assert done == ["bottle", "pill", "screw", "transistor"]
    table = (tmp_path / "results" / "parity" / "baselines.csv").read_text()
    assert table.startswith("method,metric,category,published")


def test_a_run_keeps_what_other_runs_have_measured(tmp_path, monkeypatch):
    file = tmp_path / "results" / "parity" / "baselines.csv"
    file.parent.mkdir(parents=True)
    committed = (ROOT / "results" / "parity" / "baselines.csv").read_bytes()
    file.write_bytes(committed)
    monkeypatch.setattr(parity, "measure", lambda *_: dict(i_auroc=91.6, p_auroc=97.5))
    parity.main(["--data-root", "x", "--weights", "y", "--out", str(tmp_path), "--methods", "FastFlow",
                 "--categories", "pill"])
    before, after = committed.decode().splitlines(), file.read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [line[:line.index("pill")] for line in changed] == ["FastFlow,i_auroc,", "FastFlow,p_auroc,"]
    assert all(",91.6,1,0.0," in line or ",97.5,1,0.3," in line for line in changed)
