"""Workspaces, their runs and cached outcomes, in the smoke profile."""
import gc
import weakref

import pytest
import torch
from tiny_datasets import draw_tiles

from d3ad.data import synthetic
from d3ad.infra.files import load_tensors
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
