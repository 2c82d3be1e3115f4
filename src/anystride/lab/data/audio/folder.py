"""A folder of sounds, labelled by folders or by file names, and one file as a network hears it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystride.lab.data.audio.clips import Clips, open_clips
from anystride.lab.data.audio.frontend import FrontEnd, LogMel
from anystride.lab.data.audio.reading import read_sound
from anystride.lab.data.audio.source import AudioSource, Labelled
from anystride.lab.data.tree import Files, Tree, read_tree, refuse
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

PREPARED = "prepared"
"""The folder in that of all data sets where the sounds of other folders are kept; it can be removed at any time."""


def sound_folder(config: RunConfig, root: Path) -> AudioSource:
    """The sounds of the folder `config.data`, listed by `tree.read_tree`.

    All files are read once, as mono of 16 kHz, and kept in the folder `prepared` of `root`: nothing is written into the
    folder itself.

    Raises:
        UsageError: as `read_tree`; or there are files that cannot be read, all of which are named, unless
            `config.skip_bad` leaves them out.
    """
    folder = Path(config.data)
    tree = read_tree(folder, "sound", config.label_pattern)
    parts = [part for part in (tree.train, tree.test, tree.validation) if part is not None]
    # By their paths: another pattern of labels finds the same sounds in the same place.
    files = sorted({path for part in parts for path in part.paths})
    clips = open_clips(
        files,
        root / PREPARED / _place(folder),
        "sounds",
        tolerated=float(config.skip_bad),
        refuse=lambda found: refuse([*tree.bad, *found], "sound", config.skip_bad),
        by_time=True,
    )
    refuse(tree.bad, "sound", config.skip_bad)
    _require_classes(tree, clips, files, folder)
    rows = {path: row for row, path in enumerate(files)}
    train, test, *validation = [_labelled(part, rows) for part in parts]
    source = AudioSource(clips, train, test, "class", tree.classes, validation[0] if validation else None)
    if tree.bad:
        source.counts += f"; {len(tree.bad):,} broken links or other things that are no files left out"
    source.counts += tree.passed_over
    return source


def read_inputs(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """One file as a network sees it in testing: all its windows of 1 s, (M, 1, frames, bands) float32.

    A file that is shorter than 1 s ends in silence; what remains behind the last whole second is not used.

    Args:
        path: a sound file of any kind that `reading.read_sound` reads.
        preprocessing: that of an `AudioSource`.

    Raises:
        UsageError: the file cannot be read, or `preprocessing` lacks a value.
    """
    settings = FrontEnd.from_json(preprocessing)
    samples = read_sound(path, settings.sample_rate)
    try:
        count = max(1, len(samples) // settings.samples)
        windows = np.zeros(count * settings.samples, dtype=np.int16)
        windows[: len(samples)] = samples[: len(windows)]
        return _front_end(settings)(torch.from_numpy(windows.reshape(count, settings.samples)))
    except (RuntimeError, ValueError, LookupError, ArithmeticError) as error:
        raise UsageError(f"preprocessing of sound has values that make no spectrogram: {settings}") from error


@lru_cache(maxsize=2)
def _front_end(settings: FrontEnd) -> LogMel:
    return LogMel(settings=settings)


def _place(folder: Path) -> str:
    """A name for the folder's sounds: readable, and another one for another folder of the same name."""
    whole = folder.resolve()
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', whole.name)[:40]}-{digest}"


def _labelled(part: Files, rows: Mapping[Path, int]) -> Labelled:
    return Labelled(np.array([rows[path] for path in part.paths], dtype=np.int64), part.labels.numpy())


def _require_classes(tree: Tree, clips: Clips, files: list[Path], folder: Path) -> None:
    """UsageError if a class lacks sounds because all of them were left out as unreadable."""
    kept = {path for path, length in zip(files, clips.lengths.tolist(), strict=True) if length}
    for what, part in (("training", tree.train), ("test", tree.test)):
        there = {label for path, label in zip(part.paths, part.labels.tolist(), strict=True) if path in kept}
        if lacking := [name for label, name in enumerate(tree.classes) if label not in there]:
            raise UsageError(
                f"--data {str(folder)!r} has no readable {what} sound of class {lacking[0]!r}; add some, or repair them"
            )
