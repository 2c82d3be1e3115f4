"""DCASE 2018 bird audio detection (Stowell et al., 2018): is a bird to be heard in 10 s of sound?

Three sets: ff1010bird (7,690 clips), warblrb10k (8,000) and BirdVox-DCASE-20k (20,000), 35,690 in all, which is what
Table A.1's 32,129 and 3,561 add up to. So the paper split the development data itself, nine to one; how is not said.
Here the split follows from the clips' names (`split.by_name`), with 3,561 of all clips for the test.

Some of these clips come from volunteers' telephones: up to one clip in a hundred may be unreadable; those are left out
and counted.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from anystride.lab.data.audio.clips import open_clips
from anystride.lab.data.audio.lists import damaged, read_lines, require_names
from anystride.lab.data.audio.source import AudioSource, Labelled, require_all_classes
from anystride.lab.data.audio.split import by_name
from anystride.lab.data.audio.table import Published
from anystride.lab.data.download import Remote, obtain
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

TASK = "dcase-2018-birds"
CLASSES = ("no bird", "bird")
PUBLISHED = Published(train=32_129, test=3_561)

TOLERATED = 0.01
"""The share of clips that may be unreadable."""
COLUMNS = ("itemid", "hasbird")

CLIPS = PUBLISHED.train + PUBLISHED.test

PAGE = "https://dcase.community/challenge2018/task-bird-audio-detection"
FIGSHARE = "https://ndownloader.figshare.com/files"
LABELS = {
    "ff1010bird": "ff1010bird_metadata_2018.csv",
    "warblrb10k": "warblrb10k_public_metadata_2018.csv",
    "BirdVox-DCASE-20k": "BirdVoxDCASE20k_csvpublic.csv",
}
# The publishers state no checksums; every clip that a table names must be there.
REMOTES = (
    Remote(f"{FIGSHARE}/10853303", name=LABELS["ff1010bird"], into="ff1010bird"),
    Remote("https://archive.org/download/ff1010bird/ff1010bird_wav.zip", into="ff1010bird"),
    Remote(f"{FIGSHARE}/10853306", name=LABELS["warblrb10k"], into="warblrb10k"),
    Remote("https://archive.org/download/warblrb10k_public/warblrb10k_public_wav.zip", into="warblrb10k"),
    Remote(f"{FIGSHARE}/10853300", name=LABELS["BirdVox-DCASE-20k"], into="BirdVox-DCASE-20k"),
    Remote("https://zenodo.org/record/1208080/files/BirdVox-DCASE-20k.zip", into="BirdVox-DCASE-20k"),
)


def open_source(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """Whether there is a bird, 2 classes."""
    folder = root / TASK
    needed = [f"{name}/{path}" for name, table in LABELS.items() for path in (table, "wav")]
    obtain(folder, needed, REMOTES, PAGE, TASK, download)
    found = [(name, item, label) for name in LABELS for item, label in _listed(folder / name / LABELS[name])]
    labels = np.array([label for *_, label in found], dtype=np.int64)
    rows = by_name([f"{name}/{item}" for name, item, _ in found], PUBLISHED.test / CLIPS)
    train, test = (Labelled(part, labels[part]) for part in rows)
    require_all_classes(train, TASK, CLASSES, folder)
    files = [folder / name / "wav" / f"{item}.wav" for name, item, _ in found]
    clips = open_clips(files, folder, TASK, tolerated=1.0 if config.skip_bad else TOLERATED)
    return PUBLISHED.compare(AudioSource(clips, train, test, TASK, CLASSES))


def _listed(path: Path) -> list[tuple[str, int]]:
    """Items and labels of one table: its columns are itemid, datasetid and hasbird."""
    lines = read_lines(path, TASK)
    try:
        header, *rows = csv.reader(lines)
    except csv.Error as error:
        raise damaged(path, TASK, f"is no table ({error})") from error
    if not set(COLUMNS) <= set(header):
        raise damaged(path, TASK, f"must have the columns {' and '.join(COLUMNS)}, and begins with {lines[0][:80]!r}")
    if not rows:
        raise damaged(path, TASK, "names no clip")
    item, label = map(header.index, COLUMNS)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header) or not row[item] or row[label] not in ("0", "1"):
            where = f"line {number} of {str(path)!r}"
            raise UsageError(f"--data {TASK}: {where} must have an itemid and a hasbird of 0 or 1")
    require_names((row[item] for row in rows), path, TASK)
    return [(row[item], int(row[label])) for row in rows]
