"""The autoencoders behind one face, and the errors without a network."""
import hashlib

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from d3ad import from_scratch
from d3ad.autoencoders import LatentCodec, load_autoencoder
from d3ad.features import FeatureExtractor
from d3ad.infra import taef2
from d3ad.infra.small_autoencoder import SmallAutoencoder
from d3ad.infra.taef2 import TAEF2


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    """One of each kind, with random weights, read back from a folder."""
    torch.manual_seed(0)
    small = dict(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1)
    models = {"kl": AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4,
                                  up_block_types=("UpDecoderBlock2D",) * 4, **small),
              "tiny": AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4),
              "small": SmallAutoencoder(width=8), "taef2": TAEF2(latent_channels=4, width=8)}
    folder = tmp_path_factory.mktemp("weights")
    for kind, model in models.items():
        model.save_pretrained(folder / kind)
    return {kind: load_autoencoder(kind, str(folder / kind)).eval() for kind in models}


@pytest.mark.parametrize("kind", ["kl", "tiny", "taef2", "small"])
def test_shapes_and_factor(codecs, kind):
    codec, images = codecs[kind], torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = codec.encode(images)
    assert mean.shape == std.shape == (2, 4, 8, 8) and (std >= 0).all()
    decoded = codec.decode(mean)
    assert decoded.shape == images.shape and decoded.abs().max() <= 1


def test_the_papers_scale(codecs):
    assert codecs["kl"].scale == pytest.approx(0.18215)
    posterior = codecs["kl"].model.encode(torch.zeros(1, 3, 64, 64)).latent_dist
    mean, std = codecs["kl"].encode(torch.zeros(1, 3, 64, 64))
    assert torch.allclose(mean, 0.18215 * posterior.mean) and torch.allclose(std, 0.18215 * posterior.std)


