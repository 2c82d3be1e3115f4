"""Scikit-learn's handwritten digits as scenes: one whole 8x8 digit among fragments of others, on a 32x32 canvas.

Real handwriting, inside a dependency, nothing to download. The class of a scene is its whole digit, which keeps its
full resolution of 8x8 pixels somewhere on the canvas: whoever downsamples carelessly loses it among the fragments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from anystride.lab.data.augment import crop, resize
from anystride.lab.data.images import describe
from anystride.lab.data.source import TensorSource

Split = Literal["train", "test"]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

CANVAS = 32
DIGIT = 8
CLASSES = tuple(str(digit) for digit in range(10))
FRAGMENTS = 6
FRAGMENT_SIDES = (3, 5)
"""A fragment is a random rectangle cut from a digit; each side is drawn from this range, both ends included."""
MARGIN = 1
"""Pixels around the whole digit that stay free of fragments."""
TEST_SHARE = 0.3
SPLIT_SEED = 0
"""The split of the digits never changes, whatever the seed of a run."""


@dataclass(frozen=True)
class Scenes:
    """`images` (n, 1, 32, 32) float32 in [0, 1]; `labels` (n,) int64; `digits` (n, 1 + FRAGMENTS) int64, the
    rows of scikit-learn's data set that a scene shows, the whole digit first."""

    images: Tensor
    labels: Tensor
    digits: Tensor


def make_scenes(split: Split, n: int, seed: int) -> Scenes:
    """Draw `n` scenes of one split; the same arguments give the same scenes, bit for bit, on any machine."""
    pixels, _ = _digits()
    rng = np.random.default_rng([seed, ("train", "test").index(split)])

    labels = rng.integers(len(CLASSES), size=n)
    fragment_classes = (labels[:, None] + rng.integers(1, len(CLASSES), size=(n, FRAGMENTS))) % len(CLASSES)
    whole = _draw(rng, split, labels)
    fragments = _draw(rng, split, fragment_classes)

    canvas = np.zeros((n, CANVAS, CANVAS), dtype=np.float32)
    for column in range(FRAGMENTS):
        corner = rng.integers(CANVAS - DIGIT + 1, size=(n, 2))
        at = _squares(corner, DIGIT)
        canvas[at] = np.maximum(canvas[at], pixels[fragments[:, column]] * _rectangles(rng, n))
    # The whole digit is drawn last, on a cleared square: nothing covers it or touches it.
    corner = rng.integers(MARGIN, CANVAS - DIGIT - MARGIN + 1, size=(n, 2))
    canvas[_squares(corner - MARGIN, DIGIT + 2 * MARGIN)] = 0
    canvas[_squares(corner, DIGIT)] = pixels[whole]

    shown = np.concatenate([whole[:, None], fragments], axis=1)
    return Scenes(torch.from_numpy(canvas[:, None]), torch.from_numpy(labels), torch.from_numpy(shown))


@cache
def _digits() -> tuple[Floats, Integers]:
    """All digits, (1797, 8, 8) in [0, 1], and their classes, (1797,)."""
    data = load_digits()
    return (data.images / 16).astype(np.float32), data.target.astype(np.int64)


@cache
def digits_of(split: Split) -> Integers:
    """The rows of scikit-learn's data set that belong to a split: stratified, disjoint, the same in every run."""
    _, classes = _digits()
    train, test = train_test_split(
        np.arange(len(classes)), test_size=TEST_SHARE, stratify=classes, random_state=SPLIT_SEED
    )
    rows: Integers = np.sort(train if split == "train" else test)
    return rows


def _draw(rng: np.random.Generator, split: Split, classes: Integers) -> Integers:
    """One random digit of the split for each entry of `classes`: rows of the data set, same shape."""
    _, class_of = _digits()
    rows = digits_of(split)
    rows = rows[np.argsort(class_of[rows], kind="stable")]
    counts = np.bincount(class_of[rows], minlength=len(CLASSES))
    starts = np.cumsum(counts) - counts
    chosen: Integers = rows[starts[classes] + rng.integers(counts[classes])]
    return chosen


def _rectangles(rng: np.random.Generator, n: int) -> Floats:
    """Masks (n, 8, 8): one inside a random rectangle, zero elsewhere."""
    low, high = FRAGMENT_SIDES
    sides = rng.integers(low, high + 1, size=(n, 2))
    first = rng.integers(DIGIT + 1 - sides)
    position = np.arange(DIGIT)
    inside = (position >= first[..., None]) & (position < (first + sides)[..., None])
    return (inside[:, 0, :, None] & inside[:, 1, None, :]).astype(np.float32)


def _squares(corners: Integers, side: int) -> tuple[Integers, Integers, Integers]:
    """The index of one square of each canvas, from its top left `corners` (n, 2) in rows and columns."""
    offset = np.arange(side)
    rows = corners[:, 0, None, None] + offset[:, None]
    columns = corners[:, 1, None, None] + offset
    return np.arange(len(corners))[:, None, None], rows, columns


def scene_task(
    train_size: int, test_size: int, seed: int, image_size: int = CANVAS, augment: str = "auto"
) -> TensorSource:
    """The scenes of one run: fixed sets that follow from the seed, from two disjoint sets of digits.

    They are drawn at 32x32 and resized on the device where another `image_size` is asked for. "auto" does nothing to
    training scenes, "crop" shifts them: a digit has no mirror image.
    """
    train, test = make_scenes("train", train_size, seed), make_scenes("test", test_size, seed)
    return TensorSource(
        train.images,
        train.labels,
        test.images,
        test.labels,
        CLASSES,
        task="digit",
        prepare=None if image_size == CANVAS else partial(resize, size=image_size),
        augment=crop if augment == "crop" else None,
        preprocessing=describe(
            size=image_size, short=CANVAS, crop=CANVAS, mean=(0.0,), sd=(1.0,), background=(0, 0, 0)
        ),
    )
