"""ImageNet (Deng et al., 2009) from its usual folders, `root/imagenet/{train,val}/<class>/<image>.JPEG`.

Images are decoded when they are needed, by worker processes. Training images are cropped as by Szegedy et al. (2015)
and flipped (section 3.2). For testing the shorter side is resized to 256 and the centre of 224 x 224 is kept; other
sizes in proportion. Both follow torchvision's transforms pixel by pixel, but every random number is the generator's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anystride.lab.data.augment import normalise
from anystride.lab.data.decoding import usual_workers
from anystride.lab.data.images import describe, pixels, read_image, view
from anystride.lab.data.listing import Listing, Names, find_images, listing
from anystride.lab.data.source import Batch, Source
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

SITE = "https://image-net.org/download.php"
SPLITS = ("train", "val")
PUBLISHED = (1_281_167, 50_000, 1000)
"""Training images, validation images and classes of the set that the paper trains on."""
MEAN = (0.485, 0.456, 0.406)
SD = (0.229, 0.224, 0.225)
AREA = (0.08, 1.0)
"""A crop's share of the image's area, uniform."""
RATIO = (3 / 4, 4 / 3)
"""A crop's width over its height, uniform in the logarithm."""
ATTEMPTS = 10
"""Crops that are drawn before the centre is taken, for an image too narrow to hold one of them."""
DRAWS = 4 * ATTEMPTS + 1
"""Random numbers per image, however many its shape needs: what follows in the batch does not depend on it."""
TEST_RESIZE = 256 / 224
TEST_ROWS = 250

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are excluded."""


class ImageNet(Source):
    """Images in two folders of class folders, decoded when a batch is made, always on the CPU."""

    def __init__(self, train: Listing, test: Listing, image_size: int, workers: int, augment: str = "auto") -> None:
        self.train, self.test, self.image_size, self.workers = train, test, image_size, workers
        self.augment = augment
        self.heads = {"class": train.classes}
        self.train_length, self.test_length, self.test_rows = len(train), len(test), TEST_ROWS
        self.train_labels = train.labels
        self.counts = counts_line(len(train), len(test), len(train.classes))
        short = round(image_size * TEST_RESIZE)
        self.preprocessing = describe(size=image_size, short=short, crop=image_size, mean=MEAN, sd=SD)
        self.example, _ = self.test_batch(torch.tensor([0]))

    def to(self, device: torch.device) -> ImageNet:
        """This source itself: its batches are made on the CPU whatever the device, and the trainer moves them."""
        return self

    def train_batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        if self.augment == "none":
            return self.plain_batch(rows)
        draws = torch.rand(len(rows), DRAWS, generator=generator, dtype=torch.float64).tolist()
        images = [
            training_view(read_image(self.train.path(row)), self.image_size, numbers, mirror=self.augment == "auto")
            for row, numbers in zip(rows.tolist(), draws, strict=True)
        ]
        return _stack(images), self.train.labels[rows]

    def test_batch(self, rows: Tensor) -> Batch:
        return self._plain(self.test, rows)

    def plain_batch(self, rows: Tensor) -> Batch:
        return self._plain(self.train, rows)

    def _plain(self, split: Listing, rows: Tensor) -> Batch:
        images = [testing_view(read_image(split.path(row)), self.image_size) for row in rows.tolist()]
        return _stack(images), split.labels[rows]


def open_imagenet(config: RunConfig, root: Path, download: bool) -> Source:
    """ImageNet from `root / "imagenet"` in images of `config.image_size`; any set with these folders is taken.

    It cannot be downloaded without an account. Raises UsageError for a split that is missing, class folders that are
    missing or empty, and validation classes that are not trained on. A file that cannot be decoded raises one that
    names it when its turn comes: a truncated one only shows when it is decoded, and to decode them all costs an epoch.
    """
    folder = root / "imagenet"
    for split in SPLITS:
        if not (folder / split).is_dir():
            remedy = f"get it from {SITE} (it needs an account{', so --download cannot' if download else ''})"
            raise UsageError(
                f"--data imagenet is read from {str(folder)!r}, and {split}/ is missing there; {remedy} "
                "and unpack it into train/<class>/ and val/<class>/"
            )
    train, test = (find_images(folder / split) for split in SPLITS)
    _check(train, test, folder)
    classes = tuple(train)
    parts = listing(folder / "train", train, classes), listing(folder / "val", test, classes)
    return ImageNet(*parts, config.image_size, usual_workers(), config.augment)


def _check(train: Names, test: Names, folder: Path) -> None:
    for split, names in zip(SPLITS, (train, test), strict=True):
        if not names:
            raise UsageError(
                f"--data imagenet finds no class folder in {str(folder / split)!r}: sort its images into "
                f"{split}/<class>/, as in {split}/n01440764/"
            )
    if len(train) < 2:
        raise UsageError(f"--data imagenet needs at least two classes, and {str(folder / 'train')!r} has 1")
    unknown = sorted(set(test) - set(train))
    if unknown:
        shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise UsageError(f"--data imagenet has classes in val/ that train/ lacks: {shown}; add or remove them")
    for split, names in zip(SPLITS, (train, test), strict=True):
        empty = next((name for name in train if not names.get(name)), None)
        if empty:
            raise UsageError(f"--data imagenet has no image of class {empty!r}: add some to {str(folder / split)!r}")


def counts_line(train: int, test: int, classes: int) -> str:
    found = f"imagenet: {train:,} training and {test:,} validation images, {classes:,} classes"
    if (train, test, classes) == PUBLISHED:
        return f"{found}, as published"
    return f"{found}; as published it has {PUBLISHED[0]:,}, {PUBLISHED[1]:,} and {PUBLISHED[2]:,}"


def training_view(image: Image.Image, size: int, draws: Sequence[float], mirror: bool = True) -> Image.Image:
    """A random crop, resized to `size` x `size`; with `mirror` half of them flipped; `draws` (DRAWS,) in [0, 1)."""
    crop = image.crop(random_box(image.width, image.height, draws)).resize((size, size), Image.Resampling.BILINEAR)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror and draws[-1] < 0.5 else crop


def random_box(width: int, height: int, draws: Sequence[float]) -> Box:
    """The crop of Szegedy et al. (2015), section 6, as torchvision's RandomResizedCrop draws it.

    The first of ATTEMPTS boxes that fits; none fits an image that is very long, whose centre is taken then, as much
    of it as RATIO allows.
    """
    low, high = (math.log(ratio) for ratio in RATIO)
    for first in range(0, 4 * ATTEMPTS, 4):
        share, shape, across, down = draws[first : first + 4]
        area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * share)
        ratio = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return _box(int(across * (width - w + 1)), int(down * (height - h + 1)), w, h)
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return _box((width - w) // 2, (height - h) // 2, w, h)


def testing_view(image: Image.Image, size: int) -> Image.Image:
    """The centre, `size` x `size`, of the image whose shorter side was resized to 256 / 224 of it."""
    return view(image, round(size * TEST_RESIZE), size)


def _box(left: int, top: int, width: int, height: int) -> Box:
    return left, top, left + width, top + height


def _stack(images: Sequence[Image.Image]) -> Tensor:
    return normalise(torch.from_numpy(np.stack([pixels(image) for image in images])), MEAN, SD)
