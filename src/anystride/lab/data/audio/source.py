"""One task on sound: random windows of 1 s to train on, all windows of 1 s of a clip to test on (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anystride.lab.data.audio.clips import Clips, Integers
from anystride.lab.data.audio.frontend import SECOND, FrontEnd, LogMel
from anystride.lab.data.source import Batch, Source
from anystride.lab.errors import UsageError

TEST_WINDOWS = 512
"""Windows in one batch of the evaluation, at most; a longer clip is a batch of its own."""


class Labelled(NamedTuple):
    """`rows` (n,) of `Clips` and their `labels` (n,), both int64."""

    rows: Integers
    labels: Integers


class AudioSource(Source):
    """Clips of sound, one label each, as log-mel spectrograms (N, 1, 98, 64) of 1 s; the vertical axis is time.

    A training example is a window of 1 s that starts anywhere in its clip. A test example is all of its clip's windows
    of 1 s, one after another from the start; what remains at the end and is shorter than 1 s is not used. So is a
    validation example, where the data set has some of its own.
    """

    def __init__(
        self,
        clips: Clips,
        train: Labelled,
        test: Labelled,
        task: str,
        classes: Sequence[str],
        validation: Labelled | None = None,
    ) -> None:
        self.clips = clips
        self.heads = {task: tuple(classes)}
        self.preprocessing = FrontEnd().to_json()
        self.train, self.test = (_kept(clips, split) for split in (train, test))
        if lost := sorted(set(train.labels.tolist()) - set(self.train.labels.tolist())):
            raise UsageError(
                f"--data {task}: no training clip of {classes[lost[0]]!r} can be read; unpack or download them again"
            )
        for name, split in (("training", self.train), ("test", self.test)):
            if len(split.rows) == 0:
                raise UsageError(f"--data {task}: there is no {name} clip; unpack or download the data set again")
        self.train_length, self.test_length = len(self.train.rows), len(self.test.rows)
        self.train_labels = torch.from_numpy(self.train.labels)
        splits = [self.train, self.test]
        self.validation = self.test
        if validation is not None:
            self.validation = _kept(clips, validation)
            self.validation_length = len(self.validation.rows)
            splits.append(self.validation)
        longest = int(max(clips.lengths[split.rows].max(initial=SECOND) for split in splits)) // SECOND
        self.test_rows = max(1, TEST_WINDOWS // longest)
        self.frontend = LogMel()
        self.example = self.test_batch(torch.tensor([0]))[0][:1]
        self.counts = self._counts(sum(map(len, (train.rows, test.rows, validation.rows if validation else ()))))

    def _counts(self, listed: int) -> str:
        kept = self.train_length + self.validation_length + self.test_length
        aside = f", {self.validation_length:,} validation" if self.validation_length else ""
        text = f"{self.train_length:,} training{aside} and {self.test_length:,} test clips, {len(self.classes)} classes"
        if listed > kept:
            text += f"; {listed - kept:,} unreadable clips left out"
        if self.clips.short == kept:
            text += "; all clips are shorter than 1 s and end in silence"
        return text

    def to(self, device: torch.device) -> AudioSource:
        moved = super().to(device)
        moved.frontend = LogMel(device)
        return moved

    def train_batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        clips = self.train.rows[rows.numpy()]
        room = self.clips.lengths[clips] - SECOND + 1
        share = torch.rand(len(clips), generator=generator, dtype=torch.float64).numpy()
        windows = self.clips.windows(clips, (share * room).astype(np.int64))
        return self._spectrograms(windows), self._labels(self.train, rows)

    def test_batch(self, rows: Tensor) -> Batch:
        return self._whole(self.test, rows)

    def validation_batch(self, rows: Tensor) -> Batch:
        return self._whole(self.validation, rows)

    def plain_batch(self, rows: Tensor) -> Batch:
        return self._whole(self.train, rows)

    def _whole(self, split: Labelled, rows: Tensor) -> Batch:
        """All windows of the clips `rows`, one after another."""
        clips = split.rows[rows.numpy()]
        counts = self.clips.lengths[clips] // SECOND
        group = np.repeat(np.arange(len(clips)), counts)
        nth = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
        windows = self.clips.windows(clips[group], nth * SECOND)
        return self._spectrograms(windows), self._labels(split, rows), torch.from_numpy(group).to(self.device)

    def _spectrograms(self, windows: Tensor) -> Tensor:
        return self.frontend(windows.to(self.device))

    def _labels(self, split: Labelled, rows: Tensor) -> Tensor:
        return torch.from_numpy(split.labels[rows.numpy()]).to(self.device)


def require_all_classes(split: Labelled, task: str, classes: Sequence[str], folder: Path) -> None:
    """UsageError if the training clips `split` lack one of the `classes`."""
    empty = sorted(set(range(len(classes))) - set(split.labels.tolist()))
    if empty:
        raise UsageError(
            f"--data {task}: no training clip of {classes[empty[0]]!r} in {str(folder)!r}; unpack it again"
        )


def _kept(clips: Clips, split: Labelled) -> Labelled:
    """The split without clips that were left out."""
    there = clips.lengths[split.rows] > 0
    return Labelled(split.rows[there], split.labels[there])
