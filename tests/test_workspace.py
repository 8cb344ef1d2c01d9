"""Workspaces, cached outcomes, tables and their provenance, in the smoke profile."""
import dataclasses
import gc
import hashlib
import json
import weakref

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_datasets import draw_tiles

from d3ad.data import synthetic
from d3ad.infra.files import load_tensors
from d3ad.study import ablations, checkpoints, long_runs, paper, provenance, tables
from d3ad.study.jobs import train
from d3ad.study.settings import Study
from d3ad.study.workspace import D3AD, Config, open_workspace
from d3ad.training import make_unet, steps_per_epoch


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return open_workspace("smoke", out=str(tmp_path_factory.mktemp("out")), categories=["weave"], datasets=["mvtec"])


def test_an_outcome_is_computed_once_and_read_back_alike(workspace, monkeypatch):
    run = workspace.runs()[0]
    first = run.outcome(omega=1.0)
    monkeypatch.setattr(D3AD, "predict", None)  # a second prediction would fail
    again = workspace.runs()[0].outcome(omega=1.0)
    assert first.metrics == again.metrics and torch.equal(first.prediction.score, again.prediction.score)
    assert {"i_auroc", "p_auroc", "pro", "pro_200", "pro_small", "pro_medium", "pro_large",
            "distance_auroc"} == set(first.metrics)
    assert run.numbers(omega=1.0) == first.metrics


def test_the_key_follows_settings_and_data(workspace):
    run = workspace.runs()[0]
    assert run.key == workspace.runs()[0].key
    assert run.key != workspace.run("mvtec", "weave", seed=1).key
    changed = open_workspace("smoke", out=str(workspace.out), categories=["weave"], datasets=["mvtec"], train_steps=7)
    assert run.key != changed.runs()[0].key
    # a seed's autoencoder is that of the workspace's own seed
    other = open_workspace("smoke", out=str(workspace.out), categories=["weave"], datasets=["mvtec"], seed=1)
    assert other.run("mvtec", "weave", 1).key != workspace.run("mvtec", "weave", 1).key


def test_weights_that_are_replaced_change_the_key(tmp_path):
    (tmp_path / "taef2").mkdir()
    synthetic.write(tmp_path / "data", "mvtec", "weave", 3, 1, 1)

    def key(content: bytes) -> str:
        (tmp_path / "taef2/model.safetensors").write_bytes(content)
        return open_workspace("mvtec-taef2", str(tmp_path / "data"), str(tmp_path / "out"),
                              autoencoder_weights=str(tmp_path / "taef2")).runs()[0].key

    assert key(b"a") != key(b"bb") and key(b"a") == key(b"a")


def test_a_changed_image_of_a_category_changes_the_keys_of_all_that_share_an_autoencoder_with_it(tmp_path):
    for category in ("weave", "gear"):
        synthetic.write(tmp_path, "mvtec", category, 3, 1, 1)

    def keys(**settings) -> list[str]:
        return [run.key for run in open_workspace("mvtec-cpu", str(tmp_path), str(tmp_path / "out"), **settings).runs()]

    shared, alone = keys(), keys(autoencoder="kl", autoencoder_weights="hub", latent_channels=4)
    image, *_ = sorted(tmp_path.rglob("weave/train/good/*.png"))
    image.write_bytes(image.read_bytes() + b"0")
    changed_shared, changed_alone = keys(), keys(autoencoder="kl", autoencoder_weights="hub", latent_channels=4)
    assert not set(shared) & set(changed_shared)
    assert len(set(alone) & set(changed_alone)) == 1  # gear's


def test_a_category_that_no_dataset_has_is_refused():
    with pytest.raises(ValueError, match=r"no wave \(allowed: .*weave"):
        open_workspace("smoke", datasets=["mvtec"], categories=["wave"]).runs()


def test_each_training_sets_out_from_a_unet_of_all_categories_where_the_profile_says_so(tmp_path):
    settings = dict(datasets=["mvtec", "btad"], categories=["weave", "washer"], autoencoder_steps=1, adapt_epochs=0,
                    weight_decay=0.0, out=str(tmp_path))
    started, alone = (open_workspace("smoke", start_steps=start, own_steps=own, **settings)
                      for start, own in ((20, 1), (0, 0)))
    assert started.settings_hash != alone.settings_hash
    assert not {run.key for run in started.runs()} & {run.key for run in alone.runs()}
    train(started.runs())
    file, = started.cache.glob("shared-*/start-*.safetensors")
    start = load_tensors(file)[0]
    rate = started.config.learning_rate

    def furthest(weights):
        return max(float((weights[name] - tensor).abs().max()) for name, tensor in start.items())

    for run in started.runs():  # Adam's first step moves no weight by more than the rate
        assert furthest(run.detector.unet.state_dict()) < 1.01 * rate
        assert len(run.losses["diffusion, all categories"]) == 20 and len(run.losses["diffusion"]) == 1
    torch.manual_seed(started.config.seed)
    assert furthest(make_unet(started.config).state_dict()) > 5 * rate


