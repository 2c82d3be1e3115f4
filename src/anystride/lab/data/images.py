"""Image files: one reader for the whole lab, and how a file becomes an input.

What a file may be: any mode that Pillow decodes, in any orientation, with transparency, of 1 to 32 bits per value. The
first frame of an animation and the first page of a document are taken. What cannot be read is one line of error.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from anystride.lab.data.augment import normalise, resize
from anystride.lab.data.tree import Tree
from anystride.lab.errors import UsageError

WHITE = (255, 255, 255)
"""What lies behind transparent pixels."""
SIXTEEN_BITS, TWELVE_BITS = 65535, 4095
BITS_PER_SAMPLE = 258
"""The tag of a TIFF file that says how many bits a value has."""
LONGEST = 8
"""The longer side over the shorter one; what an image has beyond that is cut off before it is resized."""
SAMPLE = 500
"""Files whose headers `usual_size` reads, at most."""
LARGEST_SIDE = 8192
"""Pixels, of anything that a description asks for: Pillow takes more than 9,459 squared for an attack."""
SMALLEST, LARGEST, MULTIPLE = 16, 224, 8
"""Limits of `usual_size`, and what it is a multiple of."""
UNKNOWN_SIZE = 32
"""Of images none of which can be read: `folder_task` names them."""

Pixels = npt.NDArray[np.uint8]


class ImageFileError(UsageError):
    """A file that is no readable image; `reason` says why, in a few words.

    Its line survives the way out of a worker process: a DataLoader raises a worker's error once more with the worker's
    whole traceback for its message, and the line that is for the user ends it.
    """

    reason = ""

    def __init__(self, message: str) -> None:
        super().__init__(message.rstrip().rpartition(f"{type(self).__name__}: ")[2])


def read_image(path: Path, background: Sequence[int] = WHITE, channels: int = 3) -> Image.Image:
    """Decode an image as a viewer shows it: upright, its transparent pixels over `background`.

    Grey values of 16 bits are scaled by their full range (those of 12 bits in a TIFF file by theirs), floating-point
    values by 255 where all of them lie in [0, 1]. Other floating-point values and integers of 32 bits have no range of
    their own: the smallest of the image becomes 0 and the largest 255; an image of a single value becomes 0.

    Args:
        path: a regular file; anything else is never opened.
        background: red, green and blue, 0 to 255.
        channels: 3 for RGB, 1 for grey.

    Raises:
        ImageFileError: the file cannot be decoded completely, or it has more pixels than Pillow takes for harmless.
    """
    try:
        # Only a bomb's warning is of interest; the others tell of metadata.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _require_file(path)
            with Image.open(path) as opened:
                image = _eight_bits(_upright(opened), _full_scale(opened))
            return _over(image, background).convert("RGB" if channels == 3 else "L")
    except Exception as error:  # a damaged file makes decoders raise whatever it is
        raise _unreadable(path, error) from error


def _require_file(path: Path) -> None:
    """Raise an OSError for what is not a regular file: to open a pipe would wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")


def _unreadable(path: Path, error: Exception) -> ImageFileError:
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        reason = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    elif isinstance(error, UnidentifiedImageError):
        reason = "unknown format" if path.stat().st_size else "empty"
    else:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    raised = ImageFileError(f"{str(path)!r} is not a readable image ({reason}); repair or remove it")
    raised.reason = reason
    return raised


def _upright(opened: Image.Image) -> Image.Image:
    """The decoded image, turned as its metadata say; as it is stored where these cannot be read."""
    opened.load()
    try:
        return ImageOps.exif_transpose(opened)
    except Exception:  # damaged metadata of an intact image
        return opened.copy()


def _full_scale(opened: Image.Image) -> int | None:
    """The largest value that a file of grey values can hold; None where the format sets no limit."""
    if opened.mode.startswith("I;16"):
        tags: Mapping[int, Any] = getattr(opened, "tag_v2", {})
        return TWELVE_BITS if tags.get(BITS_PER_SAMPLE) == (12,) else SIXTEEN_BITS
    return SIXTEEN_BITS if opened.mode == "I" and opened.format in ("PNG", "PPM") else None


