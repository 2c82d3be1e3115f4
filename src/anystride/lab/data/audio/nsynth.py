"""NSynth (Engel et al., 2017): single notes, 16 kHz, 4 s; the instrument's family or the pitch is to be told.

Layout: `nsynth-train/examples.json` and `nsynth-train/audio/<note>.wav`, the same for `nsynth-valid`. Table A.1
counts 12,678 test examples, which is NSynth's validation split (its test split has 4,096): the validation split is
what is tested on here. Its instruments do not occur in training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anystride.lab.data.audio.clips import Clips, open_clips
from anystride.lab.data.audio.lists import require_names
from anystride.lab.data.audio.source import AudioSource, Labelled
from anystride.lab.data.audio.table import Published
from anystride.lab.data.download import Remote, obtain
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

FAMILIES = (
    *("bass", "brass", "flute", "guitar", "keyboard", "mallet"),
    *("organ", "reed", "string", "synth_lead", "vocal"),
)
PITCHES = tuple(str(pitch) for pitch in range(128))
TRAIN, TEST = "nsynth-train", "nsynth-valid"
FIELDS = {"instrument": "instrument_family_str", "pitch": "pitch"}
PUBLISHED = Published(train=289_205, test=12_678)

PAGE = "https://magenta.tensorflow.org/datasets/nsynth"
SERVER = "http://download.magenta.tensorflow.org/datasets/nsynth"
# The publishers state no checksums; each split's examples.json must be there and name only files that are.
REMOTES = tuple(Remote(f"{SERVER}/{split}.jsonwav.tar.gz") for split in (TRAIN, TEST))


def open_instrument(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """The family of the instrument, 11 classes."""
    return _open(config, root, download, "instrument", FAMILIES)


def open_pitch(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """The pitch as a MIDI number, 128 classes."""
    return _open(config, root, download, "pitch", PITCHES)


def _open(config: RunConfig, root: Path, download: bool, field: str, classes: Sequence[str]) -> AudioSource:
    folder, task = root / "nsynth", f"nsynth-{field}"
    obtain(folder, [f"{split}/examples.json" for split in (TRAIN, TEST)], REMOTES, PAGE, task, download)
    return PUBLISHED.compare(read_notes(folder, field, classes, task, config.skip_bad))


def read_notes(folder: Path, field: str, classes: Sequence[str], task: str, skip_bad: bool = False) -> AudioSource:
    """The source of `nsynth-train` and `nsynth-valid` in `folder`, labelled by `field`, a key of `FIELDS`."""
    notes = [(split, name, note) for split in (TRAIN, TEST) for name, note in _examples(folder / split)]
    clips = _clips(folder, [(split, name) for split, name, _ in notes], skip_bad)
    numbers = {name: label for label, name in enumerate(classes)}
    labels = np.array([_label(note, name, field, numbers, task) for _, name, note in notes], dtype=np.int64)
    trained = np.array([split == TRAIN for split, _, _ in notes])
    train, test = (Labelled(rows, labels[rows]) for rows in (np.flatnonzero(trained), np.flatnonzero(~trained)))
    return AudioSource(clips, train, test, task, classes)


def _clips(folder: Path, names: Sequence[tuple[str, str]], skip_bad: bool) -> Clips:
    # Both tasks ask for the same files in the same order. They find the same cache: the sound is stored once.
    files = [folder / split / "audio" / f"{name}.wav" for split, name in names]
    return open_clips(files, folder, folder.name, tolerated=float(skip_bad))


def _examples(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    path = folder / "examples.json"
    try:
        examples = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is missing or no JSON; unpack or download the data set again") from error
    if not isinstance(examples, dict) or not all(isinstance(note, dict) for note in examples.values()):
        raise UsageError(f"{str(path)!r} must map the names of notes to their properties; download the data set again")
    require_names(examples, path, folder.parent.name)
    return sorted(examples.items())


def _label(note: dict[str, Any], name: str, field: str, numbers: dict[str, int], task: str) -> int:
    value = str(note.get(FIELDS[field]))
    if value not in numbers:
        raise UsageError(
            f"--data {task}: the note {name!r} has {FIELDS[field]} {value!r}, which is no class of the task"
        )
    return numbers[value]
