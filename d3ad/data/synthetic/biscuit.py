"""A round biscuit with holes, on a belt."""
from functools import lru_cache

import numpy as np
from PIL import Image

from .flaws import CRACK, HAIR, add, beneath, bite, groove, missing, on_ring, stain
from .painting import TAU, Painter, Rng, Scene, disc, layer, line, stack
from .textures import bench, mottled, noise, picture, plane, relief

HOLES = [(.5, .5)] + [(.5 + r * np.cos(a), .5 + r * np.sin(a)) for r, m in ((.12, 6), (.235, 12))
                      for a in np.arange(m) * TAU / m + .26]


@lru_cache
def belt(n: int) -> Image.Image:
    return picture(np.asarray(bench(n, 42, 45, 52)) + 9 * np.sin(TAU * 22 * plane(n)[1])[..., None])


@lru_cache
def baked(n: int) -> Image.Image:
    """The biscuit without its holes: fluted, browned towards the rim, with a pressed ring and fine crumb."""
    _, _, r, angle = plane(n)
    brown = np.clip((r - .2) / .2, 0, 1)[..., None] ** 2.2
    crumb = 5 * noise(n, .004, seed=1) + 6 * noise(n, .012, seed=2) + 5 * noise(n, .05, seed=4)
    ring = 26 * np.exp(-((r - .338) / .006) ** 2) - 28 * np.exp(-((r - .325) / .007) ** 2)
    dough = np.array((226, 178, 112)) - np.array((58, 74, 64)) * brown + (crumb + ring)[..., None]
    return relief(belt(n), .385 + .014 * np.abs(np.cos(15 * angle)) ** .7 - r, dough, 1.3, .007)


def dimple(x, y) -> Painter:
    return stack(disc(x + .002, y + .002, .0165, (240, 204, 146, 150)), disc(x, y, .014, (120, 70, 32)),
                 disc(x - .002, y - .002, .0105, (74, 40, 18)))


def build(rng: Rng) -> Scene:
    holes = {f"hole {k}": dimple(*(at + rng.normal(0, .0015, 2))) for k, at in enumerate(HOLES)}
    return {"base": layer(baked), "crumb": mottled(rng, .035, .006, .04)} | holes


def chip(scene: Scene, rng: Rng) -> None:
    """A bite out of the rim: the belt shows, and the broken edge is paler than the crust."""
    lost = bite(rng, rng.uniform(0, TAU), rng.uniform(.3, .5), rng.uniform(.26, .29), .405, 3)
    beneath(scene, belt, lost, line(lost[4:26], .014, (240, 206, 150)),
            line(.5 + 1.025 * (lost[4:26] - .5), .006, (70, 44, 24)))


DEFECTS = {
    "hair": add(groove, on_ring(0, .2), (.15, .25), **HAIR),
    "blocked_hole": missing(*(f"hole {k}" for k in range(len(HOLES)))),
    "crack": add(groove, on_ring(.08, .2), (.25, .4), (92, 52, 24), (244, 210, 154, 110), **CRACK),
    "burn": add(stain, on_ring(.1, .26), (.05, .08), (66, 34, 16), (.2, .6), .2),
    "pale_patch": add(stain, on_ring(.08, .2), (.1, .14), (244, 214, 164), (.2, .45), .2),
    "chip": chip,
}
