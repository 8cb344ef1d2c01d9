"""Three nailed boards of wood."""
from functools import lru_cache

import numpy as np
from PIL import Image

from .flaws import FEW, add, drop, groove, stain, within
from .painting import TAU, Painter, Rng, Scene, disc, line, stack
from .textures import noise, picture

SEAMS = .345, .655


@lru_cache
def wood(n: int) -> Image.Image:
    """A sheet of wood (n, 2n): growth rings that wander along the grain, fibres and pores."""
    y = (np.arange(n) + .5)[:, None] / n
    late = np.exp(2.2 * (np.sin(TAU * (11 * y + .5 * noise(n, .12, .3, 2, 6))) - 1))[..., None]
    fibre = .035 * noise(n, .0025, .05, 2, 7) - .11 * np.clip(noise(n, .0015, .014, 2, 8) - 1.3, 0, 2)
    return picture((np.array((206, 158, 102)) - np.array((36, 41, 33)) * late) * (1 + fibre)[..., None])


def build(rng: Rng) -> Scene:
    """Three boards, each a stretch of the sheet of wood, nailed down side by side."""
    starts, tones = rng.uniform(0, .6, 3), 1 + rng.normal(0, .025, 3)

    def boards(canvas):
        n = canvas.width
        for top, low, start, tone in zip((0, *SEAMS), (*SEAMS, 1), starts, tones):
            strip = wood(n).crop((int(start * n), int(top * n), int(start * n) + n, int(low * n)))
            canvas.paste(Image.blend(Image.new("RGB", strip.size), strip, tone), (0, int(top * n)))

    seams = [line([(0, y + d), (1, y + d)], w, c) for y in SEAMS for d, w, c in (
        (0, .014, (70, 40, 20, 120)), (0, .008, (44, 26, 14)), (.008, .005, (240, 204, 150, 130)))]
    nail = (0, .011, (70, 48, 30)), (0, .008, (112, 108, 104)), (.002, .003, (190, 188, 184))
    nails = [disc(x - d, y - d, r, c) for x in (.12, .88) for y in (.07, .27, .42, .58, .73, .93)
             for d, r, c in nail]
    return {"base": boards, "fittings": stack(*seams, *nails)}


def knot(rng: Rng, at, r) -> Painter:
    rings = ((1.5, (170, 116, 66)), (1.2, (122, 74, 38)), (1, (150, 96, 52)), (.7, (84, 48, 24)),
             (.35, (44, 24, 12)))
    return stack(*(stain(rng, at, r * k, colour, (.3, .7), .1, .06, 1.35) for k, colour in rings))


def wormhole(rng: Rng, at, r) -> Painter:
    return stack(disc(*(at + .003), 1.15 * r, (224, 180, 124)), disc(*at, r, (38, 20, 10)))


DEFECTS = {
    "scratch": add(groove, within(), (.15, .3), (246, 218, 174), (112, 70, 36, 70), copies=FEW),
    "wormholes": add(wormhole, within(), (.006, .01), copies=(.4, .3, .3)),
    "split": add(groove, within(.2, .8), (.3, .45), (50, 28, 14), (232, 190, 132, 110),
                 bend=.6, smooth=.7, heading=0),
    "knot": add(knot, within(.2, .8), (.03, .055)),
    "glue": add(drop, within(.15, .85), (.025, .045), (232, 222, 190), (255, 255, 250), copies=FEW),
    "stain": add(stain, within(.25, .75), (.12, .17), (96, 56, 30), (.16, .4), .08),
}
