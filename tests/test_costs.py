"""What a study with the paper's networks costs, by formula: against numbers worked out by hand."""
import re

import pytest

from d3ad import Config
from d3ad.study import costs, gpu_page
from d3ad.study.settings import Study

SIZES = costs.Sizes(flop=dict(encode=10.0, decode=20.0, eps=1.0, features=2.0),
                    weights=dict(autoencoder=100, UNet=1000, features=10), saved=50.0, largest=7.0, latent=4, pooled=8)


@pytest.fixture
def small(monkeypatch):
    """Networks of round numbers."""
    monkeypatch.setattr(costs, "sizes", lambda config: SIZES)
    return Config(batch_size=10, train_epochs=5, num_steps=4, calibration_images=3)


def test_the_work_of_one_detector_by_hand(small):
    work = costs._flop(small, Study(), 20, 6, [{}, dict(num_steps=1), dict(adapt_epochs=0)])
    assert work["training"] == 3 * 1.0 * (5 * 2) * 10  # two steps an epoch, ten images each, thrice a pass
    assert work["adaptation"] == 20 * 10 + 20 * (4 + 20 + 6 * 2 + 2)
    looks = 6 + 3
    assert work["variants"] == 6 * (10 + 2) + looks * (2 * (4 + 20 + 2) + (1 + 20 + 2)) + 20 * 10 + 20 * 2
    assert work["baselines"] == 0


def test_seeds_and_categories_add_up(small):
    counts = {"a": (20, 6), "b": (40, 6)}
    rate = dict(float32=1e3, bfloat16=2e3)
    found = costs.costs(small, Study(seeds=3, per_category={"b": dict(train_epochs=1)}), counts, rate)
    assert found.detectors == 6
    images = 3 * (5 * 20 + 1 * 40)                             # seeds times epochs times images
    assert found.hours["training"] == pytest.approx(3 * images / (costs.SHARE * 1e3) / 3600)
    in_bfloat16 = costs.costs(small.replace(train_precision="bfloat16"), Study(seeds=3), counts, rate)
    assert in_bfloat16.hours["training"] == pytest.approx(3 * 3 * 5 * 60 / (costs.SHARE * 2e3) / 3600)
    assert found.on(1) == pytest.approx(sum(found.hours.values())) == pytest.approx(found.on(4) * 3)  # two rounds
    assert found.memory["training"] == 4 * 1110 + 12 * 1000 + 50 * 10
    parts = costs.costs(small.replace(accumulate=5), Study(), counts, rate)
    assert parts.memory["training"] == 4 * 1110 + 12 * 1000 + 50 * 2
    assert found.state == 12 * 1000 and "0.0 GB, for each worker that trains" in str(found)
    assert found.written == 6 * 12 * 1000                      # each ends before the clock says to write
    assert "6 detectors take" in str(found)


def test_the_papers_networks_are_counted_on_shapes():
    found = costs.sizes(Config())
    assert round(found.weights["UNet"] / 1e6, 1) == 281.1
    gflop = {name: value / 1e9 for name, value in found.flop.items()}
    assert 270 < gflop["encode"] < 275 and 620 < gflop["decode"] < 625 and 35 < gflop["eps"] < 45
    assert found.pooled == 128 * 256 and found.latent == 4 * 32 * 32


def test_a_training_below_its_full_number_of_images_is_called_short():
    lines = gpu_page.measured().splitlines()
    of_gan = [line for line in lines if line.startswith("| GANomaly")]
    assert of_gan and all(re.search(r"\| short, \d+ % \|$", line) for line in of_gan)
    assert all(line.endswith("| 100 % |") for line in lines if line.startswith("| CFA"))


def test_taef2_is_counted_in_place_of_the_papers_autoencoder():
    found, papers = costs.sizes(Config.profile("mvtec-gpu")), costs.sizes(Config())
    assert round(found.weights["autoencoder"] / 1e6, 1) == 2.7 and found.latent == 32 * 32 * 32
    assert all(found.flop[name] < papers.flop[name] / 5 for name in ("encode", "decode"))
    assert "15 detectors take" in str(costs.of_profile("mvtec-gpu"))


def test_the_page_is_what_the_formulas_and_the_committed_measurements_give():
    assert (gpu_page.ROOT / "docs" / "gpu.md").read_text(encoding="utf-8") == gpu_page.page()