def test_results_from_before_there_was_a_start_keep_their_stamp():
    """The stamps of profiles without one were written when the setting didn't exist."""
    new = {"start_steps", "own_steps"}
    assert not new & set(Study().hashed()) and new < set(Study(start_steps=3, own_steps=1).hashed())
    with pytest.raises(ValueError, match="go together"):
        Study(start_steps=3)
    with pytest.raises(ValueError, match="train_steps changes nothing in smoke"):
        open_workspace("smoke", start_steps=3, own_steps=1, train_steps=9)


def test_one_detector_stays_loaded_and_no_state_of_its_training(workspace):
    first, second = (workspace.run("mvtec", "weave", seed) for seed in (0, 1))
    detector = weakref.ref(first.detector)
    assert first.detector is detector() and workspace.run("mvtec", "weave", 0).detector is detector()
    assert second.losses["diffusion"] == second.detector.losses["diffusion"]
    gc.collect()
    assert detector() is None
    assert first.folder != second.folder and not list(workspace.cache.rglob("training*.safetensors"))


def test_an_epoch_drops_its_last_incomplete_batch():
    config = Config(batch_size=8)
    assert steps_per_epoch(config, 720) == 90 and steps_per_epoch(config, 711) == 88
    assert steps_per_epoch(Config(batch_size=30), 4) == 1


def test_checkpoints_are_compared_without_test_images(tmp_path, monkeypatch):
    workspace = open_workspace("smoke", out=str(tmp_path), categories=["weave"], datasets=["mvtec"], train_steps=4)
    run = checkpoints.validated(workspace)
    assert run.config.calibration_share == checkpoints.SHARE and run.key != workspace.runs()[0].key
    monkeypatch.setattr(type(run), "images", None)  # reading a test image would fail
    rows = checkpoints.over_training(workspace)
    assert rows["steps"].tolist() == [2, 4] and rows["epochs"].tolist() == [1, 2]
    assert rows[["validation_pro", "validation_i_auroc"]].stack().between(0, 100).all()
    assert len(list(run.checkpoints.iterdir())) == 2 and not (run.folder / "training").exists()
    last = checkpoints.at(run.detector, max(run.checkpoints.iterdir()))
    assert all(torch.equal(a, b) for a, b in zip(last.unet.parameters(), run.detector.unet.parameters()))
    z, t = torch.ones(1, run.config.latent_channels, 8, 8), torch.tensor([3])
    assert torch.equal(last.networks.eps(z, t), run.detector.networks.eps(z, t))
    with pytest.raises(ValueError, match="keeps no checkpoints"):
        checkpoints.validated(open_workspace("smoke", out=str(tmp_path), compared_checkpoints=0))


def test_where_some_images_only_calibrate_the_first_run_itself_keeps_checkpoints(tmp_path):
    workspace = open_workspace("smoke", out=str(tmp_path), calibration_share=0.2)
    assert [run.config.checkpoints for run in workspace.runs()] == [2, 0, 0]
    assert checkpoints.validated(workspace).key == workspace.runs()[0].key


def test_a_state_left_behind_by_a_kill_is_removed(workspace):
    run = workspace.run("mvtec", "weave", 0)
    run.ensure_trained()
    (run.folder / "training" / "diffusion").mkdir(parents=True)
    run.ensure_trained()
    assert not (run.folder / "training").exists()


def test_synthetic_datasets_never_carry_a_published_name(workspace):
    assert workspace.title("visa") == "VisA-like"
    with pytest.raises(ValueError, match="data_root"):
        open_workspace("visa")


def test_averages_and_spread_by_hand():
    frame = pd.DataFrame([dict(dataset="A", category=c, split="random", seed=s, method="m", measured_pro=v)
                          for c, s, v in (("x", 0, 80.0), ("y", 0, 90.0), ("x", 1, 82.0), ("y", 1, 92.0))])
    row = ablations.with_averages(frame).iloc[-1]
    assert row["category"] == "Average" and row["measured_pro"] == 86 and row["spread_pro"] == pytest.approx(2 ** 0.5)
    assert pd.isna(row["seed"])


