"""The seven drawn categories: what a normal picture of each holds, and how it can go wrong.

A picture is a *scene*: an ordered dict of painters, each a function that paints one thing on a canvas.  A
defect edits the scene: it deletes a painter (a missing part), replaces one (a part turned round) or adds one
(a scratch).  All randomness is spent while the scene is built, so that two scenes of equal random state
differ by their edits only.

Lengths are shares of the canvas's width, x to the right and y down; colours are 0..255.
"""
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import gaussian_filter, gaussian_filter1d, shift

Painter = Callable[[Image.Image], None]
Scene = dict[str, Painter]
Rng = np.random.Generator
TAU = 2 * np.pi
font = lru_cache(ImageFont.load_default)

# --- Painters -------------------------------------------------------------------------------------------


def _shape(method: str, points, *args) -> Painter:
    def paint(canvas):
        mode = "L" if canvas.mode == "L" else "RGBA"  # RGBA blends by the colour's alpha
        pen = ImageDraw.Draw(canvas, mode)
        getattr(pen, method)((np.ravel(points) * canvas.width).tolist(), *args)
    return paint


def disc(x, y, r, fill) -> Painter:
    return _shape("ellipse", (x - r, y - r, x + r, y + r), fill)


def poly(points, fill) -> Painter:
    return _shape("polygon", points, fill)


def box(x, y, w, h, fill, corner=0.0) -> Painter:
    """A rectangle centred at (x, y) with round corners."""
    edges = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return lambda canvas: _shape("rounded_rectangle", edges, corner * canvas.width, fill)(canvas)


def line(points, width, fill) -> Painter:
    return lambda canvas: _shape("line", points, fill, max(1, round(width * canvas.width)), "curve")(canvas)


def text(x, y, words, height, fill) -> Painter:
    def paint(canvas):
        _shape("text", (x, y), words, fill, font(round(height * canvas.width)), "mm")(canvas)
    return paint


def stack(*painters: Painter) -> Painter:
    def paint(canvas):
        for painter in painters:
            painter(canvas)
    return paint


def layer(make: Callable[[int], Image.Image], outline=None) -> Painter:
    """The picture `make(width)`, seen through its own alpha or only inside the polygon `outline`."""
    def paint(canvas):
        picture, mask = make(canvas.width), None
        if outline is not None:
            mask = Image.new("L", canvas.size)
            poly(outline, 255)(mask)
        canvas.paste(picture, (0, 0), picture if picture.mode == "RGBA" else mask)
    return paint


def sprite(recipe: tuple, x, y, w, turn=0.0, tone=1.0) -> Painter:
    """The RGBA picture `recipe[0](*recipe[1:])`, w wide about (x, y), turned by degrees, with its shadow."""
    def paint(canvas):
        part = _resized(recipe, round(w * canvas.width))
        part = part.rotate(turn, Image.BICUBIC, expand=True) if turn else part
        alpha = part.getchannel("A")
        left, top = round(x * canvas.width - part.width / 2), round(y * canvas.width - part.height / 2)
        drop = round(0.007 * canvas.width)
        canvas.paste((8, 10, 14), (left + drop, top + drop), alpha.point(lambda a: a * 0.47))
        lit = Image.blend(Image.new("RGB", part.size), part.convert("RGB"), tone)
        canvas.paste(lit, (left, top), alpha)
    return paint


@lru_cache
def _resized(recipe: tuple, wide: int) -> Image.Image:
    master = recipe[0](*recipe[1:])
    return master.resize((wide, round(wide * master.height / master.width)))


def dim(canvas: Image.Image, grey: Image.Image) -> None:
    """Multiply the canvas by the grey picture (255 leaves it as it is)."""
    canvas.paste(ImageChops.multiply(canvas, Image.merge("RGB", [grey] * 3)))


# --- Textures and relief --------------------------------------------------------------------------------


def picture(values) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def plane(n: int):
    """(x, y, radius, angle) of each pixel, four (n, n) arrays; the last two about the canvas's centre."""
    y, x = (np.mgrid[:n, :n] + 0.5) / n
    return x, y, np.hypot(x - 0.5, y - 0.5), np.arctan2(y - 0.5, x - 0.5)


@lru_cache
def noise(n: int, down: float, across: float | None = None, wide: int = 1, seed: int = 0) -> np.ndarray:
    """Noise (n, wide * n), mean 0 and deviation 1, smoothed over `down` and `across` shares of the width."""
    rough = np.random.default_rng(seed).standard_normal((n, wide * n))
    fine = gaussian_filter(rough, [down * n, (across or down) * n], mode="wrap")
    return fine / fine.std()


