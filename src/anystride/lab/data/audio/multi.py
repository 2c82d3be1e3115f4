"""Several tasks for one network: a batch mixes them evenly, the test sets follow one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from anystride.lab.data.source import Batch, Source
from anystride.lab.errors import UsageError

Kind = Literal["train", "validation", "test"]


class MultiTask(Source):
    """Sources joined into one. Labels number the classes of all tasks: a label also tells the task.

    The paper does not say how a batch is made up: here any T consecutive training rows hold one example of each of the
    T tasks, in random order. Every batch has equal shares, and so has, nearly, the part of each device. One pass
    is as long as all tasks together; the examples of a smaller task come up more often in it.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        names = [task for source in sources for task in source.heads]
        if len(sources) < 2 or len(set(names)) < len(names):
            raise UsageError(f"several tasks must be different ones, got {'+'.join(names) or 'none'}")
        shapes = {tuple(source.example.shape[1:]) for source in sources}
        if len(shapes) > 1:
            raise UsageError(f"tasks that share a network need inputs of one size, got {'+'.join(names)}: {shapes}")
        self.sources = tuple(sources)
        self.heads = {task: classes for source in sources for task, classes in source.heads.items()}
        classes = [sum(len(names) for names in source.heads.values()) for source in sources]
        self.first_labels = [sum(classes[:i]) for i in range(len(sources))]
        self.example = sources[0].example
        if all(source.preprocessing == sources[0].preprocessing for source in sources):
            self.preprocessing = sources[0].preprocessing
        self.train_length = sum(source.train_length for source in sources)
        self.test_length = sum(source.test_length for source in sources)
        self.validation_length = sum(source.validation_length for source in sources)
        self.test_rows = min(source.test_rows for source in sources)
        self.workers = max(source.workers for source in sources)
        self.counts = "; ".join(f"{'+'.join(source.heads)}: {source.counts}" for source in sources)

    def to(self, device: torch.device) -> MultiTask:
        moved = super().to(device)
        moved.sources = tuple(source.to(device) for source in self.sources)
        return moved

    def train_order(self, length: int, generator: torch.Generator) -> Tensor:
        tasks = len(self.sources)
        turns = -(-length // tasks)
        rows = torch.stack(
            [
                source.train_order(turns, generator) + first
                for source, first in zip(self.sources, self._first("train"), strict=True)
            ],
            dim=1,
        )
        shuffled = torch.rand(turns, tasks, generator=generator).argsort(dim=1)
        return rows.gather(1, shuffled).flatten()[:length]

    def train_batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        parts = self._parts(rows, "train")
        batches = [self.sources[task].train_batch(part, generator) for task, _, part in parts]
        back = torch.cat([positions for _, positions, _ in parts]).argsort()
        inputs = torch.cat([batch[0] for batch in batches])
        firsts = [self.first_labels[task] for task, _, _ in parts]
        labels = torch.cat([batch[1] + first for batch, first in zip(batches, firsts, strict=True)])
        back = back.to(inputs.device)
        return inputs[back], labels[back]

    def test_batch(self, rows: Tensor) -> Batch:
        return self._evaluation_batch(rows, "test")

    def validation_batch(self, rows: Tensor) -> Batch:
        return self._evaluation_batch(rows, "validation")

    def _evaluation_batch(self, rows: Tensor, kind: Kind) -> Batch:
        inputs, labels, groups, order = [], [], [], []
        for task, positions, part in self._parts(rows, kind):
            source = self.sources[task]
            batch = source.test_batch(part) if kind == "test" else source.validation_batch(part)
            positions = positions.to(batch[1].device)
            inputs.append(batch[0])
            labels.append(batch[1] + self.first_labels[task])
            groups.append(positions[batch[2]] if len(batch) == 3 else positions)
            order.append(positions)
        return torch.cat(inputs), torch.cat(labels)[torch.cat(order).argsort()], torch.cat(groups)

    def _first(self, kind: Kind) -> list[int]:
        """The first row of each source."""
        lengths = [
            {"train": source.train_length, "validation": source.validation_length, "test": source.test_length}[kind]
            for source in self.sources
        ]
        return [int(first) for first in np.cumsum([0, *lengths[:-1]])]

    def _parts(self, rows: Tensor, kind: Kind) -> list[tuple[int, Tensor, Tensor]]:
        """For each task with rows in the batch: its number, where its rows stand in the batch, and its own rows."""
        first = torch.tensor(self._first(kind))
        owner = torch.searchsorted(first, rows, right=True) - 1
        found = ((task, (owner == task).nonzero().flatten()) for task in range(len(self.sources)))
        return [(task, at, rows[at] - first[task]) for task, at in found if len(at)]