def test_table4_is_in_quarters_of_t_max():
    settings = ablations.table4(Config())
    assert [v.get("t_max") for v in settings.values()] == [20, 40, 60, 80, None]
    assert list(settings) == paper.reported(4)["method"].tolist()


def test_reported_and_measured_stay_apart(workspace):
    measured = pd.DataFrame([dict(dataset="VisA-like", category="Average", method="DIC", measured_pro=50.0)])
    table = tables.beside_paper(4, measured)
    paper, ours = table[table["dataset"] == "VisA"], table[table["dataset"] == "VisA-like"]
    assert paper["measured_pro"].isna().all() and ours["reported_pro"].isna().all() and len(paper) == 5
    same = tables.beside_paper(4, measured.assign(dataset="VisA"))
    assert same.query("method == 'DIC'")[["reported_pro", "measured_pro"]].values.tolist() == [[94.1, 50.0]]


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
    ax.imshow(torch.arange(256).view(16, 16), cmap="viridis")
    provenance.save_figure(workspace, fig, "fig06")
    assert not plt.fignum_exists(fig.number)  # Jupyter draws what is open at a cell's end
    saved = Image.open(workspace.figures / "fig06.png").convert("RGB").resize(shown[0].size)
    assert abs(np.asarray(saved).astype(float) - np.asarray(shown[0])).mean() < 4  # of 255; one has 256 colours
    assert shown[0].width == pytest.approx(fig.dpi * fig.get_figwidth(), rel=0.15)


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
    assert about.endswith("PRO has 200 thresholds, as the paper's, on datasets with a reported one; elsewhere, and in "
                          "bottle, it is exact.")
    assert tables.what_was_measured(workspace, frame[:3]) == "Nothing of it was measured in the profile smoke."
    assert "PRO" not in tables.what_was_measured(workspace, tables.beside_paper(7, named("D3AD", measured_p_auroc=9.0)))


def named(method: str, **values) -> pd.DataFrame:
    return pd.DataFrame([dict(dataset="VisA-like", category="Average", method=method, **values)])


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
    assert "--profile smoke --data-root DIR measures them;" in tables.empty_cells(own, frame)
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


def test_the_registry_holds_every_average_and_every_claim(workspace):
    from d3ad.study import claims

    measured = pd.DataFrame([dict(dataset="VisA-like", category="Average", method="D3AD", measured_p_auroc=98.0)])
    tables.save_table(workspace, tables.beside_paper(7, measured), "table7")
    ledger = pd.DataFrame([dict(claim=c.claim, reported=c.reported) for c in claims.CLAIMS])
    ledger[["effect", "low", "high"]] = float("nan")
    entries = {entry["item"]: entry for entry in provenance.registry(workspace, ledger)}
    assert entries["Table 7, VisA, D3AD, p_auroc"]["paper"] == 97.9
    assert entries["Table 7, VisA-like, D3AD, p_auroc"]["measured"] == 98.0
    beside = named("DIC", measured_pro=50.0, measured_pro_200=40.0).assign(dataset="VisA")
    tables.save_table(workspace, tables.beside_paper(4, beside), "table4")
    entries = {entry["item"]: entry for entry in provenance.registry(workspace, ledger)}
    assert entries["Table 4, VisA, DIC, pro"]["measured"] == 40.0  # beside the paper's, which has 200 thresholds
    assert sum(item.startswith("claim: ") for item in entries) == len(claims.CLAIMS)
    changed = open_workspace("smoke", out=str(workspace.out), k=2)  # the tables are not of its settings
    entries = provenance.registry(changed, ledger)
    assert entries and not any(entry["item"].startswith("Table") for entry in entries)


def test_exposures_of_a_tile_are_one_unit_whatever_the_seed(tmp_path):
    draw_tiles(tmp_path / "mtd")
    workspace = open_workspace("mtd", str(tmp_path), str(tmp_path / "out"))
    units = {}
    for run in workspace.seed_runs():
        assert len(run.units) == len(run.dataset.test) > len(set(run.units))
        for sample, unit in zip(run.dataset.test, run.units):
            assert units.setdefault(sample.image, unit) == unit


def test_claims_are_tested_on_fresh_seeds_only(tmp_path):
    demo = open_workspace("demo", out=str(tmp_path))
    runs = demo.ledger_runs()
    assert {run.config.seed for run in runs} & set(demo.study.tuning_seeds) == set()
    assert len({run.config.seed for run in runs}) >= 3 and len({run.category for run in runs}) == 7
    assert len(runs) == len(set(runs)) == 11
    with pytest.raises(ValueError, match="tuning_seeds"):
        open_workspace("demo", out=str(tmp_path), seed=0, seeds=1).ledger_runs()
