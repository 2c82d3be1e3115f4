"""A folder of images laid out by class, `<class>/<image>`, or two of them named `train` and `test` or `val`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.model_selection import train_test_split
from torch import Tensor

from anystride.lab.data.source import TensorSource
from anystride.lab.errors import UsageError

TEST_SHARE = 0.2
TEST_FOLDERS = ("test", "val")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")

Labelled = list[tuple[Path, int]]


def folder_task(folder: Path, image_size: int, seed: int) -> TensorSource:
    """Read every image into memory as RGB of `image_size` x `image_size`.

    With a `train/` folder the test images come from `test/` or `val/`; without one, a fifth of the images is
    split off, stratified by class, by the seed.

    Raises UsageError for a folder that is missing, has no classes, has a class without images, or holds a file that
    cannot be read as an image: before any training starts.
    """
    if not folder.is_dir():
        raise UsageError(f"--data must be 'scenes' or a folder of images, and {str(folder)!r} is neither")
    if (folder / "train").is_dir():
        test_folder = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)
        if test_folder is None:
            raise UsageError(f"--data {str(folder)!r} has train/ but neither test/ nor val/; add one of them")
        classes = _classes(folder / "train")
        train = _files(folder / "train", classes)
        test = _files(test_folder, classes)
        unknown = set(_classes(test_folder)) - set(classes)
        if unknown:
            raise UsageError(
                f"--data has classes in {test_folder.name}/ that train/ lacks: {', '.join(sorted(unknown))}"
            )
    else:
        classes = _classes(folder)
        train, test = _split(_files(folder, classes), classes, seed)
    return TensorSource(*_read(train, image_size), *_read(test, image_size), classes)


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if len(classes) < 2:
        raise UsageError(f"--data needs at least two classes, one folder each, and {str(folder)!r} has {len(classes)}")
    return classes


def _files(folder: Path, classes: tuple[str, ...]) -> Labelled:
    found: Labelled = []
    for label, name in enumerate(classes):
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise UsageError(f"--data has no image of class {name!r}: add some to {str(folder / name)!r}")
        found += [(path, label) for path in files]
    return found


def _split(files: Labelled, classes: tuple[str, ...], seed: int) -> tuple[Labelled, Labelled]:
    labels = [label for _, label in files]
    scarce = [classes[label] for label in range(len(classes)) if labels.count(label) < 2]
    if scarce:
        raise UsageError(
            f"--data needs at least two images per class to split off a test set, class {scarce[0]!r} has 1"
        )
    test_size = max(len(classes), round(TEST_SHARE * len(files)))
    train, test = train_test_split(np.arange(len(files)), test_size=test_size, stratify=labels, random_state=seed)
    return [files[i] for i in np.sort(train)], [files[i] for i in np.sort(test)]


def _read(files: Labelled, image_size: int) -> tuple[Tensor, Tensor]:
    images = torch.stack([_read_image(path, image_size) for path, _ in files])
    return images, torch.tensor([label for _, label in files])


def _read_image(path: Path, image_size: int) -> Tensor:
    """One image (3, image_size, image_size) in [0, 1]: the shorter side is resized, the centre is kept."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.fit(opened.convert("RGB"), (image_size, image_size))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UsageError(
            f"--data holds a file that is not a readable image: {str(path)!r}; repair or remove it"
        ) from error
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)
