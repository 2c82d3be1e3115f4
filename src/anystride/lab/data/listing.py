"""The files of `<folder>/<class>/<image>`, a million and more: listed once, and again where a folder changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anystride.lab.record import write

SUFFIXES = (".jpeg", ".jpg", ".png")
SETTLED = 2 * 10**9
"""Nanoseconds. A folder that changed this shortly before it was listed is listed again the next time: it may change
without a later time stamp, because some file systems count time in steps of two seconds."""

Names = dict[str, list[str]]
"""The files of each class, both sorted."""


@dataclass(frozen=True)
class Listing:
    """`names` (n,) are the files' names as bytes: a list of a million strings would be copied into every worker
    process, because counting references writes to them. `labels` (n,) int64 count through `classes`."""

    folder: Path
    classes: tuple[str, ...]
    names: npt.NDArray[np.bytes_]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> Path:
        return self.folder / self.classes[int(self.labels[row])] / os.fsdecode(bytes(self.names[row]))


def listing(folder: Path, names: Names, classes: Sequence[str]) -> Listing:
    """The files `names` of `folder` with labels that count through `classes`."""
    files = [os.fsencode(name) for label in classes for name in names[label]]
    counts = torch.tensor([len(names[label]) for label in classes])
    return Listing(folder, tuple(classes), np.array(files), torch.arange(len(classes)).repeat_interleave(counts))


def find_images(folder: Path) -> Names:
    """The images of each class folder; an empty list for a class without any.

    What was found is kept in the file `.<folder>-files.json` beside the folder, with each class folder's time of
    change: a later call reads a thousand time stamps instead of a million names. Where that file cannot be written,
    every call lists the folders.
    """
    cache = folder.with_name(f".{folder.name}-files.json")
    known = _load(cache)
    now = time.time_ns()
    found: dict[str, tuple[int, str]] = {}
    settled: dict[str, tuple[int, str]] = {}
    with os.scandir(folder) as entries:
        classes = sorted((entry for entry in entries if entry.name[0] != "." and entry.is_dir()), key=lambda e: e.name)
    for entry in classes:
        changed = entry.stat().st_mtime_ns
        before = known.get(entry.name)
        # A slash parts the names: the one character that no name holds.
        found[entry.name] = before if before and before[0] == changed else (changed, "/".join(_images(entry.path)))
        if changed < now - SETTLED:
            settled[entry.name] = found[entry.name]
    if settled != known:
        with suppress(OSError):  # the data set may well be read-only
            write({"classes": settled}, cache)
    return {name: files.split("/") if files else [] for name, (_, files) in found.items()}


def _images(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is_image(entry.name))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and name[0] != "."


def _load(cache: Path) -> dict[str, tuple[int, str]]:
    """The kept list, empty where there is none that can be read."""
    try:
        classes = json.loads(cache.read_text(encoding="utf-8"))["classes"]
        return {name: (int(changed), str(files)) for name, (changed, files) in classes.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
