"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from their binary version: plain bytes, no pickle.

50,000 training and 10,000 test images of 32 x 32 in RGB (section 3.2). The whole set lies in the device's memory as
uint8 (184 MB) and is augmented, normalised and resized there, batch by batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anystride.lab.data.archive import sweep_unpacking, unpack
from anystride.lab.data.augment import augmentation, normalise, resize
from anystride.lab.data.download import Remote, fetch
from anystride.lab.data.images import describe
from anystride.lab.data.locks import alone
from anystride.lab.data.source import Source, TensorSource
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

HOST = "https://www.cs.toronto.edu/~kriz/"
SIDE = 32
CHANNELS = 3
PIXELS = CHANNELS * SIDE * SIDE


@dataclass(frozen=True)
class Layout:
    """How one of the two sets is stored: its archive, the folder in it, and the number of records of each file.

    A record is `label_bytes` labels of one byte each, the last of which is the class, and the red, the green and
    the blue pixels in rows. `mean` and `sd` are those of the training set's channels, in [0, 1].
    """

    archive: str
    md5: str
    folder: str
    train: dict[str, int]
    test: dict[str, int]
    names: str
    classes: int
    label_bytes: int
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]

    @property
    def record(self) -> int:
        """The bytes of one record."""
        return self.label_bytes + PIXELS


LAYOUTS = {
    "cifar10": Layout(
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        train={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
        test={"test_batch.bin": 10_000},
        names="batches.meta.txt",
        classes=10,
        label_bytes=1,
        mean=(0.4914, 0.4822, 0.4465),
        sd=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": Layout(
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        train={"train.bin": 50_000},
        test={"test.bin": 10_000},
        names="fine_label_names.txt",
        classes=100,
        label_bytes=2,  # one of 20 coarse classes, which nothing here uses, and one of the 100 fine ones
        mean=(0.5071, 0.4865, 0.4409),
        sd=(0.2673, 0.2564, 0.2762),
    ),
}


def open_cifar(config: RunConfig, root: Path, download: bool) -> Source:
    """The set that `config.data` names, from `root / config.data`, in images of `config.image_size`.

    With `download` a set that is absent or incomplete is fetched first. Raises UsageError for a set that is absent,
    a file of the wrong size, and a label or a list of classes that cannot be.
    """
    layout = LAYOUTS[config.data]
    folder = root / config.data / layout.folder
    fault = _fault(layout, folder)
    if fault and download:
        _download(layout, folder.parent)
        fault = _fault(layout, folder)
    if fault:
        raise UsageError(
            f"--data {config.data} is read from {str(folder)!r}, and {fault}; add --download, or unpack "
            f"{HOST}{layout.archive} in {str(folder.parent)!r}"
        )
    classes = _classes(layout, folder)
    source = TensorSource(
        *_read(layout, folder, layout.train),
        *_read(layout, folder, layout.test),
        classes,
        prepare=partial(_prepare, mean=layout.mean, sd=layout.sd, size=config.image_size),
        augment=augmentation(config.augment),
        preprocessing=describe(size=config.image_size, short=SIDE, crop=SIDE, mean=layout.mean, sd=layout.sd),
    )
    source.counts = f"{config.data}: {source.counts}"
    return source


def _download(layout: Layout, folder: Path) -> None:
    """Fetch and unpack the archive; it is not kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            sweep_unpacking(folder)
            archive = fetch(Remote(HOST + layout.archive, f"md5:{layout.md5}"), folder)
            unpack(archive, folder)
            archive.unlink()
    except OSError as error:
        raise UsageError(f"--root must be a folder that can be written to: {error}") from error


def _prepare(images: Tensor, mean: tuple[float, ...], sd: tuple[float, ...], size: int) -> Tensor:
    return resize(normalise(images, mean, sd), size)


def _fault(layout: Layout, folder: Path) -> str | None:
    """The first thing that is wrong with the files, None if they are complete."""
    if not folder.is_dir():
        return "there is no such folder"
    for name in (*layout.train, *layout.test, layout.names):
        if not (folder / name).is_file():
            return f"{name} is missing"
    for name, records in {**layout.train, **layout.test}.items():
        found, expected = (folder / name).stat().st_size, records * layout.record
        if found != expected:
            return f"{name} has {found:,} bytes instead of {expected:,}"
    return None


def _classes(layout: Layout, folder: Path) -> tuple[str, ...]:
    path = folder / layout.names
    names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
    if len(set(names)) != layout.classes:
        raise UsageError(
            f"{str(path)!r} must name {layout.classes} classes and names {len(set(names))}: "
            "remove it and run again with --download"
        )
    return names


def _read(layout: Layout, folder: Path, files: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) uint8 and labels (n,) int64 of all files in their order."""
    records = np.concatenate([_records(layout, folder / name) for name in files])
    images = np.ascontiguousarray(records[:, layout.label_bytes :]).reshape(-1, CHANNELS, SIDE, SIDE)
    return torch.from_numpy(images), torch.from_numpy(records[:, layout.label_bytes - 1].astype(np.int64))


def _records(layout: Layout, path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, layout.record)
    largest = int(records[:, layout.label_bytes - 1].max())
    if largest >= layout.classes:
        raise UsageError(
            f"{str(path)!r} holds the label {largest}, and the last of {layout.classes} classes is "
            f"{layout.classes - 1}: remove it and run again with --download"
        )
    return records
