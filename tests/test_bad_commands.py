"""Bad command lines and runs, each with the one line that is said about it."""

import nbformat
import pytest
from bad_inputs import TABLES, table
from tiny_datasets import draw, draw_folders

from d3ad import data
from d3ad.app import cli
from d3ad.study import runner
from d3ad.study.jobs import train
from d3ad.study.running import clean_notebooks
from d3ad.study.settings import Study
from d3ad.study.workspace import open_workspace

# ---- commands ----

TABLES["test_a_bad_command_is_one_line"] = [
    ("no folder", "fit --out m", "give --dataset and --data-root, or a folder"),
    ("nowhere", "fit nowhere --out m", "not a folder"),
    ("a file", "fit file.txt --out m", "not a folder"),
    ("no image", "fit empty --out m", "images not found"),
    ("unknown dataset", "fit --dataset imagenet --data-root . --out m", "unknown dataset 'imagenet'"),
    ("unknown setting", "fit good --out m --set omegaa=1", "unknown setting 'omegaa'"),
    ("setting without a value", "fit good --out m --set omega", "omega must be of type float"),
    ("setting of another type", "fit good --out m --set k=many", "k must be of type int"),
    ("setting out of range", "fit good --out m --set k=0", "k must lie"),
    ("settings that exclude each other", "fit good --out m --set t_max=5000", "can't exceed num_timesteps"),
    ("size that can't be divided", "fit good --out m --set image_size=100", "multiples of 8"),
    ("k beyond the training set", "fit good --out m --profile smoke --set k=3",
     "good: 3 good images are too few: 1 sets the threshold, and k = 3 takes 3 to train on; give at least 4"),
    ("one image", "fit one --out m --profile smoke", "1 good image can't be divided"),
    ("out is not a detector", "fit good --out good", "is not a saved detector, so it is not replaced"),
    ("out is a file", "fit good --out file.txt", "is not a saved detector, so it is not replaced"),
    ("out below a file", "fit good --out file.txt/m --profile smoke --set k=1", "Not a directory"),
    ("no model", "predict nowhere good --out o", "config.json is missing"),
    ("model is a file", "predict file.txt good --out o", "config.json is missing"),
    ("model is no model", "predict good good --out o", "config.json is missing"),
    ("evaluate no model", "evaluate good --dataset mvtec --data-root .", "config.json is missing"),
    ("check nowhere", "check nowhere", "not a folder"),
    ("check nothing", "check", "give --dataset and --data-root, or a folder"),
    ("check a wrong root", "check --dataset mtd --data-root good", "mtd not found"),
    ("drawn too small", "synthesize s --size 32", "size must be at least 64"),
    ("drawn nothing", "synthesize s --bad 0", "num_bad must be at least 1"),
    ("drawn of a negative seed", "synthesize s --seed -1", "seed must be at least 0"),
    ("drawn of an unknown kind", "synthesize s --only zipper", "unknown category 'zipper'"),
    ("drawn into a file", "synthesize file.txt --only weave --train 1 --good 1 --bad 1 --size 64", "Not a directory"),
    ("no command", "", "COMMAND"), ("unknown command", "train", "invalid choice"),
    ("unknown option", "fit good --out m --epochs 3", "--epochs"),
    ("abbreviated option of a command", "fit good --out m --held 0.3", "--held"),
    ("a model without a name", "fit good --out .", "has no name of its own"),
    ("unknown profile", "fit good --out m --profile tiny", "invalid choice"),
    ("number that is none", "synthesize s --size big", "invalid int"),
    ("nothing held out", "fit good --out m --held-out 0", "must be above 0"),
    ("most held out", "fit good --out m --held-out 0.9", "at most 0.5"),
    ("rate that is no number", "fit good --out m --false-alarms nan", "must be above 0"),
    ("share in words", "fit good --out m --held-out half", "'half' is not a number"),
    ("half an image at once", "benchmark --batch 1.5", "1.5 must be a whole number from 1 to 4096"),
    ("unknown preset", "predict nowhere good --out o --preset fats", "preset must be one of faithful"),
    ("seed of a division that is fixed", "fit --dataset visa --data-root . --out m --split-seed 3",
     "--split-seed goes with mtd, elpv, folder: it changes nothing in visa"),
    ("division of other datasets", "fit --dataset elpv --out m --split by_tile", "--split goes with mtd"),
    ("folder and dataset", "fit good --dataset mtd --data-root . --out m", "exclude each other"),
    ("folder and data root", "check good --data-root .", "exclude each other"),
    ("a batch of none", "benchmark --batch 0", "0 must be a whole number from 1 to 4096"),
    ("unknown normalisation", "evaluate m --normalisation max", "invalid choice"),
]


