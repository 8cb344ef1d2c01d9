"""A blister card of twelve two-colour capsules."""
from functools import lru_cache

import numpy as np
from PIL import Image

from .flaws import FEW, HAIR, add, groove, missing, stain, within
from .painting import TAU, Painter, Rng, Scene, layer, poly, sprite, stack
from .textures import bench, noise, picture, plane, relief

POCKETS = [(x, y) for y in (.2, .4, .6, .8) for x in (.215, .5, .785)]
RED, CREAM = (196, 44, 58), (244, 226, 190)


def bar(x, y, half):
    """Distance from the middle of a horizontal bar whose straight part reaches `half` to each side."""
    return np.hypot(np.maximum(np.abs(x) - half, 0), y)


def capsule(left=RED, right=CREAM, crushed=False) -> Image.Image:
    """A two-colour capsule on its side, shaded as a cylinder, RGBA (112, 256)."""
    v, u = (np.mgrid[:112, :256] + 0.5 - np.array((56, 128))[:, None, None]) / 54
    gleam, fold = 150, 0.0
    if crushed:  # bent, waisted and creased
        v = (v - 0.25 * np.cos(2.2 * u)) * (1.15 + 0.5 * np.exp(-((u - 0.3) * 2.4) ** 2))
        gleam, lean = 60, u + 0.3 * v
        fold = 0.55 * np.exp(-((lean - 0.3) * 5) ** 2) - 0.25 * np.exp(-((lean - 0.6) * 6) ** 2)
    rim = bar(u, v, 1.32)
    light = (0.42 + 0.66 * np.sqrt(np.clip(1 - rim ** 2, 0, 1)) - 0.22 * v) * (1 - fold)
    light *= 1 - 0.22 * np.exp(-((u - 0.12) * 18) ** 2)  # the seam between the halves
    streak = gleam * np.exp(-((v + 0.48) * 5.5) ** 2 - np.maximum(np.abs(u) - 1.15, 0) ** 2 * 12)
    shaded = np.where((u < 0.12)[..., None], left, right) * light[..., None] + streak[..., None]
    return picture(np.dstack([shaded, 255 * np.clip((1 - rim) * 54, 0, 1)]))


@lru_cache
def foil(n: int) -> Image.Image:
    """The card with its embossed grid and twelve empty pockets, on a dark table."""
    x, y, *_ = plane(n)
    emboss = np.sin(TAU * 36 * (x + y)) * np.sin(TAU * 36 * (x - y))
    silver = 186 + 9 * emboss + 9 * noise(n, .03, .09) + 16 * (.5 - y) + 10 * np.cos(TAU * (x - y))
    card = .03 - np.hypot(*(np.maximum(np.abs(v - .5) - .425, 0) for v in (x, y)))
    values = relief(bench(n, 34, 44, 62), card, silver[..., None] * (.985, 1, 1.03), .6)
    for px, py in POCKETS:
        rim, slope = bar(x - px, y - py, .062) / .068, np.clip((y - py + (x - px) / 2) / .068, -1, 1)
        floor = 168 + 26 * np.clip(rim, 0, 1) ** 3 * slope + 3 * emboss
        values = relief(values, .068 * (1 - rim), floor[..., None] * (.97, 1, 1.05), .5, shadow=.35)
    return values


@lru_cache
def gloss(n: int) -> Image.Image:
    """The clear plastic over the pockets: bright rims and reflections of a window, RGBA."""
    x, y, *_ = plane(n)
    alpha = np.zeros((n, n))
    for px, py in POCKETS:
        u, v = (x - px) / .066, (y - py) / .066
        rim = bar(u, v, .94)
        edge = np.exp(-((rim - .93) * 16) ** 2) * np.clip(.55 - .5 * v - .2 * u, .1, 1)
        window = np.exp(-((rim - .72) * 15) ** 2) * (v < -.27) * np.clip(1.1 - 2 * np.abs(u + .7), 0, 1)
        alpha += .75 * edge + window
    return picture(np.dstack([np.full((n, n, 3), 255), 235 * np.clip(alpha, 0, 1)]))


def in_pocket(k: int, rng: Rng, recipe=(capsule,), turn=0.0) -> Painter:
    dx, dy = rng.normal(0, .002, 2)
    x, y = POCKETS[k]
    return sprite(recipe, x + dx, y + dy, .205, turn + rng.normal(0, 1.5), 1 + rng.normal(0, .02))


def build(rng: Rng) -> Scene:
    capsules = {f"capsule {k}": in_pocket(k, rng) for k in range(12)}
    return {"base": layer(foil)} | capsules | {"gloss": layer(gloss)}


def other_capsule(recipe, turn=0.0):
    """The defect that puts a wrong capsule in one pocket."""
    def defect(scene: Scene, rng: Rng) -> None:
        k = int(rng.integers(12))
        scene[f"capsule {k}"] = in_pocket(k, rng, recipe, turn)
    return defect


def torn_foil(scene: Scene, rng: Rng) -> None:
    """A corner of the card torn off: the table shows, and the white edge curls up."""
    side, reach = rng.choice([-1, 1], 2), rng.uniform(.26, .36)
    cut = np.linspace(0, 1, 12)[:, None]
    tear = .5 + side * (.47 - reach * np.hstack([cut, 1 - cut])) + rng.normal(0, .012, (12, 2))
    curl = np.concatenate([tear, tear[::-1] - .02 * side * rng.uniform(.3, 1.4, (12, 1))])
    scene["flaw"] = stack(layer(lambda n: bench(n, 34, 44, 62), np.vstack([tear, .5 + side * .49])),
                          poly(curl + .008, (0, 0, 0, 110)), poly(curl, (232, 236, 240)))


DEFECTS = {
    "hair": add(groove, within(.2, .8), (.18, .32), **HAIR),
    "speck": add(stain, within(), (.008, .014), (52, 40, 34), (.3, .8), copies=FEW),
    "missing_capsule": missing(*(f"capsule {k}" for k in range(12))),
    "crushed_capsule": other_capsule((capsule, RED, CREAM, True)),
    "wrong_colour": other_capsule((capsule, (60, 112, 176), (206, 222, 238))),
    "turned_capsule": other_capsule((capsule,), 180),
    "torn_foil": torn_foil,
}
