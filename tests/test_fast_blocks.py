"""Faster blocks and NNPACK give what diffusers' own layers give, and share their parameters."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D

from d3ad.autoencoders import AutoencoderKL, LatentCodec, load_autoencoder
from d3ad.features import FeatureExtractor
from d3ad.speed import blocks, efficientnet, nnpack
from d3ad.speed.benchmark import machine
from d3ad.speed.benchmark.networks import STABLE_DIFFUSION, tiny_autoencoder
from d3ad.speed.presets import FastNetworks
from d3ad.speed.winograd import WinogradConv2d


def networks() -> tuple[LatentCodec, UNet2DModel, FeatureExtractor]:
    torch.manual_seed(0)
    codec = LatentCodec(AutoencoderKL(**STABLE_DIFFUSION | dict(block_out_channels=(128, 128), layers_per_block=1,
                                                                down_block_types=("DownEncoderBlock2D",) * 2,
                                                                up_block_types=("UpDecoderBlock2D",) * 2)), "kl")
    unet = UNet2DModel(in_channels=4, out_channels=4, block_out_channels=(128, 128), layers_per_block=1,
                       down_block_types=("AttnDownBlock2D", "DownBlock2D"), attention_head_dim=32,
                       up_block_types=("UpBlock2D", "AttnUpBlock2D"))
    return codec, unet, FeatureExtractor("resnet18", "none")


def of_networks(codec, unet, backbone) -> SimpleNamespace:
    """What FastNetworks asks of a detector."""
    return SimpleNamespace(codec=codec.eval(), unet=unet.eval(), backbone=backbone.eval(), device=torch.device("cpu"))


def count(network: nn.Module, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in network.modules())


@torch.no_grad()
def test_whole_networks_are_the_same_and_share_their_parameters():
    detector = of_networks(*networks())
    codec, unet, fast = detector.codec, detector.unet, FastNetworks(detector)
    for kind in (WinogradConv2d, blocks.Residual, blocks.Attended):
        assert count(fast.codec, kind) and count(fast.unet, kind) and not count(codec, kind) + count(unet, kind)
    assert count(fast.unet, ResnetBlock2D) == 0 and count(fast.unet, blocks.Pointwise) > 0
    assert any(layer.doubled for layer in fast.codec.modules() if isinstance(layer, WinogradConv2d))
    assert {id(p) for p in fast.codec.parameters()} == {id(p) for p in codec.parameters()}
    images, t = torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([3, 70])
    mean, std = codec.encode(images)
    torch.testing.assert_close(fast.encode(images), (mean, std), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fast.decode(mean), codec.decode(mean), atol=1e-4, rtol=0)
    before = mean.clone()
    torch.testing.assert_close(fast.eps(mean, t), unet(mean, t).sample, atol=1e-4, rtol=1e-4)
    assert torch.equal(mean, before)  # nothing of the caller's is written over


@torch.no_grad()
def test_the_small_autoencoder_computes_the_same():
    _, unet, backbone = networks()
    codec = load_autoencoder("small", "none")
    for layer in (codec.model.encoder[-1], codec.model.decoder[-2]):  # they start at zero
        nn.init.normal_(layer.weight, std=0.05)
    fast = FastNetworks(of_networks(codec, unet, backbone))
    assert count(fast.codec, WinogradConv2d) and {id(p) for p in fast.codec.parameters()} == {
        id(p) for p in codec.parameters()}
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = codec.encode(images)
    torch.testing.assert_close(fast.encode(images), (mean, std), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fast.decode(mean), codec.decode(mean), atol=1e-4, rtol=1e-4)


def test_low_precision_stays_with_the_usual_way():
    _, unet, backbone = networks()
    low = FastNetworks(of_networks(load_autoencoder("small", "none"), unet, backbone), torch.bfloat16)
    assert not any(isinstance(layer, WinogradConv2d) for part in (low.codec, low.unet) for layer in part.modules())


@torch.no_grad()
def test_efficientnet_s_faster_layers_compute_the_same():
    plain, images = FeatureExtractor("tf_efficientnet_lite0", "pip").eval(), torch.rand(2, 3, 72, 64) * 2 - 1
    expected, fast = plain(images), efficientnet.with_fast_layers(plain)
    assert count(plain, nn.BatchNorm2d) > 30 and count(fast, nn.BatchNorm2d) == 0
    assert count(fast, efficientnet.Halving) == 4  # the last of them sees 9 x 8 places here, an odd number
    for block, found in fast(images).items():
        assert (found - expected[block]).abs().max() < 1e-5 * expected[block].abs().max()
    assert all(torch.equal(plain(images)[block], expected[block]) for block in expected)  # it stays as it was
    resnet = FeatureExtractor("resnet18", "none").eval()
    assert efficientnet.with_fast_layers(resnet) is resnet


@torch.no_grad()
def test_a_bias_is_folded_too():
    torch.manual_seed(0)
    conv, norm, x = nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6).eval(), torch.randn(2, 4, 9, 9)
    for values in (norm.running_mean, norm.weight, norm.bias):
        values.normal_()
    norm.running_var.uniform_(0.5, 2)
    torch.testing.assert_close(efficientnet.folded(conv, norm)(x), norm(conv(x)))


@pytest.mark.skipif(not nnpack.available(), reason="this PyTorch has no NNPACK")
@torch.no_grad()
def test_the_tiny_autoencoder_through_nnpack_is_the_same(monkeypatch):
    monkeypatch.setattr(nnpack, "pays", lambda: True)
    torch.manual_seed(0)
    codec = tiny_autoencoder()
    fast = nnpack.with_nnpack(codec)
    assert count(fast, nnpack.NnpackConv2d) > 40 and count(fast, nnpack.TinyBlock) > 10
    assert {id(p) for p in fast.parameters()} == {id(p) for p in codec.parameters()}
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    kept, (mean, _) = images.clone(), codec.encode(images)
    torch.testing.assert_close(fast.encode(images)[0], mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fast.decode(mean), codec.decode(mean), atol=1e-4, rtol=0)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("there, vectors, pays",
                         [(True, "AVX2", True), (True, "AVX512", False), (False, "AVX2", False)])
def test_the_tiny_autoencoder_goes_through_nnpack_where_that_pays(there, vectors, pays, monkeypatch):
    monkeypatch.setattr(nnpack, "available", lambda: there)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    codec = tiny_autoencoder()
    assert (nnpack.with_nnpack(codec) is not codec) == pays


@pytest.mark.skipif(not nnpack.available(), reason="this PyTorch has no NNPACK")
@torch.no_grad()
@pytest.mark.parametrize("shape, bias", [((1, 16, 13, 29), True), ((2, 16, 6, 6), False)])
def test_a_convolution_through_nnpack_is_the_same(shape, bias):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(16, 20, 3, padding=1, bias=bias), torch.randn(shape)
    exact = F.conv2d(x.double(), conv.weight.double(), conv.bias.double() if bias else None, padding=1)
    torch.testing.assert_close(nnpack.NnpackConv2d(conv)(x).double(), exact, atol=1e-4, rtol=0)


@pytest.mark.skipif(not nnpack.available(), reason="this PyTorch has no NNPACK")
def test_its_multiplications_are_counted():
    """13 x 29 outputs are 3 x 5 tiles of 64 multiplications, each of them for 16 x 20 pairs of channels."""
    with machine.flop_counter() as counter, torch.no_grad():
        nnpack.NnpackConv2d(nn.Conv2d(16, 20, 3, padding=1))(torch.randn(2, 16, 13, 29))
    assert counter.get_total_flops() == 2 * 2 * 3 * 5 * 64 * 16 * 20
