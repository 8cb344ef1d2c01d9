"""All that a verdict needs, to run without this package: the networks as `torch.export` programs (.pt2), and what they
lack.

encoder.pt2   images (B, 3, H, W) in [-1, 1]                -> mean and standard deviation of z_0, (B, C, H/8, W/8) each
decoder.pt2   latents (B, C, H/8, W/8)                      -> images (B, 3, H, W) in [-1, 1]
unet.pt2      latents (B, C, H/8, W/8), t (B,) int64 from 0 -> eps, as the latents
features.pt2  images (B, 3, H, W) in [-1, 1]                -> blocks 1, 2, 3 of phi

export.json   all settings of the detector, its threshold, where that comes from, and the white of 16-bit images
verdict.safetensors  alpha_bar (T+1,); reference (N, D) and edges (|B|+1,) of Algorithm 2; the Gaussian of Eq. 9; the
                     calibration
verdict.py    a program that gives `predict`'s scores from these files alone

B may be 1 to 63; H and W are the detector's.  `torch.export.load(file).module()` gives the network back.
"""
import io
import json
import warnings
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from d3ad import maps
from d3ad.app import verdict
from d3ad.detector import D3AD
from d3ad.infra.files import save_tensors, write_whole
from d3ad.speed.presets import preset

MOST = 63  # images in one batch of an exported network: from 64 on diffusers takes another path through the UNet


class _Encoder(nn.Module):
    def __init__(self, codec):
        super().__init__()
        self.codec = codec

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.codec.encode(images)


class _Decoder(nn.Module):
    def __init__(self, codec):
        super().__init__()
        self.codec = codec

    def forward(self, latents: Tensor) -> Tensor:
        return self.codec.decode(latents)


class _UNet(nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, t: Tensor) -> Tensor:
        return self.unet(latents, t).sample


class _Features(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(images).values())


def networks(detector: D3AD) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Each network by its file's name, with an example of what it takes."""
    size = detector.config.image_size
    images = torch.zeros(2, 3, size, size, device=detector.device)
    latents = torch.zeros_like(detector.codec.encode(images)[0])
    return dict(encoder=(_Encoder(detector.codec), (images,)), decoder=(_Decoder(detector.codec), (latents,)),
                unet=(_UNet(detector.unet), (latents, torch.zeros(2, dtype=torch.long, device=detector.device))),
                features=(_Features(detector.backbone), (images,)))


def export(detector: D3AD, out: Path | str) -> list[Path]:
    """Write every network of the detector, and what makes a score and a verdict of their outputs; returns the files.

    The networks compute in float32, whatever the detector's preset.  verdict.py comes last: where it lies, the files
    beside it belong together.
    Raises ValueError for settings that verdict.py doesn't know, or a detector that is not on the CPU.
    """
    config = detector.config
    if detector.device.type != "cpu":
        raise ValueError('verdict.py computes on the CPU: export D3AD.load(folder, device="cpu")')
    if config.spacing != "trailing" or config.omega or config.latent_sample or (
            config.second_sampler and not config.dynamic):
        raise ValueError('verdict.py knows only spacing = "trailing", omega = 0, no latent_sample, and no '
                         "second_sampler of fixed steps: export detector.variant(...) with these, and set its "
                         "threshold anew")
    (Path(out) / "verdict.py").unlink(missing_ok=True)  # or a kill could leave it with networks of two detectors
    out, batch, files = Path(out), torch.export.Dim("batch", min=1, max=MOST), []
    for name, (network, example) in networks(detector).items():
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on attributes of diffusers' and timm's modules that no export needs
            program, content = torch.export.export(network.eval(), example,
                                                   dynamic_shapes=tuple({0: batch} for _ in example)), io.BytesIO()
            torch.export.save(program, content)
        write_whole(out / f"{name}.pt2", content.getvalue())
        files.append(out / f"{name}.pt2")
    sigma = detector.config.sigma_pixels
    tensors = vars(detector.calibration) | dict(reference=detector.conditioning.reference,
                                                edges=detector.conditioning.edges,
                                                alpha_bar=detector.alpha_bar.float(),
                                                kernel=maps.gaussian_kernel(sigma) if sigma else torch.ones(1))
    reduced = " (set under a preset that may compute in bfloat16; these networks compute in float32)"
    about = dict(threshold=float(detector.calibration.threshold),
                 threshold_from=str(detector.guarantee or "a quantile of training images")
                 + reduced * preset(detector.preset).low_precision,
                 white=detector.white)
    save_tensors(out / "verdict.safetensors", tensors, about)
    write_whole(out / "export.json", json.dumps(detector.config.to_dict() | about, indent=1) + "\n")
    write_whole(out / "verdict.py", Path(verdict.__file__).read_text(encoding="utf-8"))
    return [*files, *(out / name for name in ("export.json", "verdict.safetensors", "verdict.py"))]
