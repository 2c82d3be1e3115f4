"""TUT Urban Acoustic Scenes 2018, development set (Mesaros et al., 2018): 8,640 segments of 10 s, 10 kinds of place.

Table A.1 counts 7,829 training and 810 test examples and Table 1 reports 99 %. The official fold, which keeps the
recordings of one place together, has 6,122 and 2,518, and on it nobody comes near 99 %. Both point to segments being
split at random: a test segment has neighbours of the same recording in training. `open_source` does that, by
the segments' names, with 810 for the test and the other 7,830 for training. It is what can be compared with Table 1;
what it measures is easier than recognising a new place. `open_fold` is the official fold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anystride.lab.data.audio.clips import Integers, open_clips
from anystride.lab.data.audio.lists import damaged, read_lines, require_names
from anystride.lab.data.audio.source import AudioSource, Labelled, require_all_classes
from anystride.lab.data.audio.split import by_name
from anystride.lab.data.audio.table import Published
from anystride.lab.data.download import Remote, obtain
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

TASK = "tut-urban-2018"
FOLD = "tut-urban-2018-fold1"
SCENES = (
    *("airport", "bus", "metro", "metro_station", "park"),
    *("public_square", "shopping_mall", "street_pedestrian", "street_traffic", "tram"),
)
COLUMNS = ["filename", "scene_label"]
PUBLISHED = Published(train=7_829, test=810)
SEGMENTS = 8_640

PAGE = "https://zenodo.org/record/1228142"
NAME = "TUT-urban-acoustic-scenes-2018-development"
MD5 = {
    "meta": "e196065ee83c07af03a11a310364377d",
    "audio.1": "62f97087c447e29def8716204469bf89",
    "audio.2": "8e569a92025d82bff6b02b956d7c6dc9",
    "audio.3": "00d2020582a4535af5e65322fb2bad56",
    "audio.4": "d691eb4271f83ba6ba9a28797accc497",
    "audio.5": "c4d64b5483b60f85e9fe080b3435a6be",
    "audio.6": "2f0feee78f216697eb19497714d97642",
    "audio.7": "07cfefe80a0731de6819181841239f3a",
    "audio.8": "213f3c012859c2e9dcb74aacc8558458",
    "audio.9": "b724442b09abcb3bd095ebff497cef85",
    "audio.10": "a27a32fa52e283ed8013375b8a16f269",
    "audio.11": "7073a121e825ffef99832507f30d6644",
    "audio.12": "6567aa61db12776568b6267ce122fb18",
    "audio.13": "d00eeb2db0e093d8975521323a96c519",
}
REMOTES = tuple(Remote(f"{PAGE}/files/{NAME}.{part}.zip", f"md5:{md5}") for part, md5 in MD5.items())

Segments = list[tuple[str, str]]
"""Paths relative to the data set's folder, and scenes."""


def open_source(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """Which scene it is; segments split at random, as Table A.1's counts suggest."""
    folder = _folder(root, TASK, download)
    segments = _listed(folder / "meta.csv", TASK, header=True)
    train, test = by_name([name for name, _ in segments], PUBLISHED.test / SEGMENTS)
    return PUBLISHED.compare(_source(config, folder, segments, train, test, TASK))


def open_fold(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """Which scene it is, by the official fold: the places of the test are not those of training."""
    folder = _folder(root, FOLD, download)
    setup = folder / "evaluation_setup"
    train, test = (_listed(setup / f"fold1_{part}.txt", FOLD, header=False) for part in ("train", "evaluate"))
    rows = np.arange(len(train) + len(test))
    return PUBLISHED.compare(_source(config, folder, train + test, rows[: len(train)], rows[len(train) :], FOLD))


def _folder(root: Path, task: str, download: bool) -> Path:
    outer = root / TASK
    folder = outer if (outer / "meta.csv").is_file() else outer / NAME
    needed = ("meta.csv", "evaluation_setup/fold1_train.txt", "evaluation_setup/fold1_evaluate.txt", "audio")
    obtain(outer, [str((folder / path).relative_to(outer)) for path in needed], REMOTES, PAGE, task, download)
    return folder


def _listed(path: Path, task: str, header: bool) -> Segments:
    """The first two columns of a table with tabs: file and scene."""
    rows = [line.split("\t") for line in read_lines(path, task)]
    if header and [name.strip() for name in rows.pop(0)][:2] != COLUMNS:
        raise damaged(path, task, f"must begin with the columns {' and '.join(COLUMNS)}")
    for number, row in enumerate(rows, start=2 if header else 1):
        if len(row) < 2 or row[1].strip() not in SCENES:
            raise UsageError(f"--data {task}: line {number} of {str(path)!r} must name a file and one of the 10 scenes")
    if not rows:
        raise damaged(path, task, "names no segment")
    require_names((row[0].strip() for row in rows), path, task)
    return [(row[0].strip(), row[1].strip()) for row in rows]


def _source(
    config: RunConfig, folder: Path, segments: Segments, train: Integers, test: Integers, task: str
) -> AudioSource:
    """Clips are stored in the order of their names: both splits find the same cache."""
    order = sorted(range(len(segments)), key=lambda row: segments[row][0])
    place = np.empty(len(segments), dtype=np.int64)
    place[order] = np.arange(len(segments))
    files = [folder / segments[row][0] for row in order]
    clips = open_clips(files, folder.parent, TASK, tolerated=float(config.skip_bad))
    labels = np.array([SCENES.index(scene) for _, scene in segments], dtype=np.int64)
    split = [Labelled(place[rows], labels[rows]) for rows in (train, test)]
    require_all_classes(split[0], task, SCENES, folder)
    return AudioSource(clips, split[0], split[1], task, SCENES)
