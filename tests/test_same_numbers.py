"""The same numbers whatever the batch, the order of files, the number of threads and of worker processes."""
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from d3ad.infra import parallel
from d3ad.study.jobs import prepare
from d3ad.study.workspace import open_workspace

MAPS = ("score", "anomaly_map", "latent_map", "feature_map", "distance", "reconstruction")


@pytest.fixture(scope="module")
def thirty() -> torch.Tensor:
    coarse = torch.rand(30, 3, 6, 6, generator=torch.Generator().manual_seed(9)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, 64, mode="bilinear").clamp(-1, 1)


@pytest.fixture(scope="module")
def together(fitted, thirty):
    return fitted.predict(thirty)


def furthest(a, b) -> float:
    """The largest difference between two predictions in any score, map or reconstruction; of numbers above 1, its share
    of the largest.
    """
    pairs = [(getattr(a, name), getattr(b, name)) for name in MAPS]
    return max(float((x - y).abs().max() / y.abs().max().clamp_min(1)) for x, y in pairs)


@pytest.mark.parametrize("batch", [1, 7, 30])
def test_the_batch_size_changes_nothing(fitted, thirty, together, batch):
    found = fitted.variant(predict_batch=batch)
    found.calibration = fitted.calibration
    assert furthest(found.predict(thirty), together) < 1e-5


def test_the_order_changes_nothing(fitted, thirty, together):
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    reordered = dataclasses.replace(together, **{name: getattr(together, name)[order] for name in MAPS})
    assert furthest(fitted.predict(thirty[order]), reordered) < 1e-5


def test_the_order_and_names_of_files_change_nothing(fitted, thirty, tmp_path):
    scores = []
    for folder, names in (("a", range(6)), ("b", range(105, 99, -1))):
        (tmp_path / folder).mkdir()
        for image, name in zip(thirty, names):
            pixels = ((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
        scores.append(fitted.predict(tmp_path / folder).score)
    assert torch.allclose(scores[0], scores[1].flip(0), atol=1e-5)


def test_the_number_of_threads_moves_no_score_by_more_than_rounding(fitted, thirty):
    with_one = fitted.predict(thirty[:4])
    try:
        torch.set_num_threads(2)
        assert furthest(fitted.predict(thirty[:4]), with_one) < 1e-4
    finally:
        torch.set_num_threads(1)


def test_the_number_of_workers_changes_no_number_and_no_byte_of_a_model(tmp_path, monkeypatch):
    found = []
    for workers in (1, 2):
        monkeypatch.setattr(parallel, "num_workers", lambda config: workers)
        workspace = open_workspace("smoke", out=str(tmp_path / str(workers)), datasets=["mvtec", "btad"],
                                               categories=["weave", "washer"], adapt_epochs=0, autoencoder_steps=2,
                                   train_steps=2)
        runs = workspace.runs()
        prepare(runs, [{}])
        numbers = [run.numbers() for run in runs]
        weights = {path.relative_to(workspace.cache): path.read_bytes()
                   for path in workspace.cache.rglob("*model.safetensors")}
        found.append((numbers, weights))
    assert found[0] == found[1] and len(found[0][1]) >= 10


def test_a_gpu_is_shared_as_far_as_its_memory_goes(monkeypatch):
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: 16)
    monkeypatch.setattr(parallel.psutil, "virtual_memory", lambda: SimpleNamespace(available=10 ** 12))
    for free, workers in ((79e9, 4), (12e9, 1), (200e9, 8)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert parallel.num_workers(torch.device("cuda")) == workers


def test_no_threshold_looks_at_a_label():
    """The threshold is a field of the calibration, which is made of training images; what sets it takes scores and a
    rate only.
    """
    import inspect

    from d3ad import detector
    from d3ad.infra.thresholds import threshold_for

    takers = (threshold_for, detector.D3AD.set_threshold, detector.D3AD.fit)
    taken = [set(inspect.signature(taker).parameters) for taker in takers]
    assert not any({"labels", "masks", "test"} & names for names in taken)
    assert not {"labels", "masks"} & {field.name for field in dataclasses.fields(detector.Prediction)}
