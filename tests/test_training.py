"""Training: resuming, batches, the losses' inputs, Eq. 10."""
import pytest
import torch

from d3ad import features, from_scratch, training
from d3ad.features import adaptation_levels, adaptation_loss


def test_a_stopped_run_ends_with_the_weights_of_one_never_stopped(tiny, tmp_path):
    mean, std = torch.randn(8, 4, 8, 8), torch.full((8, 4, 8, 8), 0.1)
    config = tiny.replace(train_steps=6, ema_decay=0.9, learning_schedule="constant")

    def train(steps: int, folder):
        torch.manual_seed(0)
        unet = training.make_unet(config)
        losses = training.train_diffusion(unet, mean, std, config.replace(train_steps=steps), folder)
        return unet.state_dict(), losses

    whole, losses = train(6, tmp_path / "whole")
    train(3, tmp_path / "parts")
    resumed, losses_again = train(6, tmp_path / "parts")
    assert losses == losses_again and len(losses) == 6
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert not list(tmp_path.rglob("*.part"))


def test_each_epoch_sees_every_image_once():
    seen = torch.cat([training.batch_indices(12, 4, step, seed=1) for step in range(3)])
    assert seen.sort().values.tolist() == list(range(12))
    assert not torch.equal(training.batch_indices(12, 4, 0, 1), training.batch_indices(12, 4, 3, 1))
    assert len(training.batch_indices(3, 30, 7, 0)) == 3  # fewer images than a batch


def test_a_broken_loss_stops_the_training():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        training.optimise("test", model, lambda step: model.weight.sum() * float("nan"), 2, learning_rate=0.1)


def test_optimise_finds_a_minimum():
    model = torch.nn.Linear(1, 1, bias=False)
    losses = training.optimise("test", model, lambda step: (model.weight - 3).square().sum(), 200, learning_rate=0.1,
                               schedule="cosine")
    assert float(model.weight) == pytest.approx(3, abs=0.05) and losses[-1] < losses[0]


def test_corrupted_places_are_where_the_image_changed(images):
    corrupted, where = from_scratch.corrupt(images, torch.Generator().manual_seed(1))
    changed = (corrupted - images).abs().amax(1) > 1e-6
    assert not (changed & (where == 0)).any()
    assert (where.flatten(1).sum(1) > 0).float().mean() >= 0.8 and corrupted.abs().max() <= 1


def test_adaptation_loss_by_hand():
    a = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)          # (1, 0) at both places
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)                # the same, then at a right angle
    assert float(adaptation_loss([a], [b])) == pytest.approx(0.5)              # mean of 0 and 1
    assert float(adaptation_loss([a, a], [b, a])) == pytest.approx(0.5)        # summed over blocks
    flat = 1 - 1 / (2 ** 0.5 * 2 ** 0.5)                                       # dot 1, norms sqrt 2
    assert float(adaptation_loss([a], [b], "flattened")) == pytest.approx(flat)
    with pytest.raises(ValueError, match="flattened"):
        adaptation_loss([a], [b], "both")


def test_adaptation_levels_are_tenths_of_t_max():
    levels = adaptation_levels(500, 80, torch.Generator().manual_seed(0))
    assert sorted(set(levels.tolist())) == [8, 16, 24, 32, 40, 48, 56, 64, 72, 80]


def test_feature_blocks_have_the_papers_shapes():
    phi = features.FeatureExtractor("resnet34", "none").eval()
    with torch.no_grad():
        blocks = phi(torch.zeros(1, 3, 64, 64))
    assert {j: tuple(f.shape) for j, f in blocks.items()} == {1: (1, 64, 16, 16), 2: (1, 128, 8, 8), 3: (1, 256, 4, 4)}


def test_the_papers_unet_has_the_size_of_the_authors():
    """281.1 M in the authors' code; diffusers' blocks come to 256 M with the same widths."""
    from d3ad import Config
    with torch.device("meta"):
        unet = training.make_unet(Config())
    assert 240e6 < sum(p.numel() for p in unet.parameters()) < 290e6
