"""How time and memory grow: with the photographs in a folder, the training images of Algorithm 2, and the pixels.

At the sizes of the demo profile, where 10,000 photographs take minutes; random weights.  Memory is what the process
holds above what it held before, at most; a detector's own weights are not in it.
"""
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from d3ad.conditioning import knn_distances
from d3ad.detector import D3AD
from d3ad.speed.benchmark import machine
from d3ad.speed.benchmark.networks import config_of, drawn_images, untrained
from d3ad.speed.timing import clock, memory_peak

Judge = Callable[[D3AD, Path], object]  # judges all photographs of a folder
SHORT = {"photographs": (100, 300), "training images": (1_000, 10_000), "pixels": (128, 256)}
LONG = {"photographs": (100, 1_000, 10_000), "training images": (1_000, 10_000, 50_000),
        "pixels": (128, 256, 512, 1_024)}
TINY = {"photographs": (4, 8), "training images": (50, 100), "pixels": (64, 128)}
BATCH = 16  # images whose neighbours are looked for at once
DRAWN = 50  # photographs that differ; a folder holds each of them many times


def measure(size: str, judge: Judge, long: bool = False) -> list[dict]:
    """One dict per axis and number: seconds of all and per image, megabytes.

    judge: what judges a folder, decoding included, such as `d3ad.app.judging`.
    long: to 10,000 photographs, 50,000 training images and 1,024 pixels a side.
    """
    tiny = size == "tiny"
    config, numbers = config_of("tiny" if tiny else "demo"), TINY if tiny else LONG if long else SHORT
    detector = untrained(config, num_reference=80)
    about = machine.describe(detector.device) | dict(image_size=config.image_size)
    rows = []
    with tempfile.TemporaryDirectory(prefix="d3ad-growth-") as folder, \
            tqdm(total=sum(map(len, numbers.values())), desc="growth") as bar:
        for axis, of_number in (("photographs", lambda n: photographs(detector, judge, Path(folder), n)),
                                ("training images", lambda n: training_images(detector, Path(folder), n)),
                                ("pixels", lambda n: pixels(config, n))):
            for number in numbers[axis]:
                seconds, images, megabytes = of_number(number)
                rows.append(about | dict(axis=axis, number=number, way=f"{number:,} {axis}", seconds=seconds,
                                         seconds_per_image=seconds / images, megabytes=round(megabytes)))
                bar.update()
    return rows


def photographs(detector: D3AD, judge: Judge, folder: Path, number: int) -> tuple[float, int, float]:
    """Seconds, images and megabytes of judging a folder of so many PNG files, twice the network's size."""
    size = 2 * detector.config.image_size
    drawn = drawn_images(min(DRAWN, number), size)
    folder = folder / f"{number}"
    folder.mkdir()
    for i in range(number):
        file = folder / f"{i:05}.png"
        if i < len(drawn):
            picture = ((drawn[i] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(picture).save(file)
        else:
            os.link(folder / f"{i % len(drawn):05}.png", file)
    seconds, megabytes = cost(lambda: judge(detector, folder), 1, detector.device)
    return seconds, number, megabytes


def training_images(detector: D3AD, folder: Path, number: int) -> tuple[float, int, float]:
    """Seconds, images and megabytes of one batch's search among so many training images, whose features lie in a
    file."""
    known, file = detector.conditioning.reference, folder / "features"
    with file.open("wb") as opened:
        for start in range(0, number, len(known)):
            rows = known[:number - start] + start
            opened.write(rows.numpy().tobytes())
    queries, stored = known[:BATCH], Stored(file, number, known.shape[1])
    seconds, megabytes = cost(lambda: knn_distances(queries, stored, detector.config.k), 3, torch.device("cpu"))
    return seconds, len(queries), megabytes


class Stored:
    """Rows of float32 in a file, read by slices; a mapped file's pages would count as memory."""

    def __init__(self, file: Path, number: int, width: int):
        self.file, self.number, self.width = file, number, width

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.number)
        return np.fromfile(self.file, np.float32, (stop - start) * self.width,
                           offset=4 * start * self.width).reshape(-1, self.width)


def pixels(config, number: int) -> tuple[float, int, float]:
    """Seconds, images and megabytes of one image of so many pixels a side."""
    detector = untrained(config.replace(image_size=number), num_reference=config.k)
    image = drawn_images(1, number)
    seconds, megabytes = cost(lambda: detector.predict(image), 3 if number < 512 else 1, detector.device)
    return seconds, 1, megabytes


def cost(work: Callable[[], object], rounds: int, device: torch.device) -> tuple[float, float]:
    """Median seconds of some rounds on a device, and the most megabytes held there during them, above those before."""
    with memory_peak(device.type == "cuda") as peak:
        before = peak[0]
        seconds = statistics.median(clock(work, rounds))
    return seconds, max(peak[0] - before, 0) / 1e6
