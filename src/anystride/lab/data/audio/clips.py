"""Many clips in one file: read once, kept as one memory-mapped array, cut into windows without a loop."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anystride.lab.data.audio.frontend import SAMPLE_RATE, SECOND
from anystride.lab.data.audio.prepared import fill
from anystride.lab.data.audio.reading import UnreadableError, read_sound
from anystride.lab.data.audio.wave import Samples
from anystride.lab.data.meter import progress
from anystride.lab.errors import UsageError

Integers = npt.NDArray[np.int64]
Unreadable = list[tuple[Path, str]]
"""Files that cannot be read, each with the reason."""

VERSION = 3
"""Counts the ways in which files were turned into samples; part of a cache's name."""
READERS = 8
"""Threads that read files, at most."""
SHOWN = 20
"""Unreadable files that a message names."""
LENGTHS, SAMPLES, FACTS = "lengths.npy", "samples.int16", "clips.json"


class Clips:
    """Sound of many clips: mono int16 at 16 kHz, every clip at least 1 s long (shorter ones end in silence).

    `lengths` (n,) int64 counts the samples of each clip, 0 for one that was left out. `short` clips were shorter than
    1 s. The samples stay on disk; a copy of this object sent to another process carries no sound.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lengths: Integers = np.load(folder / LENGTHS, allow_pickle=False)
        self.starts: Integers = np.cumsum(self.lengths) - self.lengths
        self.short = int(json.loads((folder / FACTS).read_text())["short"])
        self._samples: Samples | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None}

    @property
    def samples(self) -> Samples:
        """All samples one after another, mapped from the disk."""
        if self._samples is None:
            self._samples = np.memmap(self.folder / SAMPLES, dtype="<i2", mode="r")
        return self._samples

    def windows(self, clips: Integers, first: Integers) -> Tensor:
        """One second of each of `clips` (n,), from sample `first` (n,) on: (n, 16000) int16."""
        every_window = np.lib.stride_tricks.sliding_window_view(self.samples, SECOND)
        return torch.from_numpy(every_window[self.starts[clips] + first])


def open_clips(
    files: Sequence[Path],
    folder: Path,
    what: str,
    tolerated: float = 0.0,
    refuse: Callable[[Unreadable], None] | None = None,
    by_time: bool = False,
) -> Clips:
    """The clips of `files`, in their order, from the cache in `folder`; it is filled first where necessary.

    The cache's name follows from the files' names and sizes: other files, another cache. A damaged cache is made again.

    Args:
        files: what to read.
        folder: where the cache lies.
        what: the data set, for messages.
        tolerated: the share of files that may be unreadable, and is left out; one file at least where it is not zero.
        refuse: is called with all unreadable files and raises an error unless they may be left out.
        by_time: whether a file that was written again is another file, though its size is the same.

    Raises:
        UsageError: a file is missing, or more files are unreadable than may be; the message names them.
    """
    cache = folder / f"prepared-{_key(files, tolerated, by_time)}"
    refuse = refuse or (lambda found: _refuse(found, what, tolerated and max(1.0, tolerated * len(files))))
    fill(cache, lambda new: _write(new, files, what, refuse), lambda there: _damage(there, len(files)))
    return Clips(cache)


def _key(files: Sequence[Path], tolerated: float, by_time: bool) -> str:
    digest = hashlib.sha256(f"{VERSION} {SAMPLE_RATE} {SECOND} {tolerated}".encode())
    missing = []
    for path in files:
        try:
            facts = path.stat()
        except FileNotFoundError:
            missing.append(path)
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        name = f"{path} {facts.st_mtime_ns}" if by_time else f"{path.parent.name}/{path.name}"
        digest.update(os.fsencode(f"\n{name} {facts.st_size}"))
    if missing:
        others = f" and {len(missing) - 1:,} others are" if len(missing) > 1 else " is"
        raise UsageError(f"{str(missing[0])!r}{others} missing; unpack or download the data set again")
    return digest.hexdigest()[:12]


def _refuse(found: Unreadable, what: str, allowed: float) -> None:
    """An error that names all unreadable files if they are more than are allowed."""
    if len(found) <= allowed:
        return
    named = "; ".join(f"{str(path)!r} {reason}" for path, reason in found[:SHOWN])
    more = f"; and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    raise UsageError(f"--data {what}: {named}{more}; unpack or download again what cannot be read")


def _write(folder: Path, files: Sequence[Path], what: str, refuse: Callable[[Unreadable], None]) -> None:
    lengths = np.zeros(len(files), dtype=np.int64)
    unreadable: Unreadable = []
    short = checksum = 0
    with (folder / SAMPLES).open("wb") as out, progress(f"{what}: reading clips", len(files)) as advance:
        for row, samples in enumerate(_in_order(files)):
            if isinstance(samples, UnreadableError):
                unreadable.append((files[row], samples.reason))
            else:
                lengths[row] = max(len(samples), SECOND)
                short += len(samples) < SECOND
                content = samples.astype("<i2").tobytes() + bytes(2 * (int(lengths[row]) - len(samples)))
                checksum = zlib.crc32(content, checksum)
                out.write(content)
            advance(1)
    refuse(unreadable)
    np.save(folder / LENGTHS, lengths, allow_pickle=False)
    facts = {
        "version": VERSION,
        "what": what,
        "clips": len(files),
        "short": short,
        "left_out": [f"{os.fsencode(path)!r} {reason}" for path, reason in unreadable],
        "lengths": zlib.crc32((folder / LENGTHS).read_bytes()),
        "samples": checksum,
        "written": (folder / SAMPLES).stat().st_mtime_ns,
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1))


def _in_order(files: Sequence[Path]) -> Iterator[Samples | UnreadableError]:
    """What is in the files, in their order; a few are read ahead of time, side by side."""
    threads = min(READERS, os.cpu_count() or 1)
    waiting: deque[Future[Samples | UnreadableError]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for path in files:
            waiting.append(pool.submit(_read, path))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(path: Path) -> Samples | UnreadableError:
    try:
        return read_sound(path)
    except UnreadableError as error:
        return error


def _damage(folder: Path, count: int) -> str:
    """What is wrong with a cache, "" for nothing.

    The samples' checksum is computed where the file was written to since; the other times its length has to do.
    """
    try:
        facts = json.loads((folder / FACTS).read_text())
        if facts["version"] != VERSION or facts["clips"] != count or not isinstance(facts["short"], int):
            return f"{FACTS} is about other clips"
        if zlib.crc32((folder / LENGTHS).read_bytes()) != facts["lengths"]:
            return f"{LENGTHS} was changed"
        total = 2 * int(np.load(folder / LENGTHS, allow_pickle=False).sum())
        samples = folder / SAMPLES
        if samples.stat().st_size != total:
            return f"{SAMPLES} has {samples.stat().st_size:,} bytes instead of {total:,}"
        if samples.stat().st_mtime_ns != facts["written"] and _checksum(samples) != facts["samples"]:
            return f"{SAMPLES} was changed"
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while content := file.read(1 << 24):
            checksum = zlib.crc32(content, checksum)
    return checksum
