"""The networks of a trained detector as `torch.export` programs (.pt2): they run in PyTorch without this package.

encoder.pt2   images (B, 3, H, W) in [-1, 1]                     -> mean of z_0, (B, C, H/8, W/8)
decoder.pt2   latents (B, C, H/8, W/8)                           -> images (B, 3, H, W) in [-1, 1]
unet.pt2      latents (B, C, H/8, W/8), t (B,) int64 from 0      -> eps, as the latents
features.pt2  images (B, 3, H, W) in [-1, 1]                     -> blocks 1, 2, 3 of phi

B may be 1 to 63; H and W are the detector's.  `torch.export.load(file).module()` gives the network back.
"""
import io
import json
import warnings
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from d3ad.detector import D3AD
from d3ad.infra.files import write_whole

MOST = 63  # images in one batch of an exported network: from 64 on diffusers takes another path through the UNet


class _Encoder(nn.Module):
    def __init__(self, codec):
        super().__init__()
        self.codec = codec

    def forward(self, images: Tensor) -> Tensor:
        return self.codec.encode(images)[0]


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
    """Write every network of the detector, and export.json with the settings that belong to them; returns the files."""
    out, batch, files = Path(out), torch.export.Dim("batch", min=1, max=MOST), []
    for name, (network, example) in networks(detector).items():
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on attributes of diffusers' and timm's modules that no export needs
            program, content = torch.export.export(network.eval(), example,
                                                   dynamic_shapes=tuple({0: batch} for _ in example)), io.BytesIO()
            torch.export.save(program, content)
        write_whole(out / f"{name}.pt2", content.getvalue())
        files.append(out / f"{name}.pt2")
    write_whole(out / "export.json", json.dumps(detector.config.to_dict(), indent=1) + "\n")
    return [*files, out / "export.json"]
