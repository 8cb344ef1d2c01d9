"""Each baseline on a toy set: a texture with a coloured square planted into some test images."""
import pytest
import torch

from d3ad import D3AD, Config, baselines, metrics
from d3ad.baselines import BASELINES, Resources, baseline_class, make
from d3ad.baselines.base import Budget
from d3ad.baselines.noise import octave_noise, pasted
from d3ad.detector import fit_backbone

# Training steps that suffice on the toy set; nothing is trained by the others.
STEPS = {"RD4AD": 16, "RD++": 16, "DRAEM": 80, "DiffusionAD": 60, "AnoDDPM": 600, "FastFlow": 16, "CFA": 10,
         "SimpleNet": 30, "GANomaly": 120, "SkipGANomaly": 40}
SIZE = 32


def texture(count: int, generator: torch.Generator) -> torch.Tensor:
    """Stripes of a random phase with a little noise, (count, 3, SIZE, SIZE)."""
    y, x = torch.meshgrid(torch.arange(SIZE) / SIZE, torch.arange(SIZE) / SIZE, indexing="ij")
    phase = 0.6 * torch.rand(count, 1, 1, generator=generator)
    waves = 0.4 * torch.sin(16 * x + phase) * torch.cos(13 * y)
    return (waves.unsqueeze(1) + 0.05 * torch.randn(count, 3, SIZE, SIZE, generator=generator)).clamp(-1, 1)


@pytest.fixture(scope="module")
def toy():
    generator = torch.Generator().manual_seed(0)
    train, test = texture(24, generator), texture(10, generator)
    masks = torch.zeros(10, SIZE, SIZE, dtype=torch.bool)
    masks[:5, 10:18, 14:22] = True
    test = torch.where(masks.unsqueeze(1), torch.tensor([0.9, 0.2, -0.5]).view(3, 1, 1), test)
    config = Config.profile("smoke", image_size=SIZE, autoencoder_steps=40, train_steps=40, pretrain_steps=20)
    backbone = fit_backbone(train, config, None, {})
    return train, test, masks, Resources(config, backbone, D3AD(config).fit(train, backbone=backbone))


@pytest.mark.parametrize("name", BASELINES)
def test_finds_a_planted_square(name, toy):
    train, test, masks, shared = toy
    budget = Budget(round(STEPS.get(name, 0) / baseline_class(name).pace), width=0.25)
    baseline = make(name, Resources(shared.config, shared.backbone, shared.detector, budget)).fit(train)
    found = baseline.predict(test)
    assert found.score.shape == (10,) and found.anomaly_map.shape == (10, SIZE, SIZE)
    assert found.reconstruction is None or found.reconstruction.shape == test.shape
    assert metrics.pixel_auroc(found.anomaly_map, masks) > 0.8
    if name != "AnoDDPM":  # its squared error's maximum lies in the noise until it is trained for hours
        assert metrics.image_auroc(found.score, masks.flatten(1).any(1)) > 0.8
    alone = baseline.predict(test[3:4])
    torch.testing.assert_close(alone.score, found.score[3:4], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(alone.anomaly_map, found.anomaly_map[3:4], rtol=1e-3,
                               atol=1e-4 * float(found.anomaly_map.abs().max()))


def test_budget_is_what_the_paper_asks_for_or_the_profiles_limit(toy):
    train, _, _, shared = toy
    asked = make("DRAEM", Resources(shared.config, shared.backbone))
    assert asked.num_steps(80) == asked.steps_asked(80) == 700 * 10
    limited = make("DRAEM", Resources(shared.config, shared.backbone, budget=Budget(50)))
    assert limited.num_steps(80) == 50 * limited.pace and limited.steps_asked(80) == 700 * 10
    assert len(limited.batch(train, 0)) == 4 and limited.crop(0, train)[0].shape == train.shape
    parts = make("DRAEM", Resources(shared.config.replace(crop_size=16), shared.backbone)).crop(3, train, train[:, :1])
    assert torch.equal(parts[0][:, :1], parts[1]) and parts[0].shape[-2:] == (16, 16)
    assert make("SPADE", shared).num_steps(80) == 0


def test_unknown_baseline_and_missing_package(monkeypatch):
    with pytest.raises(ValueError, match="unknown baseline 'Spode'"):
        baseline_class("Spode")
    monkeypatch.setattr(baselines, "find_spec", lambda package: None)
    with pytest.raises(ImportError, match="PaDiM rests on anomalib, which is not installed"):
        baseline_class("PaDiM")
    assert baseline_class("SPADE").name == "SPADE"


def test_diffusion_baselines_need_a_detector(toy):
    train, _, _, shared = toy
    for name in ("DDAD", "DiffusionAD"):
        with pytest.raises(ValueError, match="trained D3AD"):
            make(name, Resources(shared.config, shared.backbone)).fit(train)


def test_octave_noise_is_standardised_and_smooth():
    noise = octave_noise(4, 64, torch.Generator().manual_seed(0))
    assert noise.shape == (4, 64, 64)
    torch.testing.assert_close(noise.mean((1, 2)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(noise.std((1, 2)), torch.ones(4), atol=1e-5, rtol=0)
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean()  # white noise would give 0
    assert neighbours > 0.8


def test_pasted_changes_only_what_it_marks():
    images = texture(8, torch.Generator().manual_seed(1))
    broken, where = pasted(images, torch.Generator().manual_seed(2))
    assert where.unique().tolist() == [0, 1] and 0 < where.flatten(1).any(1).sum() < 8
    assert torch.equal(broken[(where == 0).unsqueeze(1).expand_as(images)],
                       images[(where == 0).unsqueeze(1).expand_as(images)])
    assert not torch.equal(broken, images)


def test_greedy_coreset_takes_the_farthest_each_time():
    from d3ad.baselines.patchcore import greedy_coreset
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(60, 5, generator=generator)
    chosen = greedy_coreset(points, 20).tolist()
    for i in range(1, 20):
        distance = torch.cdist(points, points[chosen[:i]]).amin(1)
        assert distance[chosen[i]] == pytest.approx(float(distance.max()), rel=1e-4)
    assert len(set(chosen)) == 20 and len(set(greedy_coreset(points, 60).tolist())) == 60
