"""A four-hole resin button.  No profile trains on it: a part to try `python -m d3ad fit` and `predict` with."""
from functools import lru_cache

import numpy as np
from PIL import Image

from .flaws import CRACK, FEW, add, beneath, bite, groove, on_ring, stain
from .painting import TAU, Rng, Scene, layer, line
from .textures import bench, metal, mottled, plane, relief, sheen

HOLES = [(.5 + dx, .5 + dy) for dx in (-.065, .065) for dy in (-.065, .065)]
CLOTH = 196, 188, 170


@lru_cache
def resin(n: int, holes: int = 4) -> Image.Image:
    """The button with its raised rim; the last of its four holes can be left undrilled."""
    x, y, r, _ = plane(n)
    edge = .4 - r
    for cx, cy in HOLES[:holes]:
        edge = np.minimum(edge, np.hypot(x - cx, y - cy) - .034)
    rim = 26 * np.exp(-((r - .345) / .012) ** 2) - 30 * np.exp(-((r - .318) / .012) ** 2)
    return relief(bench(n, *CLOTH), edge, metal(n, (52, 92, 128), 13) + rim[..., None], 1.4, .008)


def build(rng: Rng) -> Scene:
    return {"base": layer(resin), "sheen": sheen(rng, .36), "grain": mottled(rng, .02, .004)}


def chip(scene: Scene, rng: Rng) -> None:
    """A piece of the rim is lost."""
    gap = bite(rng, rng.uniform(0, TAU), rng.uniform(.1, .26), rng.uniform(.3, .36), .402, 4)
    beneath(scene, lambda n: bench(n, *CLOTH), gap, line(gap[2:28], .007, (24, 44, 66)))


def undrilled(scene: Scene, rng: Rng) -> None:
    cx, cy = HOLES[-1]
    phi = np.linspace(0, TAU, 32)
    beneath(scene, lambda n: resin(n, 3), np.stack([cx + .05 * np.cos(phi), cy + .05 * np.sin(phi)], 1))


DEFECTS = {
    "scratch": add(groove, on_ring(.15, .28), (.1, .22), (16, 30, 48), (190, 214, 232, 80), copies=FEW),
    "crack": add(groove, on_ring(.12, .3), (.14, .26), (10, 20, 34), (170, 200, 224, 90), **CRACK),
    "chip": chip,
    "undrilled": undrilled,
    "scorch": add(stain, on_ring(.12, .3), (.04, .08), (70, 46, 30), (.4, .85), .2, .3, grain=.2, copies=(.7, .3)),
    "glue": add(stain, on_ring(.1, .3), (.04, .08), (214, 206, 176), (.4, .8), .08, .3),
}
