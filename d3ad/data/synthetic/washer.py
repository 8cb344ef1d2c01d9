"""A turned steel washer."""
from functools import lru_cache

import numpy as np
from PIL import Image

from .flaws import FEW, add, beneath, bite, drop, groove, on_ring, stain
from .painting import TAU, Rng, Scene, layer, line
from .textures import bench, metal, mottled, plane, relief, sheen


@lru_cache
def steel_ring(n: int) -> Image.Image:
    """A flat steel ring turned on a lathe, with a groove near its rim."""
    r = plane(n)[2]
    groove_light = 26 * np.exp(-((r - .392) / .003) ** 2) - 60 * np.exp(-((r - .385) / .003) ** 2)
    steel = metal(n, (200, 206, 213), 5) + groove_light[..., None]
    return relief(bench(n), np.minimum(.415 - r, r - .2), steel, 1.3, .006)


def build(rng: Rng) -> Scene:
    return {"base": layer(steel_ring), "sheen": sheen(rng, .42), "grain": mottled(rng, .015, .003)}


def lost_piece(half, inner, square):
    """The defect by which the washer loses a piece; `half` (its half angle) and `inner` are ranges."""
    def defect(scene: Scene, rng: Rng) -> None:
        gap = bite(rng, rng.uniform(0, TAU), rng.uniform(*half), rng.uniform(*inner), .417, square)
        beneath(scene, bench, gap, line(gap[2:28], .007, (112, 116, 122)))
    return defect


DEFECTS = {
    "scratch": add(groove, on_ring(.24, .38), (.08, .18), (62, 66, 72), (250, 252, 255, 60), copies=FEW),
    "dent": add(drop, on_ring(.23, .37), (.008, .016), (96, 98, 102), (60, 62, 66), (255, 255, 255),
                copies=FEW),
    "rim_chip": lost_piece((.05, .1), (.37, .39), 2),
    "rust": add(stain, on_ring(.24, .37), (.04, .065), (128, 62, 26), (.4, .9), .2, .3, grain=.2,
                copies=(.7, .3)),
    "oil": add(stain, on_ring(.29, .33), (.09, .12), (62, 50, 28), (.13, .3), .06),
    "broken_ring": lost_piece((.14, .3), (.18, .19), 16),
}
