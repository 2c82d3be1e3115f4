"""Many clips in one file: read once, kept as one memory-mapped array, cut into windows without a loop."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from anystride.lab.data.audio.frontend import SAMPLE_RATE, SECOND
from anystride.lab.data.audio.wave import Samples, UnreadableError, read_wave
from anystride.lab.data.download import progress
from anystride.lab.errors import UsageError

Integers = npt.NDArray[np.int64]

VERSION = 1
"""Counts the ways in which files were turned into samples; part of a cache's name."""
TOLERATED = 0.01
"""The share of clips that may be left out as unreadable where a data set allows it at all."""


class Clips:
    """Sound of many clips: mono int16 at 16 kHz, every clip at least 1 s long (shorter ones end in silence).

    `lengths` (n,) int64 counts the samples of each clip, 0 for one that was left out. The samples stay on disk; a
    copy of this object sent to another process carries no sound.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lengths: Integers = np.load(folder / "lengths.npy", allow_pickle=False)
        self.starts: Integers = np.cumsum(self.lengths) - self.lengths
        self._samples: Samples | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None}

    @property
    def samples(self) -> Samples:
        """All samples one after another, mapped from the disk."""
        if self._samples is None:
            self._samples = np.memmap(self.folder / "samples.int16", dtype="<i2", mode="r")
        return self._samples

    def windows(self, clips: Integers, first: Integers) -> Tensor:
        """One second of each of `clips` (n,), from sample `first` (n,) on: (n, 16000) int16."""
        every_window = np.lib.stride_tricks.sliding_window_view(self.samples, SECOND)
        return torch.from_numpy(every_window[self.starts[clips] + first])


def open_clips(files: Sequence[Path], folder: Path, what: str, leave_out: bool = False) -> Clips:
    """The clips of `files`, in their order, from the cache in `folder`; it is filled first where necessary.

    The cache's name follows from the files' names and sizes: other files, another cache. Raises UsageError for a file
    that is missing or unreadable; with `leave_out` up to one clip in a hundred may be unreadable and is left out.
    """
    cache = folder / f"prepared-{_key(files, leave_out)}"
    fill(cache, lambda new: _read(new, files, what, leave_out))
    return Clips(cache)


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Make `folder` with what `write` puts into it, unless it is there: all of it or nothing.

    Processes that need the same folder wait for the one that makes it. Raises UsageError where it cannot be written.
    """
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if folder.is_dir():
                return
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
                new = Path(temporary, "new")
                new.mkdir()
                write(new)
                new.rename(folder)
    except OSError as error:
        raise UsageError(f"--root must be a folder with room that can be written to: {error}") from error


def _key(files: Sequence[Path], leave_out: bool) -> str:
    digest = hashlib.sha256(f"{VERSION} {SAMPLE_RATE} {SECOND} {leave_out}".encode())
    for path in files:
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise UsageError(f"{str(path)!r} is missing; unpack or download the data set again") from error
        digest.update(f"\n{path.parent.name}/{path.name} {size}".encode())
    return digest.hexdigest()[:12]


def _read(folder: Path, files: Sequence[Path], what: str, leave_out: bool) -> None:
    lengths = np.zeros(len(files), dtype=np.int64)
    unreadable: list[str] = []
    with (folder / "samples.int16").open("wb") as out, progress(f"{what}: reading clips", len(files)) as advance:
        for row, path in enumerate(files):
            try:
                samples = read_wave(path)
            except UnreadableError as error:
                unreadable.append(str(error))
                if not leave_out or len(unreadable) > max(1, TOLERATED * len(files)):
                    raise UsageError(f"{what}: {error}") from error
            else:
                lengths[row] = max(len(samples), SECOND)
                out.write(samples.astype("<i2").tobytes())
                out.write(bytes(2 * (int(lengths[row]) - len(samples))))
            advance(1)
    np.save(folder / "lengths.npy", lengths, allow_pickle=False)
    (folder / "clips.json").write_text(
        json.dumps({"version": VERSION, "what": what, "clips": len(files), "left_out": unreadable}, indent=1)
    )
