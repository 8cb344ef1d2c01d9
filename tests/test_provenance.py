"""Where each product comes from, and the registry of all numbers."""
import hashlib
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from d3ad.study import provenance, tables
from d3ad.study.workspace import open_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return open_workspace("smoke", out=str(tmp_path_factory.mktemp("out")), categories=["weave"], datasets=["mvtec"])


def test_products_are_written_whole_with_their_provenance(workspace):
    frame = pd.DataFrame([dict(dataset="A", category="x", method="m", measured_pro=None),
                          dict(dataset="A", category="y", method="m", measured_pro=12.346)])
    tables.save_table(workspace, frame, "table4")
    assert (workspace.results / "table4.csv").read_text().splitlines()[1:] == ["A,x,m,,smoke,resnet18",
                                                                                     "A,y,m,12.35,smoke,resnet18"]
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    provenance.save_figure(workspace, fig, "fig05", "abc")
    entries = json.loads((workspace.results / "provenance.json").read_text())
    assert set(entries) == {"results/smoke/table4.csv", "figures/smoke/fig05.png"}
    assert set(entries["figures/smoke/fig05.png"]) == {"sha256", "commit", "config", "data", "seed", "packages",
                                                       "machine", "seconds"}
    assert entries["results/smoke/table4.csv"]["sha256"] == hashlib.sha256((workspace.results
                                                                            / "table4.csv").read_bytes()).hexdigest()
    provenance.written(workspace, "fig05", "table4")
    assert not list(workspace.out.rglob("*.part"))
    with pytest.raises(AssertionError):
        tables.save_table(workspace, frame.assign(measured_pro=120.0), "table4")
        provenance.written(workspace, "table4")


def test_a_notebook_shows_the_figure_that_was_saved_and_draws_no_other(workspace, monkeypatch):
    shown = []
    monkeypatch.setattr(provenance, "_in_notebook", lambda: True)
    monkeypatch.setattr(provenance, "_show", shown.append)
    fig, ax = plt.subplots()
    ax.imshow(torch.arange(256).view(16, 16), cmap="viridis", aspect="auto")
    fig.subplots_adjust(left=0.1, right=0.95)  # else how much of the margins is cut depends on the font
    provenance.save_figure(workspace, fig, "fig06")
    assert not plt.fignum_exists(fig.number)  # Jupyter draws what is open at a cell's end
    saved = Image.open(workspace.figures / "fig06.png").convert("RGB").resize(shown[0].size)
    assert abs(np.asarray(saved).astype(float) - np.asarray(shown[0])).mean() < 4  # of 255; one has 256 colours
    assert shown[0].width == pytest.approx(fig.dpi * fig.get_figwidth(), rel=0.15)


def test_the_registry_holds_every_average_and_every_claim(workspace):
    from d3ad.study import claims

    measured = pd.DataFrame([dict(dataset="VisA-like", category="Average", method="D3AD", measured_p_auroc=98.0)])
    tables.save_table(workspace, tables.beside_paper(7, measured), "table7")
    ledger = pd.DataFrame([dict(claim=c.claim, reported=c.reported) for c in claims.CLAIMS])
    ledger[["effect", "low", "high"]] = float("nan")
    entries = {entry["item"]: entry for entry in provenance.registry(workspace, ledger)}
    assert entries["Table 7, VisA, D3AD, p_auroc"]["paper"] == 97.9
    assert entries["Table 7, VisA-like, D3AD, p_auroc"]["measured"] == 98.0
    beside = pd.DataFrame([dict(dataset="VisA", category="Average", method="DIC", measured_pro=50.0,
                                measured_pro_200=40.0)])
    tables.save_table(workspace, tables.beside_paper(4, beside), "table4")
    entries = {entry["item"]: entry for entry in provenance.registry(workspace, ledger)}
    assert entries["Table 4, VisA, DIC, pro"]["measured"] == 40.0  # beside the paper's, which has 200 thresholds
    assert sum(item.startswith("claim: ") for item in entries) == len(claims.CLAIMS)
    changed = open_workspace("smoke", out=str(workspace.out), k=2)  # the tables are not of its settings
    entries = provenance.registry(changed, ledger)
    assert entries and not any(entry["item"].startswith("Table") for entry in entries)
