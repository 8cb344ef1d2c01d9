"""What goes wrong in several categories: edits of a scene, where a flaw lies, and how it is painted."""
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter1d

from .painting import TAU, Painter, Rng, Scene, layer, line, stack
from .textures import mottle

FEW = .6, .25, .15  # how likely one, two, three copies are
HAIR = dict(fill=(40, 26, 20), gleam=(0, 0, 0, 25), width=.005, bend=2.2)
CRACK = dict(bend=1.2, smooth=.6)


def add(family: Callable[..., Painter], place, size, *args, copies=(1.0,), **options):
    """The defect that adds `family(rng, place, size, *args)`; `copies`: how likely one, two, three are."""
    def defect(scene: Scene, rng: Rng) -> None:
        for i in range(1 + rng.choice(len(copies), p=copies)):
            scene[f"flaw {i}"] = family(rng, place(rng), rng.uniform(*size), *args, **options)
    return defect


def missing(*names: str):
    """The defect that leaves out one part of the scene."""
    def defect(scene: Scene, rng: Rng) -> None:
        del scene[rng.choice(names)]
    return defect


def beneath(scene: Scene, make: Callable[[int], Image.Image], outline, *edges: Painter) -> None:
    """Inside `outline` the scene's base gives way to `make(width)`; what lies over the base stays."""
    scene["base"] = stack(scene["base"], layer(make, outline), *edges)


def within(low=0.12, high=0.88):
    return lambda rng: rng.uniform(low, high, 2)


def on_ring(inner, outer):
    """Places at `inner` to `outer` from the centre."""
    def place(rng: Rng):
        angle = rng.uniform(0, TAU)
        return 0.5 + rng.uniform(inner, outer) * np.array((np.cos(angle), np.sin(angle)))
    return place


def groove(rng, at, length, fill, gleam, width=0.006, bend=0.25, smooth=3.0, heading=None) -> Painter:
    """A line through `at` with a lit side: a scratch; a hair for a large `bend`, a crack for `smooth` < 1.

    A `fill` without alpha gets one, from hardly seen to plain.
    """
    turns = gaussian_filter1d(rng.standard_normal(24), smooth)
    heading = rng.uniform(0, TAU) if heading is None else heading
    angle = heading + (turns - turns.mean()) / turns.std() * bend / 2
    path = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1), 0) * length / 24
    path += at - path[12]
    fill = fill if len(fill) == 4 else (*fill, int(rng.uniform(60, 190)))
    core = [line(path[6:18], width * 1.7, fill)] if smooth < 1 else []  # a crack gapes in the middle
    return stack(line(path + 0.0045, width, gleam), line(path, width, fill), *core)


def ragged(rng: Rng, x, y, r, rough=0.2, stretch=1.0):
    """An irregular closed outline (64, 2) of mean radius r about (x, y), `stretch` times as wide as high."""
    phi = np.linspace(0, TAU, 64, endpoint=False)
    waves = sum(rng.normal(0, rough / k) * np.cos(k * phi + rng.uniform(0, TAU)) for k in range(2, 8))
    radius = r * np.clip(1 + waves, 0.4, 1.7)
    return np.stack([x + radius * np.cos(phi) * stretch ** 0.5, y + radius * np.sin(phi) / stretch ** 0.5], 1)


def stain(rng, at, r, fill, opacity=(0.5, 0.9), soft=0.12, rough=0.2, stretch=1.0, grain=0.0) -> Painter:
    """A soft irregular patch of one colour; `grain` > 0 makes it blotchy, like rust."""
    opacity = rng.uniform(*opacity)
    outline = ragged(rng, 0, 0, r, rough, stretch)
    half = np.abs(outline).max() + 3 * soft * r

    def paint(canvas):
        n = canvas.width
        mask = Image.new("L", [int(2 * half * n) + 2] * 2)
        ImageDraw.Draw(mask).polygon(((outline + half) * n).ravel().tolist(), round(255 * opacity))
        mask = mask.filter(ImageFilter.GaussianBlur(soft * r * n))
        if grain:
            mask = ImageChops.multiply(mask, mottle(n, grain, .004, .012).crop((0, 0, *mask.size)))
        canvas.paste(fill, tuple(round((v - half) * n) for v in at), mask)
    return paint


def drop(rng, at, r, fill, gleam, shade=(0, 0, 0)) -> Painter:
    """A raised blob with its shadow and highlight, as of solder; a dent for light `shade` and dark `fill`."""
    return stack(stain(rng, at + 0.15 * r + 0.003, r * 1.05, shade, (0.5, 0.5), 0.2, 0.1),
                 stain(rng, at, r, fill, (0.6, 1), 0.1, 0.15),
                 stain(rng, at - 0.33 * r, r * 0.33, gleam, (0.6, 0.9), 0.3, 0.1, 1.4))


def bite(rng: Rng, angle, half, inner, outer, square=2):
    """The outline of a piece lost from a round thing, down to `inner`; steep-sided for a large `square`."""
    t = np.sin(np.linspace(-TAU / 4, TAU / 4, 30))
    at, r = angle + half * t + rng.normal(0, 0.006, 30), inner + (outer - inner) * np.abs(t) ** square
    r[1:-1] += rng.normal(0, 0.004, 28)
    at, r = np.append(at, at[[-1, 0]]), np.append(r, [1.2 * outer] * 2)  # and out beyond the rim
    return np.stack([0.5 + r * np.cos(at), 0.5 + r * np.sin(at)], 1)
