"""Each baseline on a toy set: a texture with a coloured square planted into some test images."""
import copy
import dataclasses
import sys

import pytest
import torch

from d3ad import D3AD, Config, baselines, diffusion, metrics
from d3ad.baselines import BASELINES, Resources, anoddpm, baseline_class, learning, make
from d3ad.baselines import nearest as nearest_module
from d3ad.baselines.base import Budget
from d3ad.baselines.focal import focal_loss
from d3ad.baselines.nearest import k_center
from d3ad.baselines.noise import octave_noise, pasted, perlin, simplex
from d3ad.baselines.rdpp import projection_loss, sinkhorn
from d3ad.baselines.reverse import Bottleneck, Decoder
from d3ad.from_scratch import fit_backbone
from d3ad.infra.checkpoint import STATE
from d3ad.infra.files import read_json

# Recipes under which a few steps suffice on the toy set; nothing is trained by the others.
HASTE = {"RD4AD": (200, 8), "RD++": (96, 8), "DRAEM": (1600, 8, 5e-4), "DiffusionAD": (40, 4, 1e-3),
         "AnoDDPM": (40, 4, 1e-3), "FastFlow": (128, 8), "CFA": (40, 4), "SimpleNet": (2400, 8), "GANomaly": (480, 4),
         "SkipGANomaly": (160, 4)}
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


def hasty(name: str, monkeypatch) -> Budget:
    """A budget for the toy set, with small batches and large steps."""
    images, batch_size, *rate = HASTE.get(name, (0, 1))
    kind = baseline_class(name)
    if kind.recipe:
        faster = dict(learning_rate=rate[0]) if rate else {}
        monkeypatch.setattr(kind, "recipe", dataclasses.replace(kind.recipe, batch_size=batch_size, **faster))
    return Budget(images, width=0.25)


