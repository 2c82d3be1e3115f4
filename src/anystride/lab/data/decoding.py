"""All image files of a folder, decoded once by several processes: pixels, statistics, and which files are damaged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anystride.lab.data.images import ImageFileError, Pixels, pixels, read_image, view
from anystride.lab.data.meter import progress
from anystride.lab.data.tree import Bad
from anystride.lab.errors import UsageError
from anystride.lab.machine import processors

CHUNK = 32
"""Files that a process decodes before it hands them over."""
MANY = 256
"""Files from which on other processes help: to start them takes longer than to decode a few images."""
MOST_WORKERS = 8

Names = npt.NDArray[np.bytes_]
Integers = npt.NDArray[np.int64]


def usual_workers() -> int:
    """How many processes decode images."""
    return min(MOST_WORKERS, processors())


def encoded(paths: Sequence[Path]) -> Names:
    """Paths as one array of bytes. A list would be copied into every worker: counting references writes to it."""
    return np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)


def decoded(name: np.bytes_) -> Path:
    """The path that `encoded` made bytes of."""
    return Path(os.fsdecode(bytes(name)))


def square(path: Path, size: int) -> Image.Image:
    """The centre of an image file, `size` x `size` in RGB, its shorter side resized to `size`."""
    return view(read_image(path), size, size)


@dataclass(frozen=True)
class Decoded:
    """What all files gave.

    Args:
        good: whether each file could be read, (n,) bool.
        images: of those, (good, 3, size, size) uint8; None where they were not to be kept.
        sums: of the values and of their squares, for each image that could be read, (good, 2, 3) int64.
        bad: the other files.
    """

    good: Tensor
    images: Tensor | None
    sums: Integers
    bad: Bad


class _Chunk(NamedTuple):
    images: Pixels
    sums: Integers
    faults: list[tuple[int, str]]


class _Chunks(Dataset[_Chunk]):
    """The images of CHUNK files by the row of the first one."""

    def __init__(self, names: Names, size: int, keep: bool) -> None:
        self.names, self.size, self.keep = names, size, keep

    def __getitem__(self, first: int) -> _Chunk:
        images, sums, faults = [], [], []
        for row, name in enumerate(self.names[first : first + CHUNK], start=first):
            try:
                image = square(decoded(name), self.size)
            except ImageFileError as error:
                faults.append((row, error.reason))
                continue
            sums.append(_sums(image))
            if self.keep:
                images.append(pixels(image))
        shape = (len(images), 3, self.size, self.size)
        return _Chunk(np.array(images, np.uint8).reshape(shape), np.array(sums, np.int64).reshape(-1, 2, 3), faults)


def _sums(image: Image.Image) -> Integers:
    """The sums of the values and of their squares of each channel, (2, 3), by histograms: ten times as fast."""
    counts = np.array(image.histogram()).reshape(3, 256)
    values = np.arange(256)
    return np.stack([counts @ values, counts @ values**2])


def _unchanged(chunk: Any) -> Any:
    """In place of the loader's conversion to tensors, which would need shared memory: containers have little."""
    return chunk


def decode_all(paths: Sequence[Path], size: int, keep: bool) -> Decoded:
    """Decode all files to squares of `size` pixels, with a bar on a terminal.

    Args:
        paths: of image files.
        size: side of the squares.
        keep: whether the images are given back.

    Raises:
        UsageError: a process that decodes was ended from outside, as where memory runs out.
    """
    images = torch.empty((len(paths) if keep else 0, 3, size, size), dtype=torch.uint8)
    good = torch.ones(len(paths), dtype=torch.bool)
    sums: list[Integers] = []
    bad: Bad = []
    workers = usual_workers() if len(paths) >= MANY else 0
    chunks = _Chunks(encoded(paths), size, keep)
    rows = range(0, len(paths), CHUNK)
    loader = DataLoader(chunks, batch_size=None, sampler=rows, num_workers=workers, collate_fn=_unchanged)
    filled = 0
    try:
        batches = iter(loader)  # starts the processes, before the bar starts its thread
        with progress("reading images", len(paths)) as advance:
            for chunk in batches:
                images[filled : filled + len(chunk.images)] = torch.from_numpy(chunk.images)
                filled += len(chunk.images)
                sums.append(chunk.sums)
                for row, reason in chunk.faults:
                    good[row] = False
                    bad.append((paths[row], reason))
                advance(len(chunk.sums) + len(chunk.faults))
    except RuntimeError as error:
        raise UsageError(f"--data: a process that reads images ended too early ({error}); is memory short?") from error
    return Decoded(good, images[:filled] if keep else None, np.concatenate(sums), bad)
