"""The solar cells: a tiny set in the package's layout, the package itself where it is installed, and what is said
without it."""
import numpy as np
import pytest
from PIL import Image

from d3ad import data
from d3ad.app import cli, commands
from d3ad.data import elpv


@pytest.fixture()
def root(tmp_path):
    """Ten good mono cells, three defective, two uncertain, and one poly cell."""
    states = ["0.0"] * 10 + ["1.0"] * 3 + ["0.3333333333333333", "0.6666666666666666"]
    lines = [f"images/cell{i:04d}.png  {state}  mono"
             for i, state in enumerate(states)] + ["images/cell0099.png  0.0  poly"]
    (tmp_path / "images").mkdir()
    for line in lines:
        Image.fromarray(np.zeros((30, 30), np.uint8)).save(tmp_path / line.split()[0])
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_good_and_defective_cells_are_divided_and_the_uncertain_left_out(root):
    cells = data.load("elpv", root, "mono", seed=0)
    assert [len(cells.train), cells.labels("test").tolist()] == [8, [0, 0, 1, 1, 1]]
    assert "2 cells of uncertain state are left out" in cells.notes[-1]
    assert not {s.image for s in cells.train} & {s.image for s in cells.test}
    assert all(s.mask is None for s in cells.test)
    others = data.load("elpv", root, "mono", seed=1)
    assert others.train != cells.train and data.load("elpv", root, "mono", seed=0).train == cells.train


def test_what_is_missing_or_damaged_is_named(root):
    (root / "images/cell0003.png").unlink()
    with pytest.raises(data.DataError, match="cell0003.png: missing; restore it"):
        data.load("elpv", root, "mono")
    for line in ("images/cell0001.png mono", "images/cell0001.png half mono"):
        (root / "labels.csv").write_text(f"{line}\n")
        with pytest.raises(data.DataError, match="labels.csv: line 1 is not 'image probability kind'"):
            data.load("elpv", root, "mono")


def test_without_the_package_the_command_that_installs_it_is_said(monkeypatch):
    monkeypatch.setattr(elpv, "find_spec", lambda name: None)
    with pytest.raises(data.DataError, match=r"pip install elpv-dataset==1\.0\.0\.post1"):
        data.load("elpv", None, "mono")


def test_the_package_holds_what_was_published():
    pytest.importorskip("elpv_dataset", reason="elpv-dataset is not installed")
    for kind, (good, anomalous) in elpv.PUBLISHED.items():
        cells = data.load("elpv", None, kind)
        assert len(cells.train) + len(cells.test) == good + anomalous and len(cells.notes) == 1


def test_the_command_line_passes_the_seed_on_and_takes_the_package(root, monkeypatch, capsys):
    options = ["check", "--dataset", "elpv", "--category", "mono", "--data-root", str(root), "--split-seed", "1"]
    drawn = commands._dataset(cli.parser().parse_args(options))
    assert drawn.train == data.load("elpv", root, "mono", seed=1).train != data.load("elpv", root, "mono").train
    monkeypatch.setattr(elpv, "find_spec", lambda name: None)
    assert cli.main(["check", "--dataset", "elpv"]) == 2 and "pip install elpv" in capsys.readouterr().err
