"""Scikit-learn's handwritten digits as scenes: one whole 8x8 digit among fragments of others, on a 32x32 canvas.

Real handwriting, inside a dependency, nothing to download. The class of a scene is its whole digit, which keeps its
full resolution of 8x8 pixels somewhere on the canvas: whoever downsamples carelessly loses it among the fragments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import interpolate

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
    rows of scikit-learn's data set that a scene shows, the whole digit first; `masks` (n, 1, 32, 32) bool, the pixels
    of the whole digit that are not black; `scales` (n,) int64, how many times as large as it is the digit is shown."""

    images: Tensor
    labels: Tensor
    digits: Tensor
    masks: Tensor
    scales: Tensor


def make_scenes(split: Split, n: int, seed: int, scales: Sequence[int] = (1,)) -> Scenes:
    """Draw `n` scenes of one split; the same arguments give the same scenes, bit for bit, on any machine.

    Each digit and each fragment is shown at one of the `scales`: 2 is twice as large, with smooth edges.
    """
    rng = np.random.default_rng([seed, ("train", "test").index(split)])

    labels = rng.integers(len(CLASSES), size=n)
    fragment_classes = (labels[:, None] + rng.integers(1, len(CLASSES), size=(n, FRAGMENTS))) % len(CLASSES)
    whole = _draw(rng, split, labels)
    fragments = _draw(rng, split, fragment_classes)

    # A stream of its own: scenes of one scale do not depend on it.
    chosen = np.random.default_rng([seed, ("train", "test").index(split), 1]).choice(scales, size=(n, 1 + FRAGMENTS))
    canvas = np.zeros((n, CANVAS, CANVAS), dtype=np.float32)
    masks = np.zeros(canvas.shape, dtype=bool)
    for column in range(FRAGMENTS):
        corner = rng.integers(CANVAS - DIGIT * chosen[:, 1 + column, None] + 1, size=(n, 2))
        inside = _rectangles(rng, n)
        for scale in scales:
            these = chosen[:, 1 + column] == scale
            at = _squares(corner, DIGIT * scale, these)
            part = np.kron(inside[these], np.ones((1, scale, scale), dtype=np.float32))
            canvas[at] = np.maximum(canvas[at], _enlarged(scale)[fragments[these, column]] * part)
    # The whole digit is drawn last, on a cleared square: nothing covers it or touches it.
    corner = rng.integers(MARGIN, CANVAS - DIGIT * chosen[:, :1] - MARGIN + 1, size=(n, 2))
    for scale in scales:
        these = chosen[:, 0] == scale
        canvas[_squares(corner - MARGIN, DIGIT * scale + 2 * MARGIN, these)] = 0
        at, pixels = _squares(corner, DIGIT * scale, these), _enlarged(scale)[whole[these]]
        canvas[at], masks[at] = pixels, pixels > 0

    shown = np.concatenate([whole[:, None], fragments], axis=1)
    found = canvas[:, None], labels, shown, masks[:, None], chosen[:, 0].astype(np.int64)
    return Scenes(*map(torch.from_numpy, found))


@cache
def _digits() -> tuple[Floats, Integers]:
    """All digits, (1797, 8, 8) in [0, 1], and their classes, (1797,)."""
    data = load_digits()
    return (data.images / 16).astype(np.float32), data.target.astype(np.int64)


@cache
def _enlarged(scale: int) -> Floats:
    """All digits at a scale, (1797, 8 scale, 8 scale) in [0, 1]."""
    pixels, _ = _digits()
    if scale == 1:
        return pixels
    larger = interpolate(torch.from_numpy(pixels)[:, None], scale_factor=scale, mode="bilinear")
    return larger[:, 0].numpy()


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


def _squares(corners: Integers, side: int, these: npt.NDArray[np.bool_]) -> tuple[Integers, Integers, Integers]:
    """The index of one square of each of `these` canvases, from top left `corners` (n, 2) in rows and columns."""
    offset = np.arange(side)
    rows = corners[these, 0, None, None] + offset[:, None]
    columns = corners[these, 1, None, None] + offset
    return these.nonzero()[0][:, None, None], rows, columns


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
