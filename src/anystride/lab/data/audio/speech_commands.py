"""Speech Commands v0.02 (Warden, 2018): 35 spoken words, up to 1 s at 16 kHz, 105,829 clips.

The split is the official one: `testing_list.txt` (11,005 clips) for the test, `validation_list.txt` (9,981) set
aside, the other 84,843 for training. Table A.1 counts 84,771 and 10,700, which neither these lists nor the twelve-word
version (85,511 and 4,890) give; its source cannot be told from the paper.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anystride.lab.data.audio.clips import open_clips
from anystride.lab.data.audio.lists import read_lines, require_names
from anystride.lab.data.audio.source import AudioSource, Labelled, require_all_classes
from anystride.lab.data.audio.table import Published
from anystride.lab.data.download import Remote, obtain
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

TASK = "speech-commands"
WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy"),
    *("house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop"),
    *("three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
)
VALIDATION, TEST = "validation_list.txt", "testing_list.txt"
PUBLISHED = Published(train=84_771, test=10_700)

URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
REMOTES = (Remote(URL, "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"),)


def open_source(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """Which of the 35 words is said."""
    folder = root / TASK
    obtain(folder, [VALIDATION, TEST, *WORDS], REMOTES, URL, TASK, download)
    names = [path.relative_to(folder).as_posix() for word in WORDS for path in sorted((folder / word).glob("*.wav"))]
    aside, tested = (_listed(folder / name) for name in (VALIDATION, TEST))
    absent = sorted((aside | tested) - set(names))
    if absent:
        raise UsageError(f"--data {TASK}: {str(folder / absent[0])!r} is listed but missing; unpack {URL} again")
    names = [name for name in names if name not in aside]
    labels = np.array([WORDS.index(name.partition("/")[0]) for name in names], dtype=np.int64)
    is_test = np.array([name in tested for name in names], dtype=bool)
    train, test = (Labelled(rows, labels[rows]) for rows in (np.flatnonzero(~is_test), np.flatnonzero(is_test)))
    require_all_classes(train, TASK, WORDS, folder)
    clips = open_clips([folder / name for name in names], folder, TASK, tolerated=float(config.skip_bad))
    return PUBLISHED.compare(AudioSource(clips, train, test, TASK, WORDS))


def _listed(path: Path) -> set[str]:
    names = {line.strip() for line in read_lines(path, TASK)}
    require_names(names, path, TASK)
    return names
