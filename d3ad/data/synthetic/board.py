"""A circuit board with its parts."""
from functools import lru_cache

import numpy as np
from PIL import Image

from .flaws import FEW, add, drop, groove, missing, stain, within
from .painting import Painter, Rng, Scene, box, disc, layer, line, poly, sprite, stack, text
from .textures import bench, noise, picture

SILVER, GOLD, MUTED = (196, 200, 204), (214, 170, 78), (184, 186, 188)


def _ends(height, wide=0.2):
    return [(wide / 2, height / 2, wide, wide * 1.4), (1 - wide / 2, height / 2, wide, wide * 1.4)]


# kind of part: height for width 1, where it is soldered (x, y, w, h), and how it looks from above
KINDS = {
    "quad": (1.0, [foot for p in np.linspace(.19, .81, 9) for q in (.05, .95)
                   for foot in ((p, q, .035, .1), (q, p, .1, .035))], (
        box(.5, .5, .82, .82, (34, 35, 39), .03), box(.5, .5, .76, .76, (50, 51, 56), .02),
        disc(.2, .2, .03, (24, 24, 27)), text(.5, .42, "D3AD", .19, MUTED),
        text(.5, .6, "2408-0A", .1, MUTED))),
    "dual": (0.8, [(p, q, .09, .16) for p in (.2, .4, .6, .8) for q in (.08, .72)], (
        box(.5, .4, .96, .54, (40, 41, 45), .03), box(.5, .38, .92, .44, (56, 57, 62), .02),
        disc(.13, .5, .035, (26, 26, 29)), text(.52, .4, "LM358", .2, MUTED))),
    "can": (1.0, [(.33, .5, .13, .13), (.67, .5, .13, .13)], (
        disc(.5, .5, .48, (44, 52, 92)), disc(.5, .5, .43, (206, 210, 216)),
        disc(.48, .48, .37, (222, 225, 230)), box(.5, .5, .025, .6, (164, 168, 176)),
        box(.5, .5, .6, .025, (164, 168, 176)),
        poly([(.1, .34), (.27, .13), (.27, .87), (.1, .66)], (36, 42, 74)))),
    "resistor": (0.3, _ends(.3, .12), (
        box(.5, .15, 1, .045, (188, 190, 194)), box(.5, .15, .6, .2, (206, 178, 130), .09),
        box(.27, .15, .15, .27, (210, 182, 134), .07), box(.73, .15, .15, .27, (210, 182, 134), .07),
        box(.38, .15, .05, .2, (126, 62, 26)), box(.48, .15, .05, .2, (24, 24, 24)),
        box(.58, .15, .05, .2, (190, 38, 30)), box(.73, .15, .045, .27, GOLD),
        box(.5, .09, .66, .03, (240, 226, 196)))),
    "crystal": (0.38, _ends(.38), (
        box(.5, .19, .98, .36, (140, 144, 150), .17), box(.5, .19, .9, .28, (208, 211, 215), .13),
        text(.5, .19, "16.000", .17, (92, 96, 104)))),
    "chip": (0.48, _ends(.48), (
        box(.5, .24, .98, .44, SILVER, .03), box(.5, .24, .56, .44, (170, 132, 92)),
        box(.5, .09, .56, .08, (196, 160, 120)))),
    "led": (0.6, _ends(.6), (
        box(.5, .3, .7, .56, (236, 232, 222), .04), disc(.5, .3, .2, (238, 92, 62)),
        disc(.45, .24, .07, (255, 200, 180)))),
}
PARTS = {  # name: kind, x, y, width
    "ic": ("quad", .42, .43, .27), "amp": ("dual", .235, .715, .145), "crystal": ("crystal", .44, .185, .17),
    "can 1": ("can", .765, .235, .15), "can 2": ("can", .78, .405, .115), "led": ("led", .265, .185, .065),
    **{f"r{k}": ("resistor", .745, .46 + .08 * k, .2) for k in (1, 2, 3, 4)},
    **{f"c{k}": ("chip", .4 + .13 * (k > 3), .67 + .065 * ((k - 1) % 3), .075) for k in range(1, 7)},
    **{f"c{k}": ("chip", .165, -.37 + .1 * k, .075) for k in (7, 8, 9)},
}


def part(kind: str) -> Image.Image:
    height, feet, painters = KINDS[kind]
    canvas = Image.new("RGBA", (256, round(256 * height)))
    stack(*(box(*foot, SILVER) for foot in feet), *painters)(canvas)
    return canvas


