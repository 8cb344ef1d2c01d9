"""Photographs and tiny datasets drawn in the real layouts, and what their loaders' tests ask of every dataset."""
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from d3ad.data import mtd

SIZE = 24


def draw(path, mode="RGB", seed=0):
    """An image of noise; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def photograph(path: Path, size=(20, 10), value=None, **options) -> Path:
    """A file of noise, or of one grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 128, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise if value is None else np.full_like(noise, value)).save(path, **options)
    return path


def draw_mask(path, value=255):
    """A mask with a square of ``value``; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[4:12, 8:20] = value
    Image.fromarray(mask).save(path)
    return path


def draw_folders(root, normal, defects, image=".png", mask=".png", mode="RGB", stem="{:03d}", mask_value=255):
    """A category: 3 normal training images, 2 normal test images, 2 anomalous ones of each defect."""
    for place, count in (("train", 3), ("test", 2)):
        for i in range(count):
            draw(root / place / normal / f"{i:03d}{image}", mode, i)
    for defect in defects:
        for i in range(2):
            draw(root / "test" / defect / f"{i:03d}{image}", mode, i)
            draw_mask(root / "ground_truth" / defect / f"{stem.format(i)}{mask}", mask_value)
    return root


def draw_visa(root, category="pcb1"):
    """The official layout of VisA, with masks of value 1."""
    rows = ["object,split,label,image,mask"]
    for i in reversed(range(5)):
        name = f"{category}/Data/Images/Normal/{i:04d}.JPG"
        draw(root / name, seed=i)
        rows.append(f"{category},{'train' if i < 3 else 'test'},normal,{name},")
    for i in range(2):
        name = f"{category}/Data/Images/Anomaly/{i:03d}.JPG"
        mask = f"{category}/Data/Masks/Anomaly/{i:03d}.png"
        draw(root / name, seed=i)
        draw_mask(root / mask, 1)
        rows.append(f"{category},test,anomaly,{name},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return root


def draw_tiles(root, tiles=12):
    """Magnetic tiles: normal ones under 3 exposures, one image per defect; the crack is on a normal tile."""
    for i in range(3 * tiles):
        draw(root / f"MT_Free/Imgs/exp{i % 3 + 1}_num_{1000 * (i // 3) + 20 * (i % 3)}.jpg", "L", i)
    for i, defect in enumerate(name for name in mtd.PUBLISHED if name != "Free"):
        number = 60 if defect == "Crack" else 500_000 + 1000 * i
        image = draw(root / f"MT_{defect}/Imgs/exp1_num_{number}.jpg", "L")
        draw_mask(image.with_suffix(".png"), 128)
    return root


def counts(dataset):
    labels = dataset.labels("test")
    return len(dataset.train), int((labels == 0).sum()), int((labels == 1).sum())


def assert_sound(dataset, size=16):
    """Shapes, value ranges and labels of a loaded dataset."""
    for split, samples in (("train", dataset.train), ("test", dataset.test)):
        images, masks, labels = dataset.images(split, size), dataset.masks(split, size), dataset.labels(split)
        assert images.shape == (len(samples), 3, size, size) and images.dtype == torch.float32
        assert images.min() >= -1 and images.max() <= 1
        assert masks.shape == (len(samples), size, size) and masks.dtype == torch.bool
        assert labels.shape == (len(samples),) and labels.dtype == torch.int64
        assert torch.equal(masks.flatten(1).any(1), labels == 1)
    assert dataset.check() == []
