"""Measure the memory of `predict` on few and on many photographs: docs/memory.md and docs/memory.png.

    python scripts/memory.py [--counts 100 2000 20000] [--pictures none]

A small detector (the smoke profile, one step) is trained, photographs are drawn, and each run is a process of its own,
whose peak memory the system reports.  Linux only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from d3ad.infra.files import ROOT, write_whole

LIMIT = 300  # MB that the largest run may take beyond the smallest


def draw(folder: Path, count: int, size: int) -> None:
    """Noise that differs from file to file, in sub-folders of a thousand, as cameras make them."""
    pixels = np.random.default_rng(0).integers(0, 256, (size // 8, size // 8, 3), np.uint8)
    for i in range(count):
        place = folder / f"{i // 1000:03d}CANON"
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.roll(pixels, i, (0, 1)) ^ (i % 251)).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        picture.save(place / f"IMG_{i:05d}.jpg", quality=90)


def measure(arguments: list[str]) -> tuple[float, float]:
    """(largest resident memory in MB, seconds) of `python -m d3ad` with these arguments.  RuntimeError if it fails."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "d3ad", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"d3ad {' '.join(arguments)} ended with {process.returncode}")
    return usage.ru_maxrss / 1024, time.monotonic() - started


def write(rows: list[tuple[int, float, float]], size: int, pictures: str, folder: Path) -> None:
    """The table and the plot."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    counts, peaks, _ = zip(*rows)
    more = max(peaks) - min(peaks)
    lines = [
        "# Memory of `predict`",
        "",
        "[Back to the README](../README.md) · [your own parts](own-parts.md)",
        "",
        f"Largest resident memory of the process `python -m d3ad predict`, smoke profile with one step, "
        f"photographs of {size} x {size} pixels, "
        f"`--pictures {pictures}`, on a CPU, one thread; measured by `scripts/memory.py`.",
        "",
        "| photographs | peak, MB | seconds |",
        "|---:|---:|---:|",
        *(f"| {count:,} | {peak:.0f} | {seconds:.0f} |" for count, peak, seconds in rows),
        "",
        f"From {min(counts):,} to {max(counts):,} photographs memory grows by {more:.0f} MB (the script fails "
        f"above {LIMIT} MB). Photographs are read, judged, written and forgotten in portions of 32, or of one batch "
        "where that is more. "
        "Only a line for each file stays in memory; the page's pictures of the 500 highest scores lie on disk until "
        "the page is written.",
        "",
        "![memory against the number of photographs](memory.png)",
        "",
    ]
    folder.mkdir(exist_ok=True)
    write_whole(folder / "memory.md", "\n".join(lines))
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(counts, peaks, "o-", label="measured")
    axes.axhline(min(peaks) + LIMIT, color="grey", linestyle="--", label=f"{LIMIT} MB more than the smallest run")
    axes.set(
        xscale="log", ylim=(0, 1.15 * (max(peaks) + LIMIT)), xlabel="photographs", ylabel="peak memory of predict, MB"
    )
    axes.legend()
    figure.savefig(folder / "memory.png", dpi=120)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--counts", type=int, nargs="+", default=[100, 2000, 20000])
    options.add_argument("--size", type=int, default=64, help="of photographs and of the detector's images, in pixels")
    options.add_argument("--pictures", default="none", choices=("all", "flagged", "none"))
    options.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        draw(work / "good", 12, options.size)
        measure(
            [
                "fit",
                str(work / "good"),
                "--out",
                str(work / "model"),
                "--profile",
                "smoke",
                "--set",
                f"image_size={options.size}",
                "--set",
                "num_steps=1",
            ]
        )
        for count in options.counts:
            draw(work / f"parts{count}", count, options.size)
            rows.append(
                (
                    count,
                    *measure(
                        [
                            "predict",
                            str(work / "model"),
                            str(work / f"parts{count}"),
                            "--out",
                            str(work / f"out{count}"),
                            "--pictures",
                            options.pictures,
                        ]
                    ),
                )
            )
            print(f"{rows[-1][0]} photographs: {rows[-1][1]:.0f} MB, {rows[-1][2]:.0f} s", flush=True)
            write(rows, options.size, options.pictures, options.docs)
    return int(max(row[1] for row in rows) - min(row[1] for row in rows) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
