"""The names of all data sets; imports nothing slow."""

from __future__ import annotations

from pathlib import Path

from anystride.lab.run.config import SCENES

SOUND = (
    "notes-instrument",
    "notes-pitch",
    "speech-commands",
    "nsynth-instrument",
    "nsynth-pitch",
    "tut-urban-2018",
    "tut-urban-2018-fold1",
    "dcase-2018-birds",
    "spoken-digits",
    "spoken-digits-speaker",
)
CIFAR_JPEG = "cifar10-jpeg"
"""CIFAR-10 as JPEG files: a folder of this name among the data sets, with train/CLASS/ and test/CLASS/."""
IMAGES = (SCENES, "cifar10", "cifar100", CIFAR_JPEG, "imagenet")
JOIN = "+"


def tasks_of(data: str) -> list[str]:
    """The tasks that a data set joins; a folder is one, whatever its name."""
    return data.split(JOIN) if is_known(data) else [data]


def is_known(data: str) -> bool:
    """Whether `data` names a data set, or several tasks of sound; anything else is a folder."""
    return data in IMAGES or all(name in SOUND for name in data.split(JOIN))


def is_there(data: str) -> bool:
    """Whether `data` is the path of a folder or a file; False for a name that no system has."""
    try:
        return Path(data).exists()
    except (OSError, ValueError):
        return False
