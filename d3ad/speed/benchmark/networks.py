"""Detectors of a given size with random weights, ready to be timed."""
import torch
import torch.nn as nn
import torch.nn.functional as F

from d3ad import training
from d3ad.autoencoders import TAEF2, AutoencoderKL, AutoencoderTiny, LatentCodec, load_autoencoder
from d3ad.calibration import Calibration
from d3ad.conditioning import DynamicConditioning, pool_features
from d3ad.config import Config
from d3ad.detector import D3AD
from d3ad.features import FeatureExtractor
from d3ad.speed import presets
from d3ad.speed.benchmark.machine import flop_counter

STABLE_DIFFUSION = dict(  # the shape of stabilityai/sd-vae-ft-mse
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, norm_num_groups=32,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
SIZES = ("paper", "demo", "tiny")


def config_of(size: str) -> Config:
    """The settings of a size.  Raises ValueError for an unknown one."""
    if size == "paper":
        return Config(backbone_weights="none", adapt_epochs=0)
    if size == "demo":
        return Config.profile("demo", standardise=(), feature_distance="cosine")
    if size == "tiny":
        return Config.profile("smoke", standardise=(), feature_distance="cosine", image_size=64, backbone="resnet18",
                              k=3)
    raise ValueError(f"size must be one of {', '.join(SIZES)}; got {size!r}")


def untrained(config: Config, num_reference: int = 900) -> D3AD:
    """A detector with random weights and `num_reference` training images, VisA's usual number, for Algorithm 2."""
    torch.manual_seed(config.seed)
    detector = D3AD(config)
    detector.codec, detector.unet, detector.backbone = (
        part.to(detector.device).eval().requires_grad_(False) for part in random_networks(config))
    presets.speed_up(detector)
    blocks = detector.networks.features(drawn_images(8, config.image_size).to(detector.device))
    seen = pool_features(blocks[config.dic_block]).cpu()
    # each is one of the images, more or less blurred: several bins are in use
    which = torch.arange(num_reference) % len(seen)
    blur = (0.2 + which / len(seen)).unsqueeze(1) * seen.std(0) * torch.randn(num_reference, seen.shape[1])
    detector.conditioning = DynamicConditioning.of(config).fit(seen[which] + blur)
    detector.calibration = Calibration.neutral()
    detector.calibration_images = drawn_images(config.k + (not config.include_self), config.image_size)
    return detector


def random_networks(config: Config) -> tuple[LatentCodec, nn.Module, FeatureExtractor]:
    """Autoencoder, UNet and feature extractor of these settings, random weights."""
    pretrained = {"kl": lambda: AutoencoderKL(**STABLE_DIFFUSION), "tiny": AutoencoderTiny,
                  "taef2": lambda: TAEF2(config.latent_channels)}  # `load_autoencoder` makes none of them at random
    kind = config.autoencoder
    codec = LatentCodec(pretrained[kind](), kind) if kind in pretrained else \
        load_autoencoder(kind, "none", config.latent_channels)
    return codec, training.make_unet(config), FeatureExtractor(config.backbone, "none")


def arithmetic(size: str) -> dict[str, float]:
    """GFLOP per image of each part of D3AD, counted on shapes alone: nothing is computed."""
    config = config_of(size)
    calls = dict(features=2, encode=1, eps=config.num_steps, decode=1)
    with torch.device("meta"):
        return {part: calls[part] * value / 1e9 for part, value in flop(config, random_networks(config)).items()}


def flop(config: Config, networks: tuple[LatentCodec, nn.Module, FeatureExtractor]) -> dict[str, float]:
    """FLOP of one call of each part for one image.  networks: as of `random_networks`, on the device "meta"."""
    codec, unet, backbone = (part.eval() for part in networks)
    images = torch.empty(1, 3, config.image_size, config.image_size, device="meta")
    latents = torch.empty(1, config.latent_channels, *[config.image_size // 8] * 2, device="meta")
    calls = {"features": lambda: backbone(images), "encode": lambda: codec.model.encoder(images),
             "eps": lambda: unet(latents, torch.zeros(1, device="meta")),
             "decode": lambda: codec.model.decoder(latents)}
    counted = {}
    for part, call in calls.items():
        with flop_counter() as counter, torch.no_grad():
            call()
        counted[part] = float(counter.get_total_flops())
    return counted


def tiny_autoencoder() -> LatentCodec:
    """TAESD's shape with random weights."""
    return LatentCodec(AutoencoderTiny(), "tiny").eval().requires_grad_(False)


def light_features() -> FeatureExtractor:
    """EfficientNet-Lite0 with random weights."""
    return FeatureExtractor(presets.LIGHT["backbone"], "none").eval().requires_grad_(False)


def drawn_images(count: int, size: int) -> torch.Tensor:
    """Smooth random pictures (count, 3, size, size) in [-1, 1]."""
    coarse = torch.rand(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
    return (2 * F.interpolate(coarse, size, mode="bicubic") - 1).clamp(-1, 1)
