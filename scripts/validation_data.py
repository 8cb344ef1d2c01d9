"""Validation data of the real photographs, and how they are scored: held-out normal training images, and synthetic
defects on them.  No test image is read.
"""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from d3ad import data, from_scratch, maps, metrics
from d3ad.data import mtd
from d3ad.data.apart import spread_over

CATEGORIES = {"bottle": "mvtec", "pill": "mvtec", "screw": "mvtec", "transistor": "mvtec", "tiles": "mtd"}
MOST = 64  # held-out images, which is all that four of the five have


def split(category: str, root: Path, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Training images of a category, (N, 3, size, size) in [-1, 1], and a held-out fifth, at most `MOST`; tiles are
    never divided."""
    name = CATEGORIES[category]
    dataset = data.load(name, root, category, **(dict(split="by_tile", seed=seed) if name == "mtd" else {}))
    groups = mtd.tiles(dataset.train, []) if name == "mtd" else [[sample] for sample in dataset.train]
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    train, held = [], []
    for i in order:
        (held if len(held) < len(dataset.train) // 5 else train).extend(groups[i])
    images = dict(zip(dataset.train, dataset.images("train", size)))
    return torch.stack([images[s] for s in train]), spread_over(torch.stack([images[s] for s in held]), MOST)


def draw_defects(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal images (B, 3, H, W) with a scratch, a spot, a missing or a bent part each, and where, (B, H, W) of 0 and
    1.

    Placed where an image has structure, since defects lie on parts and not beside them; drawn again until it can be
    seen.
    """
    found = [_draw_one(image, i % 4, generator) for i, image in enumerate(images)]
    return torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found])


def _draw_one(image: Tensor, kind: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    size = image.shape[-1]
    grey = image.mean(0)
    edges = (grey - maps.smooth(grey[None], 2.0 * size / 128)[0]).abs()
    structure = maps.smooth(edges[None], 4.0 * size / 128)[0]
    places = (structure > structure.median()).nonzero()
    colours = torch.ones(3, 1, 1)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    for _ in range(50):
        cy, cx = places[int(torch.randint(len(places), (), generator=generator))].tolist()
        if (image[0] - image[2]).abs().mean() > 0.01:  # not grey: a defect may have a colour
            colours = 0.5 + 0.5 * torch.rand(3, 1, 1, generator=generator)
        contrast = uniform(0.2, 0.7) * (1 if uniform(0, 1) < 0.5 else -1)
        if kind == 0:
            alpha = _scratch(size, cy, cx, uniform)
            changed = image + contrast * colours * alpha
        elif kind == 1:
            alpha = _ellipse(size, cy, cx, uniform(0.015, 0.06), uniform(0.015, 0.06), uniform(0, 3.14))
            changed = image + contrast * colours * alpha
        elif kind == 2:
            alpha = _ellipse(size, cy, cx, uniform(0.03, 0.12), uniform(0.03, 0.12), uniform(0, 3.14))
            border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]],
                               1).median(1).values.view(3, 1, 1)
            changed = torch.lerp(image, border + 0.02 * torch.randn(image.shape, generator=generator), alpha)
        else:
            alpha = _ellipse(size, cy, cx, uniform(0.06, 0.14), uniform(0.06, 0.14), uniform(0, 3.14))
            shift = torch.tensor([uniform(-0.12, 0.12), uniform(-0.12, 0.12)])
            grid = F.affine_grid(torch.eye(2, 3)[None], (1, 3, size, size),
                                 align_corners=False) + alpha[None, ..., None] * shift
            changed = F.grid_sample(image[None], grid, padding_mode="reflection", align_corners=False)[0]
        changed = changed.clamp(-1, 1)
        where = (alpha > 0.3) & ((changed - image).abs().amax(0) > 0.04)
        if where.sum() >= 4e-4 * size * size and (changed - image).abs().mean(0)[where].mean() > 0.1:
            break
    return changed, where.float()


def _ellipse(size: int, cy: int, cx: int, a: float, b: float, angle: float) -> Tensor:
    """(size, size): 1 inside a turned ellipse with half axes in shares of the image, falling softly to 0."""
    y, x = (torch.arange(size).view(-1, 1) - cy) / size, (torch.arange(size).view(1, -1) - cx) / size
    turn = torch.tensor(angle)
    distance = (((turn.cos() * x + turn.sin() * y) / a) ** 2 + ((turn.cos() * y - turn.sin() * x) / b) ** 2).sqrt()
    return torch.sigmoid((1 - distance) * 8)


def _scratch(size: int, cy: int, cx: int, uniform) -> Tensor:
    """(size, size): a bent line about a pixel of 128 wide, 1 on it and 0 elsewhere, soft at its edge."""
    scale, angle, bend = 4, uniform(0, 6.28), uniform(-0.5, 0.5)
    points, step = [(cx * scale, cy * scale)], size * scale * uniform(0.02, 0.08)
    for _ in range(8):
        angle += bend * uniform(0, 1)
        points.append((points[-1][0] + step * float(torch.tensor(angle).cos()),
                       points[-1][1] + step * float(torch.tensor(angle).sin())))
    picture = Image.new("L", (size * scale, size * scale))
    ImageDraw.Draw(picture).line(points, fill=255, width=max(1, round(scale * size / 128 * uniform(0.8, 2.5))))
    small = picture.resize((size, size), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, dtype=np.float32)) / 255


def validation(held: Tensor, draw: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Defective images and masks of each kind, one of each for every held-out image.  draw: others for each number."""
    return {"patch": from_scratch.corrupt(held, torch.Generator().manual_seed(10 * draw + 1)),
            "drawn": draw_defects(held, torch.Generator().manual_seed(10 * draw + 2))}


def scores(good: Tensor, bad: Tensor, masks: Tensor) -> dict[str, float]:
    """Metrics, in percent, of anomaly maps (N, H, W) of good and of defective images."""
    both, truth = torch.cat([good, bad]), torch.cat([torch.zeros_like(masks[:1]).expand(len(good), -1, -1), masks])
    labels = torch.cat([torch.zeros(len(good)), torch.ones(len(bad))])
    found = dict(i_auroc=metrics.image_auroc(maps.image_score(both), labels), p_auroc=metrics.pixel_auroc(both, truth),
                 pro=metrics.pro(both, truth))
    return {key: round(100 * value, 2) for key, value in found.items()}


def auroc(good: Tensor, bad: Tensor) -> float:
    return round(100 * metrics.image_auroc(torch.cat([good, bad]),
                                           torch.cat([torch.zeros(len(good)), torch.ones(len(bad))])), 2)
