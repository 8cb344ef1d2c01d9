"""Pixels of photographs and masks, whatever file they come in."""
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy import ndimage
from torch import Tensor

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif",
                      ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".jp2", ".j2k", ".avif", ".mpo"})
# Photographs that Pillow can't open: never to be passed over as if they were no images.
UNREAD_SUFFIXES = frozenset({".heic", ".heif", ".jxl", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf",
                             ".rw2", ".exr", ".hdr", ".fits", ".dcm", ".svg", ".psd"})
# known by their first bytes
WITH_MAGIC = ("PNG", "JPEG", "MPO", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
FORMATS = (*WITH_MAGIC, "DIB", "TGA", "PCX")
LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF", "HEIF")
DEPTHS = (255, 1023, 4095, 16383, 65535)  # white of 8, 10, 12, 14 and 16 bits


class DataError(ValueError):
    """Files that cannot be used: every problem on a line of its own, with the file and what to do."""


def check_white(white: int | None) -> None:
    """Raise ValueError where `white`, of 16-bit images, is none that a camera has."""
    if white is not None and (type(white) is not int or white not in DEPTHS):
        raise ValueError(f"white must be one of {', '.join(map(str, DEPTHS))}; got {white!r}")


def load_image(path, size, white: int | None = None, strict: bool = False) -> Tensor:
    """Read any image file as RGB, (3, size, size) float32 in [-1, 1].

    Grey is repeated over the channels, 16-bit grey keeps its precision, transparency is laid over white,
    and a photograph is turned the way its EXIF tag says.
    white: the value of 16-bit grey that becomes 1, such as 4095 for 12 bits; None: 65535.  See `white_of`.
    strict: refuse a file with several pages or frames; else the first one is read, with a warning.
    Raises `DataError` naming a file that is unreadable or holds values above `white`.
    """
    return load_with_size(path, size, white, strict)[0]


def load_with_size(path, size, white: int | None = None, strict: bool = True) -> tuple[Tensor, tuple[int, int]]:
    """`load_image`, and the photograph's own (width, height) when upright."""
    white = white or DEPTHS[-1]
    image = decode(path, lambda image: _to_rgb(image, white), strict=strict)
    return to_tensor(image, size, white), image.size


def to_tensor(image: Image.Image, size: int, white: int = 65535) -> Tensor:
    """A picture of mode "RGB", or "F" with values up to `white`, as (3, size, size) in [-1, 1]; size may be (width,
    height)."""
    highest = white if image.mode == "F" else 255
    shape = (size, size) if isinstance(size, int) else size
    pixels = torch.from_numpy(np.array(image.resize(shape, Image.Resampling.BILINEAR), np.float32))
    if pixels.ndim == 2:
        pixels = pixels[..., None].expand(-1, -1, 3)
    return (pixels.permute(2, 0, 1) / (highest / 2) - 1).contiguous()


def picture(path, white: int | None = None) -> Image.Image:
    """A photograph in its own size, upright, mode "RGB"; the values of 16-bit grey up to `white` as bytes."""
    white = white or DEPTHS[-1]
    image = decode(path, lambda image: _to_rgb(image, white))
    if image.mode == "F":
        image = Image.fromarray(np.round(np.asarray(image) * (255 / white)).astype(np.uint8)).convert("RGB")
    return image


def load_mask(path, size, threshold: int = 0, keep_small: bool = True) -> Tensor:
    """Read a mask, (size, size) bool: values above ``threshold`` are anomalous.

    Binarised first, then resized (bilinear) and cut at one half, so that label values are never mixed.
    keep_small: a region of which nothing would be left keeps its cells with most of it; False: it vanishes, as in the
    authors' code.  Raises `DataError` naming an unreadable file.
    """
    return torch.from_numpy(shrink(read_mask(path, threshold), size, keep_small))


def read_mask(path, threshold: int = 0) -> np.ndarray:
    """A mask in its own size, (H, W) bool.

    The picture decides, not how it is stored: palettes are looked up, and of two colours the darker one is normal; of a
    file with losses (JPEG) what lies above half of its highest value is anomalous.  A folder of masks is their union.
    Raises `DataError` naming an unreadable file, or masks of one image that differ in size.
    """
    path = Path(path)
    if path.is_dir():
        parts = [read_mask(file, threshold) for file in mask_files(path)]
        if not parts or len({part.shape for part in parts}) > 1:
            raise DataError(f"{path}: {'masks of different sizes' if parts else 'no mask in it'}; restore them from "
                            "the dataset")
        return np.any(parts, axis=0)
    values, lossy = decode(path, _to_values)
    if lossy and values.size:
        threshold = max(threshold, float(values.max()) / 2)
    return values > threshold


def mask_files(folder: Path) -> list[Path]:
    """The masks of one image that lie in a folder of their own, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES
                  and not path.name.startswith("."))


def mask_remark(path: Path) -> str:
    """What is unusual in a mask that can be read, "" where nothing is: how its values had to be understood."""
    if path.is_dir():
        return ""
    values, lossy = decode(path, _to_values)
    if lossy:
        return f"{path}: a mask saved with losses, cut at half of its highest value; PNG keeps edges exact"
    between = int(((values > 0) & (values < values.max())).sum()) if values.size else 0
    many = len(np.unique(values[::7, ::7])) > 16
    return (f"{path}: {between} pixels between black and white count as anomalous; draw masks in two values"
            if many else "")


def shrink(mask: np.ndarray, size: int, keep_small: bool = True) -> np.ndarray:
    """A mask (H, W) bool as (size, size); see `load_mask`."""
    resized = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    small = np.array(resized) > 0.5
    if not keep_small or (mask.shape[0] <= size and mask.shape[1] <= size):
        return small
    regions, _ = ndimage.label(mask, np.ones((3, 3), int))
    for number, place in enumerate(ndimage.find_objects(regions), 1):
        rows, columns = np.nonzero(regions[place] == number)
        row, column = ((index + side.start) * size // length
                       for index, side, length in zip((rows, columns), place, mask.shape))
        cells = row * size + column
        cells, covered = np.unique(cells, return_counts=True)
        if not small.ravel()[cells].any():
            small.ravel()[cells[2 * covered >= covered.max()]] = True
    return small


def white_of(paths) -> int | None:
    """The white of 16-bit grey pictures: the smallest of `DEPTHS` that all their values fit in; None where there is
    none.

    Cameras write 10, 12 or 14 bits into files of 16.  Only 16-bit pictures are decoded; what can't be read is left to
    others to complain about.
    """
    highest = -1
    for path in paths:
        try:
            highest = max(highest, decode(path, _deepest, header_only=True))
        except DataError:
            continue
        if highest > DEPTHS[-2]:
            break
    return next((white for white in DEPTHS if 0 <= highest <= white), None)


def is_image(path) -> bool:
    """Whether a file begins as an image does, whatever its name; it is not decoded."""
    try:
        with Image.open(path, formats=_known(WITH_MAGIC)):
            return True
    except Exception:  # decoders raise nearly anything
        return False


def decode(path, convert, header_only: bool = False, strict: bool = True):
    """Open, decode in full, turn upright and convert; any failure becomes a DataError naming the file."""
    try:
        with Image.open(path, formats=_known(FORMATS)) as image:
            pages = _num_pages(image)
            if pages > 1 and not strict:
                warnings.warn(f"{path}: only the first of {pages} pages is read", stacklevel=3)
            elif pages > 1:
                raise ValueError(f"it has {pages} pages: save each page as a file of its own")
            if header_only:
                return convert(image)
            kind, raw = image.format, str(image.tile[0][3:]) if image.tile else ""
            upright = ImageOps.exif_transpose(image)
            upright.info["d3ad"] = (kind, raw)
            return convert(upright)
    except Exception as error:  # damaged files make decoders raise nearly anything
        said = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as an image ({said}); replace or remove it") from error


def _known(formats) -> list[str]:
    """Those of `formats` that this Pillow can open."""
    Image.init()
    return [name for name in formats if name in Image.OPEN]


def _num_pages(image: Image.Image) -> int:
    """Pages or frames; a preview in a phone's JPEG or a TIFF's thumbnail is none."""
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames == 1 or image.format != "TIFF":
        return frames
    pages = 0
    for i in range(frames):
        image.seek(i)
        pages += not int(image.tag_v2.get(254, 0)) & 1
    image.seek(0)
    return max(pages, 1)


def _deepest(image: Image.Image) -> int:
    return int(np.asarray(image).max()) if image.mode.startswith("I") else -1


def _to_rgb(image: Image.Image, white: int = 65535) -> Image.Image:
    """Mode "RGB", or for grey of 16 bits mode "F" with values up to 65535 (Pillow would clip it to 255)."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("values outside 0..65535: convert it to 8 or 16 bits")
        if values.max() > white:
            raise ValueError(f"values up to {values.max():.0f}, but white is {white} in the images that it goes with")
        return Image.fromarray(values)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known white: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    if ";16" in image.info.get("d3ad", ("", ""))[1] and 0 < np.asarray(rgb).max() < 64:
        raise ValueError("16-bit colour of which only the upper 8 bits are read, and these are nearly black: convert "
                         "it to 8 bits")
    return rgb


def _to_values(image: Image.Image) -> tuple[np.ndarray, bool]:
    """A mask's values (H, W), the largest of several colours, and whether its file has losses."""
    lossy = image.info.get("d3ad", ("", ""))[0] in LOSSY
    if image.mode == "1":
        image = image.convert("L")  # False, True -> 0, 255
    indices, two_colours = None, False
    if image.mode in ("P", "PA"):
        indices = np.asarray(image if image.mode == "P" else image.getchannel("P"))
        two_colours = len(np.unique(indices)) == 2
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    values, bands = np.asarray(image), image.getbands()
    if values.ndim == 3:
        alpha = values[..., bands.index("A")] if "A" in bands else np.full(values.shape[:2], 255, np.uint8)
        values = values[..., [i for i, band in enumerate(bands) if band != "A"]].max(-1) * (alpha > 0)
        if not values.any() and alpha.min() < alpha.max():
            values = alpha  # black paint on a transparent sheet
    if indices is not None and values.min() == values.max():
        values = indices  # the palette holds one colour, so the numbers must mean something
    elif two_colours:
        values = values - values.min()
    return values, lossy