@pytest.mark.parametrize("name", BASELINES)
def test_finds_a_planted_square(name, toy, monkeypatch):
    train, test, masks, shared = toy
    budget = hasty(name, monkeypatch)
    baseline = make(name, Resources(shared.config, shared.backbone, shared.detector, budget)).fit(train)
    found = baseline.predict(test)
    assert found.score.shape == (10,) and found.anomaly_map.shape == (10, SIZE, SIZE)
    assert found.reconstruction is None or found.reconstruction.shape == test.shape
    assert baseline.images_done == (budget.images if baseline.recipe else 0)
    if name not in ("AnoDDPM", "DiffusionAD"):  # a diffusion model on pixels takes hours
        assert metrics.pixel_auroc(found.anomaly_map, masks) > 0.8
        assert metrics.image_auroc(found.score, masks.flatten(1).any(1)) > 0.8
    alone = baseline.predict(test[3:4])
    torch.testing.assert_close(alone.score, found.score[3:4], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(alone.anomaly_map, found.anomaly_map[3:4], rtol=1e-3,
                               atol=1e-4 * float(found.anomaly_map.abs().max()))


def test_budget_is_counted_in_images(toy):
    train, _, _, shared = toy
    asked = make("DRAEM", Resources(shared.config, shared.backbone))
    assert asked.images_asked(80) == 700 * 80 and asked.num_steps(80) == (700 * 10, 700 * 10)
    limited = make("DRAEM", Resources(shared.config, shared.backbone, budget=Budget(50)))
    assert limited.num_steps(80) == (6, 700 * 10)  # batches of 8, as in the paper
    assert len(limited.batch(train, 0)) == 8
    assert make("DRAEM", Resources(shared.config, shared.backbone)).num_steps(4) == (700, 700)
    assert make("SPADE", shared).num_steps(80) == (0, 0) and make("SPADE", shared).images_asked(80) == 0
    assert make("AnoDDPM", shared).images_asked(80) == 300_000  # 100 an epoch, whatever the training set
    assert make("GANomaly", shared).images_asked(80) == make("GANomaly", shared).images_asked(900) == 48_000


def test_each_recipe_names_its_source():
    for name in BASELINES:
        kind = baseline_class(name)
        assert all(word in sys.modules[kind.__module__].__doc__ for word in ("Kept:", "Simplified:", "Images asked:",
                                                                             "Reported there"))
        assert kind.recipe is None or kind.recipe.source
        assert kind.recipe is None or kind.recipe.ours == (name in ("GANomaly", "SkipGANomaly"))


def test_simplenet_s_noise_fits_features_of_any_size(toy):
    train, test, _, shared = toy
    larger = copy.deepcopy(shared.backbone)
    larger.register_forward_hook(lambda module, inputs, blocks: {j: 32 * block for j, block in blocks.items()})
    few = dataclasses.replace(shared, budget=Budget(40))
    expected, found = (make("SimpleNet", dataclasses.replace(few, backbone=backbone)).learn(train).predict(test).score
                       for backbone in (shared.backbone, larger))
    torch.testing.assert_close(found, expected)


def test_rates_of_a_recipe():
    draem = baseline_class("DRAEM").recipe
    assert [draem.rate(share) for share in (0, 0.79, 0.8, 0.95)] == pytest.approx([1, 1, 0.2, 0.04])
    net = baseline_class("SimpleNet").recipe
    assert net.rate(0) == net.rate(0.5) == net.rate(1) == 1


@pytest.mark.parametrize("name, damaged", [("SimpleNet", False), ("SimpleNet", True), ("GANomaly", False)])
def test_a_training_goes_on_where_it_was_stopped(name, damaged, toy, tmp_path, monkeypatch):
    train, test, _, shared = toy
    whole = dataclasses.replace(shared, budget=Budget(120, width=0.125))
    expected = make(name, whole).learn(train).predict(test[:2])
    resumed = dataclasses.replace(whole, folder=tmp_path / name)
    calls, save = [], learning.keep_training
    monkeypatch.setattr(learning, "KEEP_EVERY", 0.0)

    def stop(*state):
        save(*state)
        calls.append(len(state[-1]))
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(learning, "keep_training", stop)
    with pytest.raises(KeyboardInterrupt):
        make(name, resumed).learn(train)
    assert calls == [1, 2]
    if damaged:
        (resumed.folder / STATE).write_bytes(b"half")
    found = make(name, resumed).learn(train)
    assert calls[2] == (2 if damaged else 3)  # not from the beginning
    assert read_json(resumed.folder / "seconds.json") > 0
    assert torch.equal(found.predict(test[:2]).score, expected.score)


def test_no_step_is_begun_after_the_minutes_are_over(toy, tmp_path):
    train, _, _, shared = toy
    budget = Budget(width=0.125, minutes=1e-6)
    short = make("SkipGANomaly", dataclasses.replace(shared, budget=budget, folder=tmp_path)).learn(train)
    assert short.images_done < 200 < short.images_asked(len(train))
    again = make("SkipGANomaly", dataclasses.replace(shared, budget=budget, folder=tmp_path)).learn(train)
    assert again.images_done == short.images_done  # the minutes before count, too
    assert make("CFA", dataclasses.replace(shared, budget=Budget(8, minutes=1e-9))).learn(train).images_done == 8


def test_unknown_baseline_and_missing_package(monkeypatch, toy):
    with pytest.raises(ValueError, match="unknown baseline 'Spode'"):
        baseline_class("Spode")
    monkeypatch.setattr(baselines, "find_spec", lambda package: None)
    with pytest.raises(ImportError, match="DRAEM rests on anomalib, which is not installed"):
        make("DRAEM", toy[-1])
    assert baseline_class("DRAEM").on_pixels  # what it would cost can be told all the same
    assert baseline_class("SPADE").name == "SPADE"


def test_ddad_needs_a_detector(toy):
    _, _, _, shared = toy
    with pytest.raises(ValueError, match="trained D3AD"):
        make("DDAD", Resources(shared.config, shared.backbone))


def test_what_is_only_like_a_method_has_a_title_that_says_so():
    titles = {name: baselines.title_of(name) for name in BASELINES}
    assert {name: title for name, title in titles.items() if title != name} == {"DDAD": "DDAD-like"}


def test_patchcore_with_the_smaller_coreset(toy):
    train, test, masks, shared = toy
    assert "PatchCore 1%" not in BASELINES  # no table of the paper has it
    ten, one = (make(name, shared).learn(train) for name in ("PatchCore", "PatchCore 1%"))
    assert len(one.memory) == pytest.approx(len(ten.memory) / 10, abs=1)
    assert metrics.pixel_auroc(one.predict(test).anomaly_map, masks) > 0.8


def test_anomalous_everywhere_costs():
    where = torch.zeros(1, 4, 4)
    where[0, 0, 0] = 1
    everywhere = torch.tensor([-5.0, 5.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    right = torch.where(where.bool().unsqueeze(1), everywhere, -everywhere)
    assert focal_loss(everywhere, where) > 8 and focal_loss(right, where) < 1e-6
    p = torch.tensor(0.3)  # one pixel by hand: (1 - p)^2 (-log p)
    logits = torch.stack([(1 - p).log(), p.log()]).view(1, 2, 1, 1)
    assert focal_loss(logits, torch.ones(1, 1, 1)).item() == pytest.approx(0.7 ** 2 * 1.2039728, rel=1e-5)


def test_octave_noise_is_standardised_and_smooth():
    noise = octave_noise(4, 64, torch.Generator().manual_seed(0))
    assert noise.shape == (4, 64, 64)
    torch.testing.assert_close(noise.mean((1, 2)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(noise.std((1, 2)), torch.ones(4), atol=1e-5, rtol=0)
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean()  # white noise would give 0
    assert neighbours > 0.5
    assert not torch.equal(noise[0], noise[1])


def test_simplex_noise_by_its_properties():
    generator = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(16, 16, generator=generator)
    gradients = torch.stack([angle.cos(), angle.sin()], -1)
    x, y = 100 * torch.rand(2, 20_000, generator=generator, dtype=torch.float64)
    value = simplex(x, y, gradients)
    assert value.abs().max() <= 1.0 and value.abs().max() > 0.6 and abs(value.mean()) < 0.02
    step = simplex(x + 1e-6, y, gradients) - value  # continuous across the borders of its triangles
    assert step.abs().max() < 1e-4
    i, j = torch.tensor([3.0, 8.0]), torch.tensor([5.0, 1.0])  # at a corner of the grid only slopes, no value
    corner = (i + j) * (3 - 3 ** 0.5) / 6
    assert simplex(i - corner, j - corner, gradients).abs().max() < 1e-3


def test_perlin_noise_is_zero_on_its_lattice():
    field = perlin(4, 8, 64, torch.Generator().manual_seed(0))
    assert field.shape == (64, 64) and field[::16, ::8].abs().max() < 1e-6 and 0.5 < field.abs().max() <= 1


def test_pasted_changes_only_what_it_marks():
    images = texture(8, torch.Generator().manual_seed(1))
    broken, where = pasted(images, torch.Generator().manual_seed(2))
    assert where.unique().tolist() == [0, 1] and 0 < where.flatten(1).any(1).sum() < 8
    assert torch.equal(broken[(where == 0).unsqueeze(1).expand_as(images)],
                       images[(where == 0).unsqueeze(1).expand_as(images)])
    assert not torch.equal(broken, images)


def test_k_center_takes_the_farthest_each_time(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(900, 5, generator=generator)
    chosen = k_center(points, 200, torch.Generator().manual_seed(1)).tolist()
    for i in range(1, 200):
        distance = torch.cdist(points, points[chosen[:i]]).amin(1)
        assert distance[chosen[i]] == pytest.approx(float(distance.max()), rel=1e-3)
    assert len(set(chosen)) == 200
    few = points[:60]
    assert sorted(k_center(few, 60, torch.Generator().manual_seed(1)).tolist()) == list(range(60))


def test_nearest_is_cdists(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    points, among = torch.randn(30, 4, generator=generator), torch.randn(50, 4, generator=generator)
    monkeypatch.setattr(nearest_module, "TABLE", 7 * 30)
    expected = torch.cdist(points, among).min(1)
    found = nearest_module.nearest(points, among)
    torch.testing.assert_close(found[0], expected.values, atol=1e-4, rtol=1e-4)
    assert torch.equal(found[1], expected.indices)


def test_transport_between_sets():
    a = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    assert sinkhorn(a, a[:, order], epsilon=0.01, rounds=200) == pytest.approx(0, abs=1e-3)  # the same set
    moved = a + torch.tensor([3.0, 0.0, 0.0])
    assert sinkhorn(a, moved, epsilon=0.01, rounds=500).item() == pytest.approx(9.0, rel=0.02)


def test_contrast_counts_above_its_margin_only():
    same, other = torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
    same[:, 0], other[:, 1] = 1, 1  # at right angles
    near, far = projection_loss([same], [same], [same]), projection_loss([same], [other], [other])
    assert near.item() == pytest.approx(0.1 * 0.5 / 1.11, abs=1e-4)  # neither transport nor restoration
    assert far.item() == pytest.approx(0, abs=1e-4)


def test_a_random_step_has_the_posteriors_mean_and_spread():
    """q(x_next | x_t, x_0) of DDPM, where alpha-bar falls from 0.64 to 0.36."""
    x_0, eps, abar_t, abar_next = 2.0, -1.0, torch.tensor(0.36), torch.tensor(0.64)
    x_t = 0.6 * x_0 + 0.8 * eps
    mean = 0.8 * 0.4375 / 0.64 * x_0 + 0.75 * 0.36 / 0.64 * x_t
    for noise in (0.0, 1.0, -2.0):
        found = anoddpm.random_step(*(torch.full((1, 1, 1, 1), value) for value in (x_t, eps)), abar_t, abar_next,
                                    torch.full((1, 1, 1, 1), noise))
        assert found.item() == pytest.approx(mean + noise * (0.4375 * 0.36 / 0.64) ** 0.5, abs=1e-6)


def test_noise_is_undone_under_guidance_by_the_stronger_one(toy, monkeypatch):
    _, _, _, shared = toy
    baseline = make("DiffusionAD", shared)
    baseline.alpha_bar = diffusion.alpha_bar(1e-4, 0.02, 1000)
    baseline.model = lambda x_t, t: torch.zeros_like(x_t)
    images = torch.zeros(1, 3, 4, 4)
    weak, strong = torch.tensor([200]), torch.tensor([400])
    monkeypatch.setattr(diffusion, "image_noise", lambda images, generators: torch.full_like(images, 0.1))
    found = baseline._repaired(images, weak, strong, [])[0]
    abar, far = baseline.alpha_bar[200], baseline.alpha_bar[400]
    x_t, normal = 0.1 * (1 - abar).sqrt(), 0.1 * (1 - far).sqrt() / far.sqrt()
    eps = -(1 - abar).sqrt() * (abar.sqrt() * normal - x_t)
    torch.testing.assert_close(found, ((x_t - (1 - abar).sqrt() * eps) / abar.sqrt()).expand_as(found))


def test_distillation_has_the_backbones_sizes():
    widths, blocks = (24, 40, 112), [torch.randn(2, c, s, s) for c, s in ((24, 16), (40, 8), (112, 4))]
    code = Bottleneck(widths)(blocks)
    assert code.shape == (2, 224, 2, 2)
    assert [b.shape for b in Decoder(widths)(code)] == [b.shape for b in blocks]
    assert all(b.min() == 0 for b in Decoder(widths)(code))  # as a ResNet's end
    assert all(b.min() < 0 for b in Decoder(widths, signed=True)(code))  # as EfficientNet's


def test_patchcores_score_by_hand(toy):
    _, _, _, shared = toy
    core = make("PatchCore", shared)
    core.memory = torch.tensor([[0.0], [1.0], [10.0]])
    patches = torch.tensor([[[0.5], [13.0]]])
    distances, which = torch.tensor([[0.5, 3.0]]), torch.tensor([[0, 2]])
    weights = torch.tensor([3.0, 12.0, 13.0]).softmax(0)
    assert core._reweighted(patches, distances, which).item() == pytest.approx(3 * (1 - weights[0].item()))