def pads(kind: str, x, y, w) -> list[Painter]:
    height, feet, _ = KINDS[kind]
    return [box(x + (fx - .5) * w, y + (fy - height / 2) * w, fw * w * 1.15, fh * w * 1.15, GOLD, .003)
            for fx, fy, fw, fh in feet]


@lru_cache
def bare_board(n: int) -> Image.Image:
    """The board without its parts: solder mask, buses, vias, pads, edge connector, screw holes, printing."""
    canvas = bench(n, 46, 48, 54).copy()
    buses = []
    for k in range(9):  # nine tracks leave each side of the big chip; they turn by 45 degrees, as routers do
        a, d, u, v = .316 + .026 * k, .004 * (k - 4), .72 - .014 * k, .74 - .02 * k
        buses += [[(.27, a), (.225, a), (.225 - 3 * abs(d), a + d), (.1, a + d)],
                  [(a, .58), (a, .615 + .004 * k), (a - 2 * d, .655 + .004 * k), (a - 2 * d, .9)],
                  [(a, .28), (a, .26 - .004 * k), (a + 3.5 * d, .235 - .004 * k), (a + 3.5 * d, .13)],
                  [(.57, a), (u - .02, a), (u, a + .02), (u, v), (.88, v)]]
    vias = [(.1, .36), (.1, .44), (.62, .15), (.66, .3), (.88, .32), (.88, .46), (.3, .85), (.62, .84),
            (.87, .84), (.13, .6), (.33, .25), (.33, .63), (.13, .25)]
    words = [("U1", .6, .28), ("Y1", .55, .14), ("C10", .66, .2), ("R1-4", .82, .495), ("U2", .145, .65),
             ("LED", .265, .13)]
    stack(box(.506, .506, .9, .9, (14, 15, 18), .03), box(.5, .5, .9, .9, (60, 120, 84), .03),
          box(.5, .5, .89, .89, (14, 92, 58), .027),
          *(line(track, .0095, (30, 128, 82)) for track in buses),
          *(disc(x, y, r, c) for x, y in vias for r, c in ((.012, GOLD), (.005, (24, 30, 26)))),
          *(disc(x, y, r, c) for x in (.115, .885) for y in (.115, .885)
            for r, c in ((.036, GOLD), (.03, (196, 152, 66)), (.02, (26, 27, 30)))),
          *(box(x, .915, .022, .06, GOLD) for x in np.linspace(.24, .76, 16)),
          *(pad for place in PARTS.values() for pad in pads(*place)),
          *(text(x, y, w, .03, (222, 230, 222)) for w, x, y in words))(canvas)
    return picture(np.asarray(canvas) * (1 + .02 * noise(n, .05))[..., None] + 2 * noise(n, .002)[..., None])


def seat(name: str, rng: Rng, dx=0.0, dy=0.0, turn=0.0) -> Painter:
    """A part on its pads, off by (dx, dy) and `turn` degrees; tone and place vary a little."""
    kind, x, y, w = PARTS[name]
    jitter, tone = rng.normal(0, .0012, 2), 1 + rng.normal(0, .03)
    return sprite((part, kind), x + dx + jitter[0], y + dy + jitter[1], w, turn, tone)


def build(rng: Rng) -> Scene:
    return {"base": layer(bare_board)} | {name: seat(name, rng) for name in PARTS}


def displaced_part(scene: Scene, rng: Rng) -> None:
    name = rng.choice(["crystal", "can 1", "amp", "r1", "r3", "r4", "c1", "c5", "c8"])
    scene[name] = seat(name, rng, *rng.choice([-1, 1], 3) * rng.uniform((.008, .008, 14), (.02, .02, 35)))


DEFECTS = {
    "scratch": add(groove, within(), (.1, .25), (150, 196, 160), (8, 40, 26, 70), copies=FEW),
    "solder_splash": add(drop, within(), (.008, .018), (176, 180, 184), (250, 250, 250), copies=FEW),
    "missing_part": missing("crystal", "can 1", "can 2", "amp", "r1", "r2", "r3", "r4", "c2", "c5", "c8"),
    "displaced_part": displaced_part,
    "burn": add(stain, within(.2, .8), (.05, .08), (26, 18, 12), (.35, .85), .2),
    "missing_ic": missing("ic"),
}
