"""Facts about each data set, for estimates before a download: shapes, counts and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from anystride.lab.data.names import CIFAR_JPEG
from anystride.lab.run.config import RunConfig

GB = 10**9
SPECTROGRAM = (1, 98, 64)
"""One second: frames of 25 ms every 10 ms, and 64 mel bands (section 3.1)."""


@dataclass(frozen=True)
class DatasetFacts:
    """Facts about one task.

    Args:
        shape: (C, H, W) of an input.
        classes: number of classes.
        train: number of training examples.
        folder: name of the folder on the disk; tasks with the same folder share it.
        disk: bytes on the disk, unpacked.
    """

    shape: tuple[int, int, int]
    classes: int
    train: int
    folder: str
    disk: int


_SOUND = {
    # Counts are Table A.1's; sizes follow from the recordings' number, length and format.
    "tut-urban-2018": DatasetFacts(SPECTROGRAM, 10, 7_829, "tut-urban-2018", 25 * GB),
    "dcase-2018-birds": DatasetFacts(SPECTROGRAM, 2, 32_129, "dcase-2018-birds", 31 * GB),
    "nsynth-instrument": DatasetFacts(SPECTROGRAM, 11, 289_205, "nsynth", 39 * GB),
    "nsynth-pitch": DatasetFacts(SPECTROGRAM, 128, 289_205, "nsynth", 39 * GB),
    "spoken-digits": DatasetFacts(SPECTROGRAM, 10, 2_700, "spoken-digits", 60 * 10**6),
    "spoken-digits-speaker": DatasetFacts(SPECTROGRAM, 6, 2_700, "spoken-digits", 60 * 10**6),
    "speech-commands": DatasetFacts(SPECTROGRAM, 35, 84_771, "speech-commands", 4 * GB),
}


def dataset_facts(name: str, run: RunConfig) -> DatasetFacts:
    """The facts about a data set or task, as `run` uses it.

    Raises:
        ValueError: nothing is known about it.
    """
    side = run.image_size
    if name in _SOUND:
        return _SOUND[name]
    if name in ("notes-instrument", "notes-pitch"):
        # The stand-in's classes are few; their number moves the last layer only.
        return DatasetFacts(SPECTROGRAM, 12, run.train_size, "notes", 0)
    known = {
        "scenes": DatasetFacts((1, side, side), 10, run.train_size, "scenes", 0),
        "cifar10": DatasetFacts((3, side, side), 10, 50_000, "cifar10", 184 * 10**6),
        "cifar100": DatasetFacts((3, side, side), 100, 50_000, "cifar100", 185 * 10**6),
        CIFAR_JPEG: DatasetFacts((3, side, side), 10, 50_000, CIFAR_JPEG, 250 * 10**6),
        "imagenet": DatasetFacts((3, side, side), 1000, 1_281_167, "imagenet", 145 * GB),
    }
    if Path(name).is_dir():
        return _own(name, run)
    if name not in known:
        raise ValueError(f"data must be one of {', '.join([*known, *_SOUND])} for an estimate, got {name!r}")
    return known[name]


def _own(folder: str, run: RunConfig) -> DatasetFacts:
    """Somebody's own folder; it lies where it lies, and takes no more of the disk."""
    sound = run.model == "audio"
    classes, train = _counted(folder, "sound" if sound else "image", run.label_pattern)
    return DatasetFacts(SPECTROGRAM if sound else (3, run.image_size, run.image_size), classes, train, folder, 0)


@lru_cache(maxsize=8)
def _counted(folder: str, kind: str, label_pattern: str) -> tuple[int, int]:
    """Classes and training files: of all runs of a grid the folder is listed once."""
    from anystride.lab.data.tree import read_tree

    tree = read_tree(Path(folder), kind, label_pattern)
    return len(tree.classes), len(tree.train)
