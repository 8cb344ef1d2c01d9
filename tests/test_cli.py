"""python -m d3ad: draw, fit, predict, evaluate; one clear line for what goes wrong."""
import json
import shutil

import pandas as pd
import pytest

from d3ad.cli import main

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
    assert list(table) == ["path", "score", "t_hat", "is_anomalous", "threshold"]
    assert len(table) == len(list(tmp_path.glob("*.png"))) == len(list(folder.iterdir()))
    assert "flagged" in capsys.readouterr().out


def test_evaluate_prints_metrics(drawn, model, capsys):
    assert main(["evaluate", str(model), "--dataset", "mvtec", "--data-root", str(drawn), "--category", "weave"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert {"i_auroc", "p_auroc", "pro"} <= set(metrics)
    assert all(value is None or 0 <= value <= 1 for value in metrics.values())  # None: no region of that size


@pytest.mark.parametrize("arguments, message", [
    (["fit", "nowhere", "--out", "m"], "nowhere"),
    (["fit", "--out", "m"], "--data-root"),
    (["fit", "--dataset", "visa", "--data-root", "nowhere", "--out", "m"], "nowhere"),
    (["fit", ".", "--out", "m", "--set", "guidence=1"], "guidence"),
    (["fit", ".", "--out", "m", "--set", "omega=7"], "omega"),
    (["predict", "nowhere", ".", "--out", "o"], "config.json"),
    (["synthesize", "drawn", "--train", "0"], "num_train"),
])
def test_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["train"], ["fit", "x"], ["fit", "x", "--out", "m", "--profile", "nope"], ["predict"]])
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1


def test_check_passes_what_is_whole(drawn, capsys):
    assert main(["check", "--dataset", "mvtec", "--data-root", str(drawn)]) == 0
    said = capsys.readouterr().out
    assert "mvtec/weave: 6 training, 3 normal test, 6 anomalous test images" in said and "nothing to mend" in said


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
