"""Weights kept on the way of a training are compared on validation images."""

import pytest
import torch

from d3ad.study import checkpoints
from d3ad.study.workspace import open_workspace


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
