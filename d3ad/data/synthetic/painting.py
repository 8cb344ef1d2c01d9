"""Painters: functions that each paint one thing on a canvas; `Scene` names the painters of one picture.

Lengths are shares of the canvas's width, x to the right and y down; colours are 0..255.
"""
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

Painter = Callable[[Image.Image], None]
Scene = dict[str, Painter]
Rng = np.random.Generator
TAU = 2 * np.pi
font = lru_cache(ImageFont.load_default)


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