def patches_of_many_widths():
    """Images (8, 3, 32, 32) whose patches' principal components differ in width a lot: a slope and a little grain."""
    generator = torch.Generator().manual_seed(3)
    levels = torch.rand(8, 3, 4, 4, generator=generator) * 2 - 1
    return 0.9 * F.interpolate(levels, 32, mode="bilinear") + 0.01 * torch.randn(8, 3, 32, 32, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_the_linear_path_starts_as_principal_components(whitening):
    images, model = patches_of_many_widths(), SmallAutoencoder(8, width=8)
    model.start_linear(images, whitening)
    mean, _ = model.moments(images)
    patches = F.pixel_unshuffle(images, 8).permute(0, 2, 3, 1).flatten(0, 2)
    u, singular, v = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
    decoded = F.pixel_unshuffle(model.to_images(mean), 8).permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.allclose(decoded - decoded.mean(0), (u[:, :8] * singular[:8]) @ v[:8], atol=1e-3)
    widths = (singular[:8] / singular[0]) ** (1 - whitening)
    assert widths[-1] < 0.5 ** (1 - whitening) + 1e-6  # or the test would show nothing
    assert torch.allclose(mean.std((0, 2, 3), correction=0), widths, atol=1e-3)


@pytest.mark.parametrize("whitening", [0.0, 1.0])
def test_trained_latents_have_standard_deviation_1(tiny, whitening):
    config = tiny.replace(latent_whitening=whitening, autoencoder_steps=2)
    images = patches_of_many_widths()
    mean, _ = from_scratch.fit_codec(images, config, None, {}).encode_all(images)
    each = mean.std((0, 2, 3))
    assert mean.std() == pytest.approx(1, abs=1e-3)
    assert (each.max() < 1.2 * each.min()) == (whitening == 1)


def test_a_channel_that_never_varies_stays_narrow(tiny):
    config = tiny.replace(latent_whitening=1.0, autoencoder_steps=0)
    flat = torch.linspace(-1, 1, 4).view(4, 1, 1, 1).expand(4, 3, config.image_size, config.image_size)
    codec = from_scratch.fit_codec(flat, config, None, {})
    each = codec.encode_all(flat)[0].std((0, 2, 3))
    assert each[1:].max() < 0.1 * each[0]
    assert torch.allclose(codec.decode(codec.encode(flat)[0]), flat, atol=1e-3)


def test_missing_weights_say_which_file_to_put_where(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-mse"):
        load_autoencoder("kl", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="put model.safetensors there"):
        FeatureExtractor("resnet34.tv_in1k", str(tmp_path))


def test_only_the_small_one_is_trained_here():
    assert isinstance(load_autoencoder("small", "none"), LatentCodec)
    for kind in ("kl", "tiny", "taef2"):
        with pytest.raises(ValueError, match="not trained here"):
            load_autoencoder(kind, "none")
    with pytest.raises(ValueError, match="one of"):
        load_autoencoder("vq", "none")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with TAEF2's weights as they are published: no config.json, float16; and the same tensors."""
    torch.manual_seed(1)
    tensors = {name: value.half() for name, value in TAEF2().state_dict().items()}
    folder = tmp_path_factory.mktemp("taef2")
    save_file(tensors, folder / "model.safetensors")
    return folder, {name: value.float() for name, value in tensors.items()}


def test_taef2_as_published_against_its_description(published):
    folder, w = published

    def block(name, x):
        if f"{name}.pool.0.weight" in w:
            y = F.conv2d(x, w[f"{name}.pool.0.weight"])
            y = F.group_norm(y, 4, w[f"{name}.pool.1.weight"], w[f"{name}.pool.1.bias"]).relu()
            x = x + F.conv2d(y, w[f"{name}.pool.3.weight"])
        y = x
        for i in (0, 2, 4):
            y = F.conv2d(y.relu() if i else y, w[f"{name}.conv.{i}.weight"], w[f"{name}.conv.{i}.bias"], padding=1)
        return (x + y).relu()

    x = torch.rand(1, 3, 32, 32)
    y = F.conv2d(x, w["encoder.0.weight"], w["encoder.0.bias"], padding=1)
    for i in range(1, 14):
        halved = f"encoder.{i}.weight"
        y = F.conv2d(y, w[halved], stride=2, padding=1) if halved in w else block(f"encoder.{i}", y)
    z = F.conv2d(y, w["encoder.14.weight"], w["encoder.14.bias"], padding=1)
    codec = load_autoencoder("taef2", str(folder)).eval()
    mean, std = codec.encode(2 * x - 1)
    assert torch.allclose(mean, 4 / 3 * z, atol=1e-4) and not std.any() and codec.channels == 32

    y = F.conv2d(3 * torch.tanh(z / 3), w["decoder.1.weight"], w["decoder.1.bias"], padding=1).relu()
    for i in (3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18):
        plain = f"decoder.{i}.weight"
        y = F.conv2d(F.interpolate(y, scale_factor=2), w[plain], padding=1) if plain in w else block(f"decoder.{i}", y)
    decoded = F.conv2d(y, w["decoder.19.weight"], w["decoder.19.bias"], padding=1)
    assert torch.allclose(codec.decode(mean), (2 * decoded - 1).clamp(-1, 1), atol=1e-4)


def test_other_weights_are_not_taken_for_taef2(published, tmp_path):
    tensors = load_file(published[0] / "model.safetensors")
    del tensors["decoder.19.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors: its tensors are not those"):
        load_autoencoder("taef2", str(tmp_path))


def test_taef2_is_read_as_its_repository_has_it(published, tmp_path, monkeypatch):
    def load():
        return load_autoencoder("taef2", str(tmp_path)).model

    with pytest.raises(FileNotFoundError, match="taef2_encoder.pth: put taef2_encoder.pth and .* of https://"):
        load()
    expected = load_autoencoder("taef2", str(published[0])).model.state_dict()
    for part in ("encoder", "decoder"):
        names = [name for name in expected if name.startswith(part)]
        file = tmp_path / f"taef2_{part}.pth"
        torch.save({name.removeprefix(f"{part}."): expected[name].half() for name in names}, file)
        with pytest.raises(ValueError, match=f"taef2_{part}.pth is damaged or of another version"):
            load()
        monkeypatch.setitem(taef2.SHA256, part, hashlib.sha256(file.read_bytes()).hexdigest())
        if part == "encoder":
            with pytest.raises(FileNotFoundError, match="no weights at .*taef2_decoder.pth"):
                load()
    found = load().state_dict()
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in found)
