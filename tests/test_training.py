"""Training: resuming, batches, the losses' inputs, Eq. 10."""
import contextlib
import copy

import pytest
import torch
from safetensors.torch import load_file

from d3ad import Config, features, from_scratch, training
from d3ad.data.moving import moved
from d3ad.features import adaptation_levels, adaptation_loss
from d3ad.infra import batches, checkpoint, optimising
from d3ad.infra.checkpoint import PREVIOUS, STATE, known_settings
from d3ad.infra.files import load_tensors
from d3ad.training import Attention


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
    seen = torch.cat([batches.batch_indices(12, 4, step, seed=1) for step in range(3)])
    assert seen.sort().values.tolist() == list(range(12))
    assert not torch.equal(batches.batch_indices(12, 4, 0, 1), batches.batch_indices(12, 4, 3, 1))
    assert len(batches.batch_indices(3, 30, 7, 0)) == 3  # fewer images than a batch


def test_a_broken_loss_stops_the_training():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        optimising.optimise("test", model, lambda step: model.weight.sum() * float("nan"), 2, learning_rate=0.1)


def test_optimise_finds_a_minimum():
    model = torch.nn.Linear(1, 1, bias=False)
    losses = optimising.optimise("test", model, lambda step: (model.weight - 3).square().sum(), 200, learning_rate=0.1,
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


@pytest.mark.parametrize("statistics, moves", [("running", False), ("batch", True)])
def test_adapting_moves_the_weights_and_where_asked_the_statistics(fitted, images, statistics, moves):
    backbone = copy.deepcopy(fitted.backbone)
    before = copy.deepcopy(backbone.state_dict())
    training.adapt(backbone, fitted.codec, fitted.unet, images, fitted.codec.encode_all(images)[0],
                   fitted.config.replace(adapt_batch_norm=statistics))
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    weights = {name for name, _ in backbone.named_parameters()}
    running = {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert running and changed & weights and (running <= changed if moves else not running & changed)


def test_adaptation_levels_are_tenths_of_t_max():
    levels = adaptation_levels(500, 80, torch.Generator().manual_seed(0))
    assert sorted(set(levels.tolist())) == [8, 16, 24, 32, 40, 48, 56, 64, 72, 80]


def test_feature_blocks_have_the_papers_shapes():
    phi = features.FeatureExtractor("resnet34", "none").eval()
    with torch.no_grad():
        blocks = phi(torch.zeros(1, 3, 64, 64))
    assert {j: tuple(f.shape) for j, f in blocks.items()} == {1: (1, 64, 16, 16), 2: (1, 128, 8, 8), 3: (1, 256, 4, 4)}


def test_the_papers_unet_is_that_of_the_authors():
    """281.1 M weights, eight heads, 32 groups, attention at 32, 16, 8 and 4 and in the middle."""
    with torch.device("meta"):
        unet = training.make_unet(Config())
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6, 1) == 281.1
    attentions = [layer for layer in unet.modules() if isinstance(layer, Attention)]
    assert {layer.heads for layer in attentions} == {8}
    assert len(attentions) == 4 * 2 + 1 + 4 * 3  # two down, three up at each of four levels, and the middle
    assert {layer.num_groups for layer in unet.modules() if isinstance(layer, torch.nn.GroupNorm)} == {32}


def test_heads_share_the_width_evenly():
    """Heads set after the layer was made: the same numbers as a layer that was made with them."""
    config = Config.profile("smoke", unet_channels=[16, 32], unet_attention=[0, 1], unet_heads=4)
    torch.manual_seed(0)
    unet = training.make_unet(config).eval()
    x = torch.randn(1, 16, 4, 4)
    layer = next(layer for layer in unet.modules() if isinstance(layer, Attention) and layer.inner_dim == 16)
    made = Attention(16, heads=4, dim_head=4, norm_num_groups=16, eps=layer.group_norm.eps, bias=True,
                     residual_connection=True, rescale_output_factor=layer.rescale_output_factor).eval()
    made.load_state_dict(layer.state_dict())
    assert made.scale == layer.scale
    with torch.no_grad():
        torch.testing.assert_close(layer(x), made(x))


def test_a_batch_in_parts_has_the_loss_and_the_gradients_of_the_whole(tiny):
    mean, std = torch.randn(9, 4, 8, 8), torch.full((9, 4, 8, 8), 0.1)

    def train(accumulate: int):
        torch.manual_seed(0)
        config = tiny.replace(train_steps=2, batch_size=7, accumulate=accumulate)
        unet = training.make_unet(config)
        gradients = []
        unet.conv_in.weight.register_post_accumulate_grad_hook(lambda weight: gradients.append(weight.grad.clone()))
        return training.train_diffusion(unet, mean, std, config), gradients

    (whole, at_once), (parts, in_turn) = train(1), train(3)  # of 3, 2 and 2 images
    assert len(at_once) == 2 and len(in_turn) == 6
    torch.testing.assert_close(torch.tensor(parts), torch.tensor(whole), rtol=1e-5, atol=0)
    torch.testing.assert_close(in_turn[2], at_once[0], rtol=1e-4, atol=1e-6)
    assert train(50)[0] == pytest.approx(whole, rel=1e-5)  # more parts than images


def test_states_are_kept_by_the_clock_and_at_the_end(tmp_path, monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr(optimising.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(optimising, "keep_training", lambda *args: written.append(len(args[-1])))
    model = torch.nn.Linear(1, 1)

    def loss_of_step(step):
        now[0] += 100
        return model.weight.square().sum()

    optimising.optimise("test", model, loss_of_step, 8, learning_rate=0.1, folder=tmp_path)
    assert written == [3, 6, 8]


def _optimised(steps: int, folder=None) -> tuple[torch.Tensor, list[float]]:
    """The weight and losses of a small training, with a state after each step."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1, bias=False)
    losses = optimising.optimise("test", model, lambda step: (model.weight - step).square().sum(), steps,
                                 learning_rate=0.1, folder=folder, save_every=0)
    return model.weight, losses


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_a_damaged_state_is_passed_over_for_the_one_before_it(content, tmp_path, capsys):
    _optimised(4, tmp_path)
    newest, previous = tmp_path / STATE, tmp_path / PREVIOUS
    newest.write_bytes(newest.read_bytes()[:-10] if content is None else content)  # the last: cut short
    weight, losses = _optimised(4, tmp_path)
    expected, expected_losses = _optimised(4)
    assert torch.equal(weight, expected) and losses == expected_losses
    said = capsys.readouterr().out
    assert f"{newest} is damaged" in said and f"{previous}, at step 3" in said and said.count("\n") == 1
    assert len(load_tensors(newest)[1]["losses"]) == 4 and len(load_tensors(previous)[1]["losses"]) == 3


def test_a_run_killed_while_it_writes_goes_on_from_the_last_state(tmp_path, monkeypatch, capsys):
    _optimised(2, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_tensors", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        _optimised(4, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PREVIOUS]
    weight, losses = _optimised(4, tmp_path)
    assert torch.equal(weight, _optimised(4)[0]) and len(losses) == 4 and capsys.readouterr().out == ""


def test_where_no_state_is_whole_the_files_are_named(tmp_path):
    _optimised(2, tmp_path)
    for name in (PREVIOUS, STATE):
        (tmp_path / name).write_bytes(b"half")
        with pytest.raises(ValueError, match=f"{PREVIOUS} is damaged") if name == STATE else contextlib.nullcontext():
            _optimised(2, tmp_path)
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(ValueError, match=f"{STATE} is damaged"):
        _optimised(2, tmp_path)


def test_a_checkpoint_holds_the_weights_of_a_shorter_training(tiny, tmp_path):
    """So a profile that says train_epochs = 50 has the authors' checkpoint of epoch 50."""
    mean, std = torch.randn(8, 4, 8, 8), torch.full((8, 4, 8, 8), 0.1)

    def train(steps: int, folder=None, checkpoints: int = 0):
        torch.manual_seed(0)
        config = tiny.replace(train_steps=steps, checkpoints=checkpoints)
        unet = training.make_unet(config)
        training.train_diffusion(unet, mean, std, config, folder)
        return unet.state_dict()

    last = train(4, tmp_path, checkpoints=2)
    names = [tmp_path / f"checkpoint-000000{steps}.safetensors" for steps in (2, 4)]
    assert sorted(tmp_path.glob("checkpoint-*")) == names
    for file, expected in zip(names, (train(2), last)):
        weights = load_file(file)
        assert set(weights) == set(expected) and all(torch.equal(weights[k], expected[k]) for k in weights)


def test_settings_of_older_detectors_keep_their_meaning():
    old = dict(unet_channels=[48, 96, 128], unet_attention=[2], unet_head_dim=16)
    assert known_settings(old | {"rivals": []}) == dict(
        unet_channels=[48, 96, 128], unet_attention=[2], unet_heads=8, unet_groups=16, unet_resampling="conv")
    assert known_settings(dict(unet_groups=32)) == dict(unet_groups=32)
    with pytest.raises(ValueError, match="train the detector anew"):
        known_settings(old | dict(unet_attention=[0, 2]))
    with pytest.raises(ValueError, match="don't fit unet_channels"):
        known_settings(old | dict(unet_head_dim=0))


def test_moved_copies_are_the_images_moved(tiny):
    dots = torch.zeros(12, 3, 128, 128)
    for i in range(12):
        dots[i, :, 64, 60 + i] = 1.0
    found = moved(dots, 0)
    assert torch.equal(found, moved(dots, 0)) and not torch.equal(found, moved(dots, 1))
    assert torch.equal(found.flip(0), moved(dots.flip(0), 0))  # drawn from the image, not from its place
    where = torch.stack([image[0].nonzero()[0] for image in found])
    offsets = where - torch.tensor([[64, 60 + i] for i in range(12)])
    assert offsets.abs().max() <= 3 and len(offsets.unique(dim=0)) > 4 and (found.sum((1, 2, 3)) == 3).all()
    assert torch.equal(moved(torch.full((2, 3, 64, 64), 0.5), 0), torch.full((2, 3, 64, 64), 0.5))  # borders repeated


def test_copies_in_another_light_are_as_bright_as_drawn():
    greys = torch.linspace(-1, 0.2, 40).view(40, 1, 1, 1).expand(40, 3, 16, 16)
    found = moved(greys, 0, light=0.25)
    gains = (found + 1)[1:, 0, 0, 0] / (greys + 1)[1:, 0, 0, 0]
    assert torch.allclose(found[1:] + 1, (greys[1:] + 1) * gains.view(-1, 1, 1, 1), atol=1e-6)  # one light for an image
    assert (found[0] == -1).all() and 0.75 <= gains.min() < 0.85 and 1.15 < gains.max() <= 1.25
    assert moved(torch.full((9, 3, 16, 16), 0.9), 0, light=0.25).max() == 1  # white at most
    with pytest.raises(ValueError, match="set train_moved above 0"):
        Config(train_light=0.2)


def test_moved_copies_are_learned_from_behind_the_images(fitted, images):
    config = fitted.config.replace(train_moved=2)
    found, expected = training.latents(fitted.codec, images, config), fitted.codec.encode_all(images)
    for all_of_them, first in zip(found, expected):
        assert all_of_them.shape == (30, *first.shape[1:]) and torch.equal(all_of_them[:10], first)
    one, other = found[0][10:20], found[0][20:]
    assert not torch.equal(one, expected[0]) and not torch.equal(one, other)
    again = fitted.codec.encode_all(moved(images, config.seed + 1))[0]
    assert torch.equal(other, again)
