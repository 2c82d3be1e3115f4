"""Free Spoken Digit Dataset 1.0.10 (Jackson et al.): 3,000 recordings of ten English digits, 8 kHz, under 3 s.

Layout: `recordings/<digit>_<speaker>_<index>.wav`, also within the folder that the archive holds. The official split
goes by the index: 0 to 4 of each digit and speaker is the test, 300 recordings, and 5 to 49 is for training, 2,700.
Both parts have all six speakers, who are a second task. The recordings are under the licence CC BY-SA 4.0.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from anystride.lab.data.audio.clips import open_clips
from anystride.lab.data.audio.source import AudioSource, Labelled, require_all_classes
from anystride.lab.data.download import Remote, obtain
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

TASK = "spoken-digits"
SPEAKER = "spoken-digits-speaker"
DIGITS = tuple("0123456789")
TESTED = 5
"""Recordings of each digit and speaker that are tested on: those with the smallest numbers."""
RECORDINGS = 3_000
NAME = re.compile(r"([0-9])_([^_]+)_([0-9]{1,9})")

URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
INNER = "free-spoken-digit-dataset-1.0.10"
# Archives that GitHub makes on demand have no stated checksum: the compression's own and the names have to do.
REMOTES = (Remote(URL, name=f"{INNER}.tar.gz"),)


def open_source(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """Which of the ten digits is said."""
    return _open(config, root, download, TASK)


def open_speaker(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """Who says it."""
    return _open(config, root, download, SPEAKER)


def _open(config: RunConfig, root: Path, download: bool, task: str) -> AudioSource:
    outer = root / TASK
    folder = _recordings(outer)
    obtain(outer, [folder.relative_to(outer).as_posix()], REMOTES, URL, TASK, download)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".wav" and path.name[0] != ".")
    matches = [NAME.fullmatch(path.stem) for path in files]
    strange = [path.name for path, match in zip(files, matches, strict=True) if match is None]
    if strange or not files:
        fault = f"holds {strange[0]!r}, and files" if strange else "holds no recording; files"
        raise UsageError(f"--data {TASK}: {str(folder)!r} {fault} must be called as 7_ann_3.wav; unpack {URL} again")
    found = [match for match in matches if match is not None]
    names = [match[1] if task == TASK else match[2] for match in found]
    classes = DIGITS if task == TASK else tuple(sorted(set(names)))
    labels = np.array([classes.index(name) for name in names], dtype=np.int64)
    tested = np.array([int(match[3]) < TESTED for match in found], dtype=bool)
    train, test = (Labelled(rows, labels[rows]) for rows in (np.flatnonzero(~tested), np.flatnonzero(tested)))
    require_all_classes(train, task, classes, folder)
    clips = open_clips(files, outer, TASK, tolerated=float(config.skip_bad))
    source = AudioSource(clips, train, test, task, classes)
    if len(files) != RECORDINGS:
        source.counts += f" (version 1.0.10 has {RECORDINGS:,} recordings, here are {len(files):,})"
    return source


def _recordings(outer: Path) -> Path:
    """Where the recordings are, or would be after a download."""
    places = [outer, *sorted(outer.glob("free-spoken-digit-dataset*"))]
    found = [place / "recordings" for place in places if (place / "recordings").is_dir()]
    return found[0] if found else outer / INNER / "recordings"
