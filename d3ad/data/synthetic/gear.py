"""A brass gear wheel."""
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from .flaws import CRACK, FEW, add, beneath, bite, groove, on_ring, stain
from .painting import TAU, Rng, Scene, layer
from .textures import bench, metal, mottled, plane, relief, sheen

TEETH, SPOKES = 18, 5
BORES = [TAU * k / SPOKES - TAU / 4 for k in range(SPOKES)]


@lru_cache
def wheel(n: int, toothed: bool = True, bored: bool = True) -> Image.Image:
    """A brass gear wheel; its teeth or the five holes in its web can be left out."""
    x, y, r, angle = plane(n)
    tip = np.clip(.5 + 1.5 * np.cos(TEETH * angle), 0, 1) if toothed else 0
    keyway = np.maximum(np.abs(x - .5) - .024, np.maximum(.395 - y, y - .5))
    edge = np.minimum(np.minimum(.345 + .065 * tip - r, r - .075), keyway)
    for a in BORES if bored else ():
        edge = np.minimum(edge, np.hypot(x - .5 - .205 * np.cos(a), y - .5 - .205 * np.sin(a)) - .058)
    web = np.clip(np.minimum(r - .125, .29 - r) * n / 3, 0, 1)  # it lies lower: rims lit the other way
    down, across = np.gradient(gaussian_filter(web, .003 * n))
    brass = metal(n, (238, 196, 112), 9) * (1 - .2 * web)[..., None] - (down + across)[..., None] * .6 * n
    return relief(bench(n, 44, 48, 54), edge, brass, 1.4, .006)


def build(rng: Rng) -> Scene:
    return {"base": layer(wheel), "sheen": sheen(rng, .34), "grain": mottled(rng, .015, .003)}


def broken_teeth(inner, most: int):
    """The defect by which one to `most` neighbouring teeth lose what reaches out beyond `inner`, a range."""
    def defect(scene: Scene, rng: Rng) -> None:
        first, count = rng.integers(TEETH), rng.integers(1, most + 1)
        middle, half = (first + (count - 1) / 2) * TAU / TEETH, count * TAU / TEETH / 2
        gap = bite(rng, middle, half, rng.uniform(*inner), .44, 16)
        beneath(scene, lambda n: wheel(n, toothed=False), gap)
    return defect


def undrilled(scene: Scene, rng: Rng) -> None:
    a, phi = rng.choice(BORES), np.linspace(0, TAU, 32)
    hole = .5 + .205 * np.array((np.cos(a), np.sin(a))) + .076 * np.stack([np.cos(phi), np.sin(phi)], 1)
    beneath(scene, lambda n: wheel(n, bored=False), hole)


DEFECTS = {
    "scratch": add(groove, on_ring(.29, .33), (.06, .13), (92, 62, 22), (255, 240, 196, 60), copies=FEW),
    "crack": add(groove, on_ring(.29, .3), (.1, .18), (48, 30, 10), (255, 236, 180, 90), **CRACK),
    "worn_tooth": broken_teeth((.375, .39), 1),
    "broken_tooth": broken_teeth((.345, .355), 3),
    "undrilled": undrilled,
    "verdigris": add(stain, on_ring(.24, .33), (.035, .055), (66, 124, 104), (.4, .85), .2, .3, grain=.2,
                     copies=(.7, .3)),
    "grease": add(stain, on_ring(.2, .28), (.1, .13), (40, 30, 18), (.2, .45), .06, .3),
}
