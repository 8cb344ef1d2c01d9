"""What surfaces look like: noise, mottling, gleam, metal and relief."""
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d, shift

from .painting import Painter, Rng, dim


def picture(values) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def plane(n: int):
    """(x, y, radius, angle) of each pixel, four (n, n) arrays; the last two about the canvas's centre."""
    y, x = (np.mgrid[:n, :n] + 0.5) / n
    return x, y, np.hypot(x - 0.5, y - 0.5), np.arctan2(y - 0.5, x - 0.5)


@lru_cache
def noise(n: int, down: float, across: float | None = None, wide: int = 1, seed: int = 0) -> np.ndarray:
    """Noise (n, wide * n), mean 0 and standard deviation 1, smoothed over `down` and `across` shares of the width."""
    rough = np.random.default_rng(seed).standard_normal((n, wide * n))
    fine = gaussian_filter(rough, [down * n, (across or down) * n], mode="wrap")
    return fine / fine.std()


@lru_cache
def mottle(n: int, strength: float, *blurs: float) -> Image.Image:
    grey = sum(noise(n, blur, None, 2, seed) for seed, blur in enumerate(blurs)) / len(blurs) ** 0.5
    return picture(255 * (1 - 2 * strength + strength * grey))


def mottled(rng: Rng, strength: float, *blurs: float) -> Painter:
    """Uneven tone: a stretch, different for each picture, of one wide sheet of mottling."""
    start = rng.uniform()
    return lambda canvas: dim(canvas, mottle(canvas.width, strength, *blurs).crop(
        (int(start * canvas.width), 0, int(start * canvas.width) + canvas.width, canvas.width)))


def sheen(rng: Rng, strength: float) -> Painter:
    """The two-winged gleam of lathe-turned metal; its direction differs a little from piece to piece."""
    _, _, r, angle = plane(64)
    away = 0.5 - 0.5 * np.cos(2 * (angle + 0.7 + rng.normal(0, 0.12)))
    gleam = picture(255 * (1 - strength * away ** 0.7 * np.clip(6 * r, 0, 1)))
    return lambda canvas: dim(canvas, gleam.resize(canvas.size, Image.BILINEAR))


def metal(n: int, colour, seed: int) -> np.ndarray:
    """Turned metal (n, n, 3): concentric tool marks and a fine grain."""
    marks = gaussian_filter1d(np.random.default_rng(seed).standard_normal(350), 0.8)
    rings = np.interp(plane(n)[2], np.linspace(0, 0.75, 350), marks)
    return np.array(colour) + (8 * rings + 3 * noise(n, .002))[..., None]


def relief(ground, distance, surface, height=1.0, bevel=0.005, shadow=0.6) -> Image.Image:
    """`surface` stands on `ground` where the `distance` from its edge is positive; lit from the top left."""
    n = len(distance)
    cover = np.clip(distance * n + 0.5, 0, 1)
    drop = 0.012 * height * n
    shade = gaussian_filter(shift(cover, (drop, drop), order=1), drop * 0.7)[..., None]
    down, across = np.gradient(gaussian_filter(cover, bevel * n))
    light, cover = (down + across)[..., None] * 170 * bevel * n * height, cover[..., None]
    return picture(np.asarray(ground) * (1 - shadow * shade) * (1 - cover) + (surface + light) * cover)


@lru_cache
def bench(n: int, red=30, green=34, blue=40) -> Image.Image:
    """The dark plate on which things lie."""
    return picture(np.array((red, green, blue)) + (3 * noise(n, .002) + 2 * noise(n, .05))[..., None])
