"""Plain weave of blue warp and pale weft."""
from functools import lru_cache

import numpy as np
from PIL import Image

from .flaws import add, beneath, groove, ragged, stain, within
from .painting import TAU, Painter, Rng, Scene, box, dim, layer, line, poly, stack
from .textures import mottled, picture, plane

THREADS = 24  # each way over the whole canvas
WARP, WEFT = (82, 112, 164), (234, 219, 190)


@lru_cache
def crossings(n: int):
    """Light on the warp and on the weft threads, 0 in the gaps beside them; and where the warp is on top."""
    x, y = (v * THREADS for v in plane(n)[:2])
    round_x, round_y = (np.sqrt(np.clip(1 - ((2 * (v % 1) - 1) / .86) ** 2, 0, 1)) for v in (x, y))
    rise = (-1) ** np.floor(x) * np.sin(np.pi * y), -(-1) ** np.floor(y) * np.sin(np.pi * x)  # up, then under
    twist = 1 + .06 * np.sin(TAU * 1.5 * (x + y))
    warp, weft = (twist * r ** .6 * (.66 + .34 * up) for r, up in ((round_x, rise[0]), (round_y, rise[1])))
    return warp, weft, (warp > 0) & ((weft <= 0) | (rise[0] > 0))


@lru_cache
def cloth(n: int, woven: bool = True) -> Image.Image:
    """Plain weave of blue warp and pale weft; or the warp alone, as it shows where a weft thread is gone."""
    warp, weft, top = crossings(n)
    threads = np.where(top, warp, weft)[..., None] * np.where(top[..., None], WARP, WEFT)
    return picture(14 + (threads if woven else .7 * np.clip(warp, 0, .62)[..., None] * np.array(WARP)))


def build(rng: Rng) -> Scene:
    tones = 244 + np.clip(rng.normal(0, 5, (2, THREADS)), -11, 11)

    def yarn(canvas):
        at = np.arange(canvas.width) * THREADS // canvas.width
        dim(canvas, picture(np.where(crossings(canvas.width)[2], tones[0][at], tones[1][at][:, None])))

    return {"base": layer(cloth), "yarn": yarn, "folds": mottled(rng, .02, .12)}


def stretch_of_weft(rng: Rng, fewest: int, most: int):
    """A stretch of one weft thread: its row and first and last column, counted in threads."""
    count = rng.integers(fewest, most + 1)
    first = rng.integers(2, THREADS - 2 - count)
    return rng.integers(2, THREADS - 2), first, first + count


def missing_thread(scene: Scene, rng: Rng) -> None:
    row, first, last = stretch_of_weft(rng, 5, 12)
    corners = np.array([(first, row), (last, row), (last, row + 1), (first, row + 1)]) / THREADS
    beneath(scene, lambda n: cloth(n, False), corners)


def wrong_thread(scene: Scene, rng: Rng) -> None:
    """One weft thread is rust red wherever it lies on top."""
    (row, first, last), tint = stretch_of_weft(rng, 5, 6), int(rng.uniform(50, 140))
    scene["flaw"] = stack(*(box((k + .5) / THREADS, (row + .5) / THREADS, .95 / THREADS, .8 / THREADS,
                                (168, 60, 36, tint), .01) for k in range(first, last) if (k + row) % 2))


def torn_hole(rng: Rng, at, r) -> Painter:
    """A hole with frayed ends of thread."""
    outline = ragged(rng, *at, r, .25)
    ends = [line([p, p + (at - p) * rng.uniform(.2, .55) + rng.normal(0, .008, 2)], .009, (*c, 230))
            for p, c in zip(outline[::3], [WEFT, WARP] * 11)]
    return stack(poly(outline, (24, 24, 30)), *ends)


DEFECTS = {
    "loose_thread": add(groove, within(.2, .8), (.15, .28), (244, 236, 214), (10, 14, 24, 90),
                        width=.009, bend=2.2),
    "wrong_thread": wrong_thread,
    "missing_thread": missing_thread,
    "hole": add(torn_hole, within(.2, .8), (.05, .085)),
    "cut": add(groove, within(.2, .8), (.15, .25), (20, 22, 30), (236, 226, 204, 90), .008, .9, .7),
    "stain": add(stain, within(.25, .75), (.11, .16), (110, 72, 40), (.16, .4), .1),
}
