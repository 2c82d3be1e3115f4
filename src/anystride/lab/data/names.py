"""The names of all data sets; imports nothing."""

from __future__ import annotations

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
)
IMAGES = (SCENES, "cifar10", "cifar100", "imagenet")
JOIN = "+"


def is_known(data: str) -> bool:
    """Whether `data` names a data set, or several tasks of sound; anything else is a folder."""
    return data in IMAGES or all(name in SOUND for name in data.split(JOIN))
