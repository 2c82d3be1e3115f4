"""A folder of images as a source: in memory where there is room, otherwise decoded for each batch.

Each image is a square of `image_size` pixels: the shorter side is resized, the centre is kept. Training images are
cropped out of this square, and test images are this square. Both ways to keep them give the same inputs, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anystride.lab.data.augment import augmentation, normalise
from anystride.lab.data.decoding import Decoded, Integers, Names, decode_all, decoded, encoded, square, usual_workers
from anystride.lab.data.images import describe, pixels
from anystride.lab.data.source import Batch, Source
from anystride.lab.data.tree import Files, Tree, read_tree, refuse
from anystride.lab.errors import UsageError
from anystride.lab.machine import machine_memory
from anystride.lab.run.config import RunConfig

CHANNELS = 3
MEMORY_SHARE = 0.25
"""Of the machine's memory that the images may take; beyond that they are read from the disk for each batch."""
DEVICE_SHARE = 0.5
"""Of a GPU's free memory that the images may take; beyond that they stay in the machine's."""
LEAST_SD = 1 / 255
"""Of a channel of [0, 1] that hardly varies: it is divided by this."""


@dataclass(frozen=True)
class Part:
    """The files of one part, their `labels` (n,) int64, and their `images` (n, 3, S, S) uint8 where these are kept."""

    names: Names
    labels: Tensor
    images: Tensor | None


class ImageSource(Source):
    """Images of a folder.

    Args:
        classes: their names.
        parts: "train", "test", and "validation" where the folder has it.
        size: side of an input.
        mean: per channel, of training images in [0, 1].
        sd: per channel.
        augment: as in `RunConfig`.
    """

    def __init__(
        self,
        classes: Sequence[str],
        parts: dict[str, Part],
        size: int,
        mean: Sequence[float],
        sd: Sequence[float],
        augment: str,
    ) -> None:
        self.heads = {"class": tuple(classes)}
        self.parts, self.size, self.mean, self.sd = parts, size, mean, sd
        self.augment = augmentation(augment)
        self.train_length, self.test_length = len(parts["train"].labels), len(parts["test"].labels)
        self.validation_length = len(parts["validation"].labels) if "validation" in parts else 0
        self.train_labels = parts["train"].labels
        self.in_memory = parts["train"].images is not None
        self.workers = 0 if self.in_memory else usual_workers()
        self.preprocessing = describe(size=size, short=size, crop=size, mean=mean, sd=sd)
        self.counts = _counts(self)
        self.example, _ = self.test_batch(torch.tensor([0]))

    def to(self, device: torch.device) -> ImageSource:
        """The same source on `device`; itself where worker processes decode its images, which they do on the CPU."""
        if not self.in_memory:
            return self
        moved = super().to(device)
        images = [part.images for part in self.parts.values() if part.images is not None]
        if sum(each.numel() for each in images) <= DEVICE_SHARE * room_on(device):
            there = [each.to(device) for each in images]
            named = zip(self.parts.items(), there, strict=True)
            moved.parts = {name: replace(part, images=each) for (name, part), each in named}
        return moved

    def train_batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        images = self._squares(self.parts["train"], rows)
        if self.augment is not None:
            images = self.augment(images, generator)
        return normalise(images, self.mean, self.sd), self.train_labels[rows].to(self.device)

    def plain_batch(self, rows: Tensor) -> Batch:
        return self._plain("train", rows)

    def validation_batch(self, rows: Tensor) -> Batch:
        return self._plain("validation", rows)

    def test_batch(self, rows: Tensor) -> Batch:
        return self._plain("test", rows)

    def _plain(self, name: str, rows: Tensor) -> Batch:
        part = self.parts[name]
        return normalise(self._squares(part, rows), self.mean, self.sd), part.labels[rows].to(self.device)

    def _squares(self, part: Part, rows: Tensor) -> Tensor:
        """The images of a part, (n, 3, S, S) uint8."""
        if part.images is not None:
            return part.images[rows.to(part.images.device)].to(self.device)
        paths = [decoded(part.names[row]) for row in rows.tolist()]
        return torch.from_numpy(np.stack([pixels(square(path, self.size)) for path in paths]))


def folder_task(config: RunConfig) -> Source:
    """The images of the folder `config.data`, laid out as `tree.read_tree` says, in `config.image_size`.

    All files are decoded once. Inputs are normalised by the mean and the standard deviation of each channel, over all
    training images as they are seen in tests. The test images are the same for every seed.

    Raises:
        UsageError: as `read_tree`; files that cannot be read, all in one error, unless `config.skip_bad` leaves them
            out; a class none of whose files can be read.
    """
    tree = read_tree(Path(config.data), "image", config.label_pattern)
    files = {"train": tree.train, "test": tree.test}
    files.update({"validation": tree.validation} if tree.validation else {})
    paths = [path for part in files.values() for path in part.paths]
    needed = len(paths) * CHANNELS * config.image_size**2
    found = decode_all(paths, config.image_size, keep=needed <= MEMORY_SHARE * machine_memory())
    bad = sorted([*tree.bad, *found.bad])
    refuse(bad, "image", config.skip_bad)
    parts = _parts(files, found)
    _require_classes(tree, parts)
    mean, sd = _mean_and_sd(found.sums[: len(parts["train"].labels)], config.image_size**2)
    source = ImageSource(tree.classes, parts, config.image_size, mean, sd, config.augment)
    if bad:
        source.counts += f"; {len(bad):,} unreadable {'image' if len(bad) == 1 else 'images'} left out"
    source.counts += tree.passed_over
    return source


def room_on(device: torch.device) -> float:
    """Bytes that are free on a GPU; no limit elsewhere."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def _parts(files: dict[str, Files], found: Decoded) -> dict[str, Part]:
    """The files that could be read, with their images."""
    parts, listed, filled = {}, 0, 0
    for name, part in files.items():
        good = found.good[listed : listed + len(part)]
        count = int(good.sum())
        images = None if found.images is None else found.images[filled : filled + count]
        paths = [path for path, kept in zip(part.paths, good.tolist(), strict=True) if kept]
        parts[name] = Part(encoded(paths), part.labels[good], images)
        listed, filled = listed + len(part), filled + count
    return parts


def _require_classes(tree: Tree, parts: dict[str, Part]) -> None:
    for name, part in parts.items():
        there = set(part.labels.tolist())
        for label, named in enumerate(tree.classes):
            if label not in there:
                kind = {"train": "training"}.get(name, name)
                raise UsageError(
                    f"--data has no {kind} image of class {named!r} that can be read: add some, or remove the class"
                )


def _mean_and_sd(sums: Integers, area: int) -> tuple[list[float], list[float]]:
    """Of each channel in [0, 1], from the sums of images of `area` pixels, (n, 2, 3): four digits after the point."""
    mean, square_mean = sums.sum(axis=0) / (len(sums) * area) / [[255], [255**2]]
    sd = np.sqrt(np.maximum(square_mean - mean**2, LEAST_SD**2))
    return [round(float(value), 4) for value in mean], [round(float(value), 4) for value in sd]


def _counts(source: ImageSource) -> str:
    set_aside = f", {source.validation_length:,} validation" if source.validation_length else ""
    found = f"{source.train_length:,} training{set_aside} and {source.test_length:,} test images"
    where = "" if source.in_memory else "; too many for the memory, they are read again for each batch"
    return f"{found}, {len(source.classes)} classes, {source.size}x{source.size}{where}"
