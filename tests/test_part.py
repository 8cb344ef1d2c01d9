"""Parts of one's own: folders, the forecast before a fit, the paper's setting on a folder, what is flagged."""
import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import timm
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from tiny_datasets import photograph

from d3ad import Config, data
from d3ad.app import forecast, part
from d3ad.app.cli import main
from d3ad.data import base, synthetic
from d3ad.study import runner
from d3ad.study.workspace import open_workspace

NOTEBOOK = next((Path(__file__).resolve().parent.parent / "notebooks").glob("09_*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn buttons as a user has them: `good`, a folder per defect, and another of good ones alone."""
    root = tmp_path_factory.mktemp("parts")
    drawn = synthetic.write(root / "drawn", "mvtec", "button", 12, 4, 6, size=64) / "button"
    (drawn / "train" / "good").rename(root / "only_good")
    (drawn / "test").rename(root / "mixed")
    return root


@pytest.fixture()
def workspace(tmp_path):
    return open_workspace("smoke", out=str(tmp_path))


def test_a_forecast_adds_up_and_speaks_of_its_larger_parts():
    expected = forecast.Forecast({"autoencoder": 30.0, "diffusion": 95.0, "adaptation": 0.2})
    assert expected.total == pytest.approx(125.2)
    assert str(expected) == "about 2.1 minutes on this machine (autoencoder 30 s, diffusion 1.6 minutes)"
    assert str(forecast.Forecast({"diffusion": 3600.0 * 40})).startswith("about 40 hours")
    # the longer of two counts
    assert forecast.Forecast({"autoencoder": 30.0, "diffusion": 95.0, "features": 20.0}, at_once=True).total == 125


def test_the_steps_of_a_fit_are_counted():
    assert forecast.num_steps(Config.profile("demo"), 96) == dict(autoencoder=1000, diffusion=600, features=0,
                                                                  adaptation=0)
    assert forecast.num_steps(Config.profile("paper"), 96) == dict(autoencoder=0, diffusion=900, features=0,
                                                                   adaptation=3)
    parts = Config.profile("parts", train_steps=0, adapt_epochs=2)  # 80 of 100, and 8 moved copies of each
    steps = forecast.num_steps(parts, 100)
    assert (steps["diffusion"], steps["adaptation"]) == (300 * (720 // 8), 2 * (80 // 8))


def test_a_rehearsal_changes_nothing_of_the_fit(tiny, images, fitted):
    from d3ad import D3AD
    expected = forecast.rehearse(images, tiny, num_held_out=2)
    assert set(expected.seconds) == {"autoencoder", "diffusion", "features", "adaptation",
                                     "calibration"} and expected.total > 0
    assert torch.equal(D3AD(tiny).fit(images).predict(images).score, fitted.predict(images).score)


def test_a_long_fit_says_how_long_and_uses_two_cores_with_the_same_result(tiny, images, capsys, monkeypatch):
    monkeypatch.setattr(part, "num_workers", lambda config: 2)
    monkeypatch.setattr(forecast, "rehearse", lambda *arguments: forecast.Forecast({"diffusion": 300.0}))
    monkeypatch.setattr(part, "LONG", 1)
    detector, num_trained = part.fit_part(images, tiny)
    said = capsys.readouterr().out
    assert said.startswith("training on 8 images takes about 5.0 minutes on this "
                           "machine") and num_trained == 8 and detector.guarantee.num_images == 2
    monkeypatch.setattr(part, "LONG", 100)
    plain, _ = part.fit_part(images, tiny)
    assert not capsys.readouterr().out  # nine steps are not worth a word
    assert torch.allclose(plain.predict(images).score, detector.predict(images).score,
                          atol=1e-4) and plain.losses == detector.losses


def test_missing_weights_are_named_before_the_long_work(tiny, images, tmp_path, monkeypatch):
    monkeypatch.setattr(part, "LONG", 1)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        part.fit_part(images, tiny.replace(backbone_weights=str(tmp_path / "nowhere")), folder=tmp_path)
    assert not list(tmp_path.iterdir())  # the real training, which comes to the features late, had not begun


def test_a_presets_missing_weights_are_named_before_any_training(tiny, images, tmp_path, monkeypatch):
    monkeypatch.setattr(part.D3AD, "fit", lambda *arguments: pytest.fail("it trained"))
    config = tiny.replace(autoencoder="kl", autoencoder_weights="nowhere", tiny_weights=str(tmp_path / "tiny"))
    with pytest.raises(FileNotFoundError, match="tiny"):
        part.fit_part(images, config, preset="fast")


def test_the_papers_setting_takes_a_folder_of_ones_own(folder, tmp_path, capsys):
    """`fit --profile paper` with weights from a folder; networks and epochs small, all else as in the paper."""
    torch.manual_seed(0)
    AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                  block_out_channels=(8,) * 4, norm_num_groups=4, layers_per_block=1).save_pretrained(tmp_path / "vae")
    (tmp_path / "resnet").mkdir()
    weights = {name: value.contiguous() for name, value in timm.create_model("resnet34").state_dict().items()}
    save_file(weights, tmp_path / "resnet" / "model.safetensors")
    small = ["unet_channels=[16,32]", "unet_attention=[1]", "unet_groups=16", "image_size=64", "train_epochs=2",
             "batch_size=4", "k=3",
             f"autoencoder_weights={tmp_path / 'vae'}", f"backbone_weights={tmp_path / 'resnet'}"]
    arguments = [word for setting in small for word in ("--set", setting)]
    assert main(["fit", str(folder / "only_good"), "--out", str(tmp_path / "model"), "--profile", "paper",
                 *arguments]) == 0
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    assert settings["autoencoder"] == "kl"
    assert settings["config"]["name"] == "paper" and settings["config"]["t_max"] == 80
    assert len(settings["losses"]["diffusion"]) == 4 and not {"autoencoder", "features"} & set(settings["losses"])
    assert main(["predict", str(tmp_path / "model"), str(folder / "mixed" / "chip"), "--out",
                 str(tmp_path / "out")]) == 0
    assert "flagged" in capsys.readouterr().out


def test_the_paper_profile_has_no_notebooks_of_its_own(capsys):
    assert runner.main(["--profile", "paper"]) == 2 and "names no dataset" in capsys.readouterr().err
    with pytest.raises(ValueError, match="good_folder"):
        part.read(open_workspace("paper"))


def test_folders_are_read_as_a_user_has_them(folder, workspace):
    mixed = part.read(workspace, str(folder / "mixed"))
    # a fifth of the good ones is inspected
    assert len(mixed.good) == 3 and len(mixed.new) == 7 and int(mixed.labels.sum()) == 6
    apart = part.read(workspace, str(folder / "only_good"), str(folder / "mixed" / "chip"))
    assert len(apart.good) == 12 and len(apart.new) == 1 and apart.labels is None and apart.mask(0) is None
    with pytest.raises(ValueError, match="give new_folder"):
        part.read(workspace, str(folder / "only_good"))


def test_the_example_shares_no_image_with_what_it_inspects(workspace):
    parts = part.read(workspace)
    assert not {image.numpy().tobytes() for image in parts.good} & {image.numpy().tobytes() for image in parts.new}
    assert parts.labels.sum() == 6 and parts.mask(len(parts.new) - 1).any()
    assert parts.mask(parts.labels.tolist().index(0)) is None


def test_what_is_flagged_is_counted_by_kind():
    table = pd.DataFrame(dict(kind=["good", "good", "chip", "crack", "crack"],
                              anomalous=[False, False, True, True, True],
                              flagged=[False, True, True, True, False], score=[0.5, 1.2, 3.0, 2.0, 0.9]))
    found = part.by_kind(table).set_index("kind")
    assert found["flagged"].to_dict() == pytest.approx({"good": 50.0, "chip": 100.0, "crack": 50.0,
                                                        "all defects": 200 / 3})
    assert found.loc["crack", ["lowest", "highest", "parts"]].tolist() == [0.9, 2.0, 2]
    # one of six pairs is the wrong way round
    assert found.loc["all defects", "measured_i_auroc"] == pytest.approx(100 * 5 / 6)


def test_the_notebooks_cells_take_folders_of_ones_own(folder, tmp_path, capsys):
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    given = dict(profile="smoke", data_root="", out=str(tmp_path), good_folder=str(folder / "only_good"),
                 new_folder=str(folder / "mixed" / "chip"))
    names = {"display": lambda table: None}
    for cell in cells:
        exec(cell.source, names)
        names |= given if "parameters" in cell.metadata.get("tags", []) else {}
    assert "12 good parts to learn from, 1 parts to inspect" in capsys.readouterr().out
    assert (tmp_path / "figures" / "own" / "own_parts.png").exists() and not (tmp_path / "figures" / "smoke").exists()
    assert (tmp_path / "cache" / "own" / "inspection" / "report.html").exists()


def test_large_tensors_of_images_lie_in_a_file(monkeypatch, tmp_path):
    for i in range(12):
        photograph(tmp_path / f"{i}.png", value=20 * i)
    small = data.load("folder", tmp_path).images("train", 16)
    monkeypatch.setattr(base, "ROOM", 1)
    large = data.load("folder", tmp_path).images("train", 16)
    assert torch.equal(small, large)
    assert all(map(torch.equal, part.split_off(large, 0.2, 0), part.split_off(small, 0.2, 0)))


def test_a_notebook_inspects_every_photograph_of_a_labelled_folder(tmp_path):
    for i in range(10):
        photograph(tmp_path / f"good/{i}.png", value=20 * i)
        photograph(tmp_path / f"new/OK/{i}.png", value=20 * i)
    photograph(tmp_path / "new/NG/1.png")
    parts = part.read(open_workspace("smoke", out=str(tmp_path / "out")), str(tmp_path / "good"), str(tmp_path / "new"))
    assert len(parts.new) == 11 and int(parts.labels.sum()) == 1


def test_what_is_left_out_or_not_known_is_said(tmp_path, capsys):
    for i in range(10):
        photograph(tmp_path / f"good/{i}.png", value=20 * i)
    photograph(tmp_path / "new/1.png")
    (tmp_path / "new/2.heic").touch()
    with pytest.warns(UserWarning, match="1 files are left out: .*2.heic"):
        parts = part.read(open_workspace("smoke", out=str(tmp_path / "out")), str(tmp_path / "good"),
                          str(tmp_path / "new"))
    assert len(parts.new) == 1 and parts.labels is None
    for name in ("this", "that"):
        photograph(tmp_path / f"unclear/{name}/1.png")
    part._labelled(str(tmp_path / "unclear"))
    assert f"{tmp_path / 'unclear'}: which of its parts are good is not known (" in capsys.readouterr().out
