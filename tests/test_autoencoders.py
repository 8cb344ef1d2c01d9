"""The three autoencoders behind one face, and the errors without a network."""
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from d3ad.autoencoders import LatentCodec, load_autoencoder
from d3ad.features import FeatureExtractor
from d3ad.from_scratch import SmallAutoencoder


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    """One of each kind, with random weights, read back from a folder."""
    torch.manual_seed(0)
    small = dict(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1)
    models = {"kl": AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4,
                                  up_block_types=("UpDecoderBlock2D",) * 4, **small),
              "tiny": AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4),
              "small": SmallAutoencoder(width=8)}
    folder = tmp_path_factory.mktemp("weights")
    for kind, model in models.items():
        model.save_pretrained(folder / kind)
    return {kind: load_autoencoder(kind, str(folder / kind)).eval() for kind in models}


@pytest.mark.parametrize("kind", ["kl", "tiny", "small"])
def test_shapes_and_factor(codecs, kind):
    codec, images = codecs[kind], torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = codec.encode(images)
    assert codec.factor == 8 and mean.shape == std.shape == (2, 4, 8, 8) and (std >= 0).all()
    decoded = codec.decode(mean)
    assert decoded.shape == images.shape and decoded.abs().max() <= 1


def test_the_papers_scale(codecs):
    assert codecs["kl"].scale == pytest.approx(0.18215)
    posterior = codecs["kl"].model.encode(torch.zeros(1, 3, 64, 64)).latent_dist
    mean, std = codecs["kl"].encode(torch.zeros(1, 3, 64, 64))
    assert torch.allclose(mean, 0.18215 * posterior.mean) and torch.allclose(std, 0.18215 * posterior.std)


def test_missing_weights_say_which_file_to_put_where(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-mse"):
        load_autoencoder("kl", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="put model.safetensors there"):
        FeatureExtractor("resnet34.tv_in1k", str(tmp_path))


def test_only_the_small_one_is_trained_here():
    assert isinstance(load_autoencoder("small", "none"), LatentCodec)
    for kind in ("kl", "tiny"):
        with pytest.raises(ValueError, match="not trained here"):
            load_autoencoder(kind, "none")
    with pytest.raises(ValueError, match="one of"):
        load_autoencoder("vq", "none")
