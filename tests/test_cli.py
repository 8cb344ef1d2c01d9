"""python -m d3ad: draw, fit, predict, evaluate; one clear line for what goes wrong."""
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_datasets import photograph

from d3ad import data
from d3ad.app import cli
from d3ad.app.cli import main
from d3ad.app.part import split_off
from d3ad.speed import presets
from d3ad.study import outcome

QUICK = ["--profile", "smoke", "--set", "train_steps=2", "--set", "autoencoder_steps=2", "--set", "pretrain_steps=1"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    assert main(["synthesize", str(folder), "--train", "6", "--good", "3", "--bad", "6", "--size", "64"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(drawn, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "weave"
    good = drawn / "mvtec_anomaly_detection" / "weave" / "train" / "good"
    assert main(["fit", str(good), "--out", str(out), *QUICK]) == 0
    return out


def test_predict_writes_scores_and_pictures(drawn, model, tmp_path, capsys):
    folder = drawn / "mvtec_anomaly_detection" / "weave" / "test" / "hole"
    assert main(["predict", str(model), str(folder), "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table) == ["path", "score", "t_hat", "is_anomalous", "threshold", "state", "width", "height", "boxes",
                           "picture"]
    for kind in ("heat_maps", "overlays", "masks"):
        assert len(table) == len(list((tmp_path / kind).glob("*.png"))) == len(list(folder.iterdir()))
    assert table["path"].tolist() == sorted(path.name for path in folder.iterdir()) and not (tmp_path / "maps").exists()
    assert (table["is_anomalous"] == (table["score"] > table["threshold"])).all()
    assert "flagged" in capsys.readouterr().out and "</html>" in (tmp_path / "report.html").read_text()


def test_the_model_says_where_its_threshold_comes_from(model, drawn, tmp_path):
    card, settings = (model / "README.md").read_text(), json.loads((model / "config.json").read_text())
    assert "Trained on 5 good images" in card and "fingerprint" in card
    assert "from 1 good images that were not trained on" in card
    assert "- `image_size` = 64" in card and "`map_blocks`" not in card  # only what differs from the paper's is listed
    assert settings["threshold"]["num_images"] == 1 and settings["threshold"]["expected_rate"] == 0.5
    folder = drawn / "mvtec_anomaly_detection" / "weave" / "train" / "good"
    assert main(["predict", str(model), str(folder), "--out", str(tmp_path), "--raw"]) == 0
    maps = sorted((tmp_path / "maps").iterdir())
    table = pd.read_csv(tmp_path / "scores.csv")
    assert [np.load(path).max() for path in maps] == pytest.approx(table["score"].tolist(), abs=1e-5)
    above = table["score"] - table["threshold"]
    clear = above.abs() > 2e-6  # the threshold is the score of one of them, up to rounding
    assert ((above > 0) == table["is_anomalous"])[clear].all() and clear.sum() == len(table) - 1


def test_images_are_held_out_at_random_and_none_is_lost():
    images = torch.arange(10).view(10, 1)
    train, held_out = split_off(images, 0.2, seed=0)
    assert len(train) == 8 and len(held_out) == 2
    assert sorted(torch.cat([train, held_out]).flatten().tolist()) == list(range(10))
    assert not torch.equal(split_off(images, 0.2, seed=1)[1], held_out)
    assert [len(part) for part in split_off(images[:2], 0.01, 0)] == [1, 1]
    with pytest.raises(ValueError, match="1 good image"):
        split_off(images[:1], 0.2, 0)


def test_a_second_fit_on_other_images_takes_nothing_from_the_first(drawn, tmp_path):
    good = [drawn / "mvtec_anomaly_detection" / part / "train" / "good" for part in ("weave", "gear")]
    for folder, out in ((good[0], "a"), (good[1], "a"), (good[1], "b")):
        assert main(["fit", str(folder), "--out", str(tmp_path / out), *QUICK]) == 0
    weights = [(tmp_path / out / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() for out in "ab"]
    assert weights[0] == weights[1] and not list(tmp_path.glob("*.training"))


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    def fail(options):
        raise ImportError("no module named 'papers'")

    monkeypatch.setattr(cli, "run_synthesize", fail)
    assert main(["synthesize", "x"]) == 2
    assert capsys.readouterr().err == "python -m d3ad synthesize: no module named 'papers'\n"


def fails_with(monkeypatch, error: BaseException):
    monkeypatch.setattr(cli, "run_synthesize", lambda options: (_ for _ in ()).throw(error))


def test_a_command_that_is_stopped_ends_with_130(monkeypatch, capsys):
    fails_with(monkeypatch, KeyboardInterrupt())
    assert main(["synthesize", "x"]) == 130
    assert capsys.readouterr().err == "\nstopped\n"
    monkeypatch.setattr(cli, "run_fit", cli.run_synthesize)
    assert main(["fit", "x", "--out", "y"]) == 130
    assert capsys.readouterr().err == "\nstopped; the same command continues where it stopped\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_too_little_memory_is_one_line(error, monkeypatch, capsys):
    fails_with(monkeypatch, error)
    assert main(["synthesize", "x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("python -m d3ad synthesize: out of memory: give a smaller --batch") and said.count("\n") == 1


def test_an_error_of_the_program_is_not_hidden(monkeypatch):
    fails_with(monkeypatch, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["synthesize", "x"])


def test_one_drawing_alone_can_be_asked_for(tmp_path, capsys):
    sizes = ["--train", "2", "--good", "1", "--bad", "1", "--size", "64"]
    assert main(["synthesize", str(tmp_path), "--only", "button", *sizes]) == 0
    assert [path.name for path in (tmp_path / "mvtec_anomaly_detection").iterdir()] == ["button"]
    assert main(["synthesize", str(tmp_path), "--only", "zipper",
                 *sizes]) == 2 and "unknown category 'zipper'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def predicted(drawn, model):
    """The detector and what it says of the test images, all at once."""
    detector = presets.load(model)
    return detector, detector.predict(data.load("mvtec", drawn, "weave"))


def evaluate(capsys, model, root, *more) -> dict:
    """The metrics that the command prints."""
    assert main(["evaluate", str(model), "--dataset", "mvtec", "--data-root", str(root), "--category", "weave",
                 *more]) == 0
    return json.loads(capsys.readouterr().out)


def by_hand(prediction, root, keep_small=True) -> dict:
    dataset = data.load("mvtec", root, "weave")
    return outcome.evaluate(prediction, dataset.labels("test"), dataset.masks("test", 64, keep_small))


def test_evaluate_names_what_it_left_out(model, tmp_path, capsys):
    for i in range(10):
        photograph(tmp_path / f"parts/good/{i}.png")
    photograph(tmp_path / "parts/crack/0.png", value=200)
    (tmp_path / "parts/crack/1.heic").write_bytes(b"of a phone")
    assert main(["evaluate", str(model), "--dataset", "folder", "--data-root", str(tmp_path / "parts")]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out)["i_auroc"] is not None and "left out: " in said.err and "1.heic" in said.err


def test_evaluate_prints_the_metrics_of_the_test_images(drawn, model, predicted, capsys):
    printed = evaluate(capsys, model, drawn)
    assert printed == pytest.approx(by_hand(predicted[1], drawn), abs=1e-4)
    assert {"i_auroc", "p_auroc", "pro"} <= set(printed)


def test_evaluate_takes_the_range_of_all_test_images_where_asked(drawn, model, predicted, capsys):
    detector, prediction = predicted
    expected = by_hand(detector.renormalised(prediction, "test"), drawn)
    assert expected != by_hand(prediction, drawn)
    assert evaluate(capsys, model, drawn, "--normalisation", "test") == pytest.approx(expected, abs=1e-4)


def test_evaluate_drops_defects_that_vanish_where_asked(drawn, model, predicted, tmp_path, capsys):
    category = tmp_path / "mvtec_anomaly_detection" / "weave"
    shutil.copytree(drawn / "mvtec_anomaly_detection" / "weave", category)
    pixel = np.zeros((256, 256), np.uint8)
    pixel[9, 9] = 255
    Image.fromarray(pixel).save(sorted((category / "ground_truth" / "hole").iterdir())[0])
    expected = by_hand(predicted[1], tmp_path, keep_small=False)
    assert expected["pro"] != by_hand(predicted[1], tmp_path)["pro"]
    assert evaluate(capsys, model, tmp_path, "--small-regions", "drop") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("arguments, message", [
    (["fit", "nowhere", "--out", "m"], "nowhere"),
    (["fit", "--out", "m"], "--data-root"),
    (["fit", "--dataset", "visa", "--data-root", "nowhere", "--out", "m"], "nowhere"),
    (["fit", ".", "--out", "m", "--set", "guidence=1"], "guidence"),
    (["fit", ".", "--out", "m", "--set", "omega=7"], "omega"),
    (["predict", "nowhere", ".", "--out", "o"], "config.json"),
    (["export", "nowhere", "--out", "o"], "config.json"),
    (["synthesize", "drawn", "--train", "0"], "num_train"),
])
def test_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["train"], ["fit", "x"], ["fit", "x", "--out", "m", "--profile", "nope"],
                                       ["predict"],
                                       ["fit", "x", "--out", "m", "--held-out", "1"],
                                       ["fit", "x", "--out", "m", "--false-alarms", "0"]])
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1


def test_check_passes_what_is_whole(drawn, capsys):
    assert main(["check", "--dataset", "mvtec", "--data-root", str(drawn)]) == 0
    said = capsys.readouterr().out
    assert "mvtec/weave: 6 training, 3 normal test, 6 anomalous test images" in said and "nothing to fix" in said


def test_check_lists_every_problem_of_every_category(drawn, tmp_path, capsys):
    root = tmp_path / "mvtec_anomaly_detection"
    shutil.copytree(drawn / "mvtec_anomaly_detection", root)
    first, second = sorted((root / "weave" / "train" / "good").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:500])                                        # cut off
    shutil.copy(second, sorted((root / "weave" / "test" / "good").iterdir())[0])       # trained on and tested with
    sorted((root / "gear" / "ground_truth").glob("*/*"))[0].unlink()                   # a mask is missing
    assert main(["check", "--dataset", "mvtec", "--data-root", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any("no images in it" in line and "gear" in line for line in lines)  # it was the only one of its kind
    assert any(f"{first}: cannot be read as an image" in line for line in lines)
    assert any("which is trained on" in line and str(second) in line for line in lines)
    assert main(["check", str(tmp_path / "nowhere")]) == 2 and "not a folder" in capsys.readouterr().err