@table
def test_a_bad_command_is_one_line(tmp_path, monkeypatch, capsys, bad, message):
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        draw(tmp_path / f"good/{i}.png", seed=i)
    draw(tmp_path / "one/1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    before = sorted(tmp_path.rglob("*"))
    try:
        code = cli.main(bad.split())
    except SystemExit as stop:  # argparse
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2 and message in said and len(said.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before  # nothing begun is left


NOTEBOOK = 'profile: str = "demo"\ndata_root: str = ""\nout: str = ""'
TABLES["test_a_bad_run_is_one_line"] = [
    ("unknown option", "--fast", "--fast"), ("abbreviated option", "--prof demo", "--prof"),
    ("no value", "--out", "--out"),
    ("unknown profile", "--profile tiny", "unknown profile 'tiny'"),
    ("empty profile", "--profile=", "unknown profile ''"),
    ("unknown notebook", "--only 42", "no notebook 42"), ("no number", "--only first", "no notebook first"),
    ("empty list", "--only=", "no notebook 00"),
    ("hole in a list", "--only 01,,08", "no notebook 00"), ("out is a file", "--out file.txt", "is not a folder"),
    ("empty out", "--out=", "is not a folder"),
    ("data root is a file", "--data-root file.txt", "is not a folder"),
    ("real data without a root", "--profile mvtec", "--data-root"),
    ("root without the dataset", "--profile btad --data-root empty", "btad not found"),
    ("clean what is no notebook", "--normalise file.txt", "is not a notebook"),
    ("clean what isn't there", "--normalise gone.ipynb", "gone.ipynb"),
    ("notebooks of another profile", "--update-notebooks --profile smoke",
     "--update-notebooks goes with the demo profile"),
]


@table
def test_a_bad_run_is_one_line(tmp_path, monkeypatch, capsys, bad, message):
    monkeypatch.chdir(tmp_path)
    for name in ("D3AD_PROFILE", "D3AD_DATA_ROOT", "D3AD_OUT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    assert runner.main(bad.split()) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


def test_who_computes_must_be_known(monkeypatch, capsys):
    monkeypatch.setenv("D3AD_WORKERS", "Ray")
    assert runner.main(["--profile", "smoke"]) == 2
    assert "D3AD_WORKERS must be local or ray; got Ray" in capsys.readouterr().err



def test_all_problems_of_all_categories_are_reported_before_the_run(tmp_path):
    for category in ("01", "02", "03"):
        draw_folders(tmp_path / category, "ok", ["ko"])
    (tmp_path / "01/train/ok/000.png").write_bytes(b"")
    (tmp_path / "03/ground_truth/ko/001.png").unlink()
    with pytest.raises(runner.UsageError) as error:
        runner.check_data("btad", Study.profile("btad"), tmp_path)
    assert "01/train/ok/000.png: empty file" in str(error.value) and "03/test/ko/001.png: no mask" in str(error.value)


def test_unreadable_test_images_are_reported_before_the_training(tmp_path):
    for category in ("01", "02"):
        draw_folders(tmp_path / category, "ok", ["ko"])
        (tmp_path / category / "test/ko/001.png").write_bytes(b"no image")
    workspace = open_workspace("btad", str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(data.DataError) as error:
        train([workspace.run("btad", category) for category in ("01", "02")])
    named = [line.split(": ")[0] for line in str(error.value).splitlines()]
    assert named == [f"{tmp_path}/0{i}/test/ko/001.png" for i in (1, 2)]


@pytest.mark.parametrize("lacking, message", [("data_root", "no data_root"), ("profile", "no profile")])
def test_a_notebook_without_a_parameter_is_refused(tmp_path, lacking, message):
    lines = [line for line in NOTEBOOK.splitlines() if not line.startswith(lacking)]
    cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": clean_notebooks.KERNELSPEC}),
                   tmp_path / "01_made.ipynb")
    with pytest.raises(runner.UsageError, match=message):
        runner.check_parameters(tmp_path / "01_made.ipynb", dict(profile="", data_root="", out=""))


@pytest.mark.parametrize("tried, message",
                         [("t_max=40", "D3AD_SET must be JSON"), ('{"tmax": 40}', "unknown setting 'tmax'"),
                          ("[1]", "D3AD_SET must be JSON")])
def test_settings_to_try_are_checked(monkeypatch, tried, message):
    monkeypatch.setenv("D3AD_SET", tried)
    with pytest.raises(ValueError, match=message):
        open_workspace("smoke")
