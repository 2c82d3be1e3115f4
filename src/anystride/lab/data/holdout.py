"""Examples that are set aside from the training for validation, of each class the same share."""

from __future__ import annotations

import copy

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from anystride.lab.data.audio.multi import MultiTask
from anystride.lab.data.source import Batch, Source
from anystride.lab.errors import UsageError

SPLIT_SEED = 0
"""The same examples are set aside in every run, whatever its seed."""


class HeldOut(Source):
    """A source, some of whose training examples became validation examples, which are seen as test examples are.

    Args:
        source: whose training examples are divided.
        share: of each class, in (0, 1); at least one example.

    Raises:
        UsageError: a class has a single training example.
    """

    def __init__(self, source: Source, share: float) -> None:
        self.source = source
        self.heads, self.example, self.preprocessing = source.heads, source.example, source.preprocessing
        self.test_length, self.test_rows, self.workers = source.test_length, source.test_rows, source.workers
        self.train_rows, self.validation_rows = _split(source, share)
        self.train_length, self.validation_length = len(self.train_rows), len(self.validation_rows)
        self.train_labels = source.train_labels[self.train_rows]
        self.counts = f"{source.counts}; {self.validation_length:,} of the training examples for validation"

    def to(self, device: torch.device) -> HeldOut:
        moved = super().to(device)
        moved.source = self.source.to(device)
        return moved

    def train_batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        return self.source.train_batch(self.train_rows[rows], generator)

    def plain_batch(self, rows: Tensor) -> Batch:
        return self.source.plain_batch(self.train_rows[rows])

    def validation_batch(self, rows: Tensor) -> Batch:
        return self.source.plain_batch(self.validation_rows[rows])

    def test_batch(self, rows: Tensor) -> Batch:
        return self.source.test_batch(rows)


def hold_out(source: Source, share: float) -> Source:
    """The source with a share of its training examples set aside; itself where the data set some aside already.

    With a share of 0 there are no validation examples: those that the data set aside are not used.

    Raises:
        UsageError: as `HeldOut`.
    """
    if not share and source.validation_length:
        without = copy.copy(source)
        without.validation_length = 0
        return without
    if not share or source.validation_length:
        return source
    if isinstance(source, MultiTask):
        return MultiTask([hold_out(each, share) for each in source.sources])
    return HeldOut(source, share)


def _split(source: Source, share: float) -> tuple[Tensor, Tensor]:
    labels = source.train_labels.numpy()
    counts = np.bincount(labels, minlength=len(source.classes))
    if counts.min() < 2:
        name = source.classes[int(counts.argmin())]
        raise UsageError(
            f"--validation {share:g} needs at least two training examples of each class, and {name!r} has "
            f"{counts.min()}; add some, or --validation 0 keeps the last epoch"
        )
    size = min(max(len(counts), round(share * len(labels))), len(labels) - len(counts))
    rows = np.arange(len(labels))
    train, held = train_test_split(rows, test_size=size, stratify=labels, random_state=SPLIT_SEED)
    return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(held))