def _eight_bits(image: Image.Image, full_scale: int | None) -> Image.Image:
    """An image of grey values that have more than 8 bits with 8 bits; any other one as it is."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
        return image
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds values that are not finite")
    if full_scale:
        low, high = 0.0, float(full_scale)
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = Image.fromarray(np.rint((values - low) * (255 / (high - low or 1))).astype(np.uint8))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        return Image.merge("LA", (scaled, Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8))))
    return scaled


def _over(image: Image.Image, background: Sequence[int]) -> Image.Image:
    """The image over a background of one colour; itself where nothing is transparent."""
    if not image.has_transparency_data:
        return image
    red, green, blue = background
    behind = Image.new("RGBA", image.size, (red, green, blue, 255))
    return Image.alpha_composite(behind, image.convert("RGBA"))


def view(image: Image.Image, short: int, size: int) -> Image.Image:
    """The centre, `size` x `size`, of the image whose shorter side was resized to `short` pixels.

    It equals torchvision's `Resize` (bilinear) and `CenterCrop` pixel by pixel, apart from images whose sides differ
    by more than a factor of LONGEST.
    """
    shorter = min(image.size)
    if max(image.size) > LONGEST * shorter:
        image = _centre(image, *(min(side, LONGEST * shorter) for side in image.size))
    width, height = (short if side == shorter else int(short * side / shorter) for side in image.size)
    return _centre(image.resize((width, height), Image.Resampling.BILINEAR), size, size)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def pixels(image: Image.Image) -> Pixels:
    """The values of an RGB or grey image, (C, H, W)."""
    values: Pixels = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    return values


def describe(
    *,
    size: int,
    short: int,
    crop: int,
    mean: Sequence[float],
    sd: Sequence[float],
    background: Sequence[int] = WHITE,
) -> dict[str, Any]:
    """How a file becomes an input, as `Source.preprocessing` has it and `read_inputs` does it.

    Args:
        size: side of an input.
        short: the shorter side of the image is resized to this many pixels.
        crop: side of the square that is kept of its centre; it is resized to `size` where they differ.
        mean: per channel, of values in [0, 1]; subtracted.
        sd: per channel; divided by.
        background: what lies behind transparent pixels.
    """
    return {
        "kind": "image",
        "channels": len(mean),
        "background": list(background),
        "short": short,
        "crop": crop,
        "size": size,
        "mean": list(mean),
        "sd": list(sd),
    }


def read_inputs(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """One image file as the network sees test examples: (1, C, size, size) float32.

    Args:
        path: an image file.
        preprocessing: of a source of images, see `describe`.

    Raises:
        ImageFileError: as `read_image`.
        ValueError: `preprocessing` is not as `describe` makes it.
    """
    _check(preprocessing)
    image = read_image(path, preprocessing["background"], preprocessing["channels"])
    values = torch.from_numpy(pixels(view(image, preprocessing["short"], preprocessing["crop"])).copy())[None]
    return resize(normalise(values, preprocessing["mean"], preprocessing["sd"]), preprocessing["size"])


def _check(preprocessing: Mapping[str, Any]) -> None:
    """Raise a ValueError for sizes that would take all memory, and for channels that no image has."""
    for name in ("short", "crop", "size"):
        if not 1 <= preprocessing[name] <= LARGEST_SIDE:
            raise ValueError(f"{name} must be from 1 to {LARGEST_SIDE}, got {preprocessing[name]}")
    if preprocessing["crop"] > preprocessing["short"]:
        raise ValueError(f"crop must be at most {preprocessing['short']}, got {preprocessing['crop']}")
    channels = {preprocessing["channels"], len(preprocessing["mean"]), len(preprocessing["sd"])}
    if channels not in ({1}, {3}):
        raise ValueError(f"channels must be 1 or 3, as many as mean and sd have, got {preprocessing['channels']}")


def displayed(inputs: Tensor, preprocessing: Mapping[str, Any]) -> Tensor:
    """Inputs (n, C, H, W) as a person sees them: without the normalisation, in [0, 1]."""
    mean, sd = (torch.tensor(preprocessing[name])[:, None, None] for name in ("mean", "sd"))
    return (inputs.cpu() * sd + mean).clamp(0, 1)


def usual_size(tree: Tree) -> int:
    """The side of inputs that follows from the images of a folder.

    It is the median of their shorter sides, of at most SAMPLE training images spread evenly over the list, rounded
    down to a multiple of 8, between 16 and 224. Headers are read, nothing is decoded.
    """
    paths = tree.train.paths
    rows = np.unique(np.linspace(0, len(paths) - 1, SAMPLE).round().astype(np.int64))
    sides = [side for side in (_shorter_side(paths[row]) for row in rows) if side]
    if not sides:
        return UNKNOWN_SIZE
    return max(SMALLEST, min(LARGEST, int(np.median(sides)) // MULTIPLE * MULTIPLE))


def _shorter_side(path: Path) -> int:
    """In pixels; 0 for a file that is no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _require_file(path)
            with Image.open(path) as opened:
                return int(min(opened.size))
    except Exception:  # as in `read_image`
        return 0