@lru_cache
def _mottle(n: int, strength: float, *blurs: float) -> Image.Image:
    grey = sum(noise(n, blur, None, 2, seed) for seed, blur in enumerate(blurs)) / len(blurs) ** 0.5
    return picture(255 * (1 - 2 * strength + strength * grey))


def mottled(rng: Rng, strength: float, *blurs: float) -> Painter:
    """Uneven tone: a stretch, different for each picture, of one wide sheet of mottling."""
    start = rng.uniform()
    return lambda canvas: dim(canvas, _mottle(canvas.width, strength, *blurs).crop(
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


# --- Families of defects --------------------------------------------------------------------------------


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
            mask = ImageChops.multiply(mask, _mottle(n, grain, .004, .012).crop((0, 0, *mask.size)))
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


# --- board ----------------------------------------------------------------------------------------------

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


def board(rng: Rng) -> Scene:
    return {"base": layer(bare_board)} | {name: seat(name, rng) for name in PARTS}


def displaced_part(scene: Scene, rng: Rng) -> None:
    name = rng.choice(["crystal", "can 1", "amp", "r1", "r3", "r4", "c1", "c5", "c8"])
    scene[name] = seat(name, rng, *rng.choice([-1, 1], 3) * rng.uniform((.008, .008, 14), (.02, .02, 35)))


# --- blister --------------------------------------------------------------------------------------------

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


def blister(rng: Rng) -> Scene:
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


# --- biscuit --------------------------------------------------------------------------------------------

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


def biscuit(rng: Rng) -> Scene:
    holes = {f"hole {k}": dimple(*(at + rng.normal(0, .0015, 2))) for k, at in enumerate(HOLES)}
    return {"base": layer(baked), "crumb": mottled(rng, .035, .006, .04)} | holes


def chip(scene: Scene, rng: Rng) -> None:
    """A bite out of the rim: the belt shows, and the broken edge is paler than the crust."""
    lost = bite(rng, rng.uniform(0, TAU), rng.uniform(.3, .5), rng.uniform(.26, .29), .405, 3)
    beneath(scene, belt, lost, line(lost[4:26], .014, (240, 206, 150)),
            line(.5 + 1.025 * (lost[4:26] - .5), .006, (70, 44, 24)))


# --- washer ---------------------------------------------------------------------------------------------


@lru_cache
def steel_ring(n: int) -> Image.Image:
    """A flat steel ring turned on a lathe, with a groove near its rim."""
    r = plane(n)[2]
    groove_light = 26 * np.exp(-((r - .392) / .003) ** 2) - 60 * np.exp(-((r - .385) / .003) ** 2)
    steel = metal(n, (200, 206, 213), 5) + groove_light[..., None]
    return relief(bench(n), np.minimum(.415 - r, r - .2), steel, 1.3, .006)


def washer(rng: Rng) -> Scene:
    return {"base": layer(steel_ring), "sheen": sheen(rng, .42), "grain": mottled(rng, .015, .003)}


def lost_piece(half, inner, square):
    """The defect by which the washer loses a piece; `half` (its half angle) and `inner` are ranges."""
    def defect(scene: Scene, rng: Rng) -> None:
        gap = bite(rng, rng.uniform(0, TAU), rng.uniform(*half), rng.uniform(*inner), .417, square)
        beneath(scene, bench, gap, line(gap[2:28], .007, (112, 116, 122)))
    return defect


# --- plank ----------------------------------------------------------------------------------------------

SEAMS = .345, .655


@lru_cache
def wood(n: int) -> Image.Image:
    """A sheet of wood (n, 2n): growth rings that wander along the grain, fibres and pores."""
    y = (np.arange(n) + .5)[:, None] / n
    late = np.exp(2.2 * (np.sin(TAU * (11 * y + .5 * noise(n, .12, .3, 2, 6))) - 1))[..., None]
    fibre = .035 * noise(n, .0025, .05, 2, 7) - .11 * np.clip(noise(n, .0015, .014, 2, 8) - 1.3, 0, 2)
    return picture((np.array((206, 158, 102)) - np.array((36, 41, 33)) * late) * (1 + fibre)[..., None])


def plank(rng: Rng) -> Scene:
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


# --- weave ----------------------------------------------------------------------------------------------

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


def weave(rng: Rng) -> Scene:
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


# --- gear -----------------------------------------------------------------------------------------------

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


def gear(rng: Rng) -> Scene:
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


# --- The catalogue: for each category its scene and its defects -----------------------------------------

FEW = .6, .25, .15  # how likely one, two, three copies are
HAIR = dict(fill=(40, 26, 20), gleam=(0, 0, 0, 25), width=.005, bend=2.2)
CRACK = dict(bend=1.2, smooth=.6)

CATALOGUE: dict[str, tuple[Callable[[Rng], Scene], dict[str, Callable[[Scene, Rng], None]]]] = {
    "board": (board, {
        "scratch": add(groove, within(), (.1, .25), (150, 196, 160), (8, 40, 26, 70), copies=FEW),
        "solder_splash": add(drop, within(), (.008, .018), (176, 180, 184), (250, 250, 250), copies=FEW),
        "missing_part": missing("crystal", "can 1", "can 2", "amp", "r1", "r2", "r3", "r4", "c2", "c5", "c8"),
        "displaced_part": displaced_part,
        "burn": add(stain, within(.2, .8), (.05, .08), (26, 18, 12), (.35, .85), .2),
        "missing_ic": missing("ic")}),
    "blister": (blister, {
        "hair": add(groove, within(.2, .8), (.18, .32), **HAIR),
        "speck": add(stain, within(), (.008, .014), (52, 40, 34), (.3, .8), copies=FEW),
        "missing_capsule": missing(*(f"capsule {k}" for k in range(12))),
        "crushed_capsule": other_capsule((capsule, RED, CREAM, True)),
        "wrong_colour": other_capsule((capsule, (60, 112, 176), (206, 222, 238))),
        "turned_capsule": other_capsule((capsule,), 180),
        "torn_foil": torn_foil}),
    "biscuit": (biscuit, {
        "hair": add(groove, on_ring(0, .2), (.15, .25), **HAIR),
        "blocked_hole": missing(*(f"hole {k}" for k in range(len(HOLES)))),
        "crack": add(groove, on_ring(.08, .2), (.25, .4), (92, 52, 24), (244, 210, 154, 110), **CRACK),
        "burn": add(stain, on_ring(.1, .26), (.05, .08), (66, 34, 16), (.2, .6), .2),
        "pale_patch": add(stain, on_ring(.08, .2), (.1, .14), (244, 214, 164), (.2, .45), .2),
        "chip": chip}),
    "washer": (washer, {
        "scratch": add(groove, on_ring(.24, .38), (.08, .18), (62, 66, 72), (250, 252, 255, 60), copies=FEW),
        "dent": add(drop, on_ring(.23, .37), (.008, .016), (96, 98, 102), (60, 62, 66), (255, 255, 255),
                    copies=FEW),
        "rim_chip": lost_piece((.05, .1), (.37, .39), 2),
        "rust": add(stain, on_ring(.24, .37), (.04, .065), (128, 62, 26), (.4, .9), .2, .3, grain=.2,
                    copies=(.7, .3)),
        "oil": add(stain, on_ring(.29, .33), (.09, .12), (62, 50, 28), (.13, .3), .06),
        "broken_ring": lost_piece((.14, .3), (.18, .19), 16)}),
    "plank": (plank, {
        "scratch": add(groove, within(), (.15, .3), (246, 218, 174), (112, 70, 36, 70), copies=FEW),
        "wormholes": add(wormhole, within(), (.006, .01), copies=(.4, .3, .3)),
        "split": add(groove, within(.2, .8), (.3, .45), (50, 28, 14), (232, 190, 132, 110),
                     bend=.6, smooth=.7, heading=0),
        "knot": add(knot, within(.2, .8), (.03, .055)),
        "glue": add(drop, within(.15, .85), (.025, .045), (232, 222, 190), (255, 255, 250), copies=FEW),
        "stain": add(stain, within(.25, .75), (.12, .17), (96, 56, 30), (.16, .4), .08)}),
    "weave": (weave, {
        "loose_thread": add(groove, within(.2, .8), (.15, .28), (244, 236, 214), (10, 14, 24, 90),
                            width=.009, bend=2.2),
        "wrong_thread": wrong_thread,
        "missing_thread": missing_thread,
        "hole": add(torn_hole, within(.2, .8), (.05, .085)),
        "cut": add(groove, within(.2, .8), (.15, .25), (20, 22, 30), (236, 226, 204, 90), .008, .9, .7),
        "stain": add(stain, within(.25, .75), (.11, .16), (110, 72, 40), (.16, .4), .1)}),
    "gear": (gear, {
        "scratch": add(groove, on_ring(.29, .33), (.06, .13), (92, 62, 22), (255, 240, 196, 60), copies=FEW),
        "crack": add(groove, on_ring(.29, .3), (.1, .18), (48, 30, 10), (255, 236, 180, 90), **CRACK),
        "worn_tooth": broken_teeth((.375, .39), 1),
        "broken_tooth": broken_teeth((.345, .355), 3),
        "undrilled": undrilled,
        "verdigris": add(stain, on_ring(.24, .33), (.035, .055), (66, 124, 104), (.4, .85), .2, .3, grain=.2,
                         copies=(.7, .3)),
        "grease": add(stain, on_ring(.2, .28), (.1, .13), (40, 30, 18), (.2, .45), .06, .3)}),
}
