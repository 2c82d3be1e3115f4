"""Batches for Lightning: which examples make a step, on one device or on several, and what is random about them."""

from __future__ import annotations

from collections.abc import Iterator

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from anystride.lab.data.source import Batch, Source

Part = tuple[Tensor, int]
"""The rows of one micro-batch, and the seed of whatever is random about it."""

PRIME = 1_000_003


class TrainParts(Sampler[Part]):
    """The micro-batches of one epoch that belong to one of `world` processes.

    A step's `batch_size` rows are cut into accumulate * world parts: process `rank` has the part `rank` of each
    `world` in turn. Rows and random numbers of a part follow from (seed, epoch, number of the part) and nothing else:
    a run that is interrupted and resumed sees the same batches as one that is not, and two processes see what one
    process sees that accumulates two parts. Lightning calls `set_epoch`. Without `steps` an epoch is one pass, and
    its last, incomplete step is dropped.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        *,
        steps: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.source, self.batch_size, self.seed, self.epoch = source, batch_size, seed, 0
        self.steps = steps or source.train_length // batch_size
        self.parts, self.rank, self.world = accumulate * world, rank, world

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.parts // self.world

    def __iter__(self) -> Iterator[Part]:
        start = self.seed * PRIME + self.epoch
        order = self.source.train_order(self.steps * self.batch_size, torch.Generator().manual_seed(start))
        parts = torch.split(order, self.batch_size // self.parts)
        for number in range(self.rank, len(parts), self.world):
            yield parts[number], (start * PRIME + number) % 2**63


class TrainBatches(Dataset[Batch]):
    """A source's training batches by `Part`, mixed where `mixup` is above zero: with themselves, or pair by pair."""

    def __init__(self, source: Source, mixup: float, pairs: bool = False) -> None:
        self.source, self.mixup, self.pairs = source, mixup, pairs

    def __getitem__(self, part: Part) -> Batch:
        rows, seed = part
        generator = torch.Generator().manual_seed(seed)
        inputs, labels, *_ = self.source.train_batch(rows, generator)
        if not self.mixup:
            return inputs, labels
        return (mix_pairs if self.pairs else mix)(inputs, labels, self.mixup, generator)


class EvaluationBatches(Dataset[Batch]):
    """A source's validation or test batches by their rows."""

    def __init__(self, source: Source, validation: bool) -> None:
        self.source, self.validation = source, validation

    def __getitem__(self, rows: Tensor) -> Batch:
        return self.source.validation_batch(rows) if self.validation else self.source.test_batch(rows)


def mix(inputs: Tensor, labels: Tensor, alpha: float, generator: torch.Generator) -> Batch:
    """Mixup (Zhang et al., 2018): inputs share * x + (1 - share) * x', labels, labels', share; share ~ Beta(alpha)."""
    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    other = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    return share * inputs + (1 - share) * inputs[other], labels, labels[other], torch.tensor(share)


def mix_pairs(inputs: Tensor, labels: Tensor, alpha: float, generator: torch.Generator) -> Batch:
    """Mixup of each two neighbours, with a share of their own: half as many inputs, and shares (N / 2,)."""
    seed = int(torch.randint(2**62, (), generator=generator))
    drawn = np.random.default_rng(seed).beta(alpha, alpha, size=len(labels) // 2)
    shares = torch.from_numpy(drawn).to(inputs.device, inputs.dtype)
    share = shares.view(-1, *[1] * (inputs.ndim - 1))
    return share * inputs[::2] + (1 - share) * inputs[1::2], labels[::2], labels[1::2], shares


class SourceData(pl.LightningDataModule):
    """Serves a `Source` to Lightning's trainer, as a run's configuration asks."""

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        *,
        steps: int = 0,
        accumulate: int = 1,
        mixup: float = 0.0,
        pairs: bool = False,
    ) -> None:
        super().__init__()
        self.source, self.seed, self.pairs = source, seed, pairs and mixup > 0
        self.batch_size = batch_size * 2 if self.pairs else batch_size
        self.steps, self.accumulate, self.mixup = steps, accumulate, mixup

    def train_dataloader(self) -> DataLoader[Batch]:
        rank, world = self._rank_and_world()
        parts = TrainParts(
            self.source,
            self.batch_size,
            self.seed,
            steps=self.steps,
            accumulate=self.accumulate,
            rank=rank,
            world=world,
        )
        workers = self.source.workers
        data = TrainBatches(self._resident(), self.mixup, self.pairs)
        return DataLoader(data, batch_size=None, sampler=parts, num_workers=workers, persistent_workers=workers > 0)

    def val_dataloader(self) -> DataLoader[Batch]:
        """What an epoch is measured on: the validation examples; the test examples where there are none."""
        return self._evaluation(validation=self.source.validation_length > 0)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation(validation=False)

    def _evaluation(self, validation: bool) -> DataLoader[Batch]:
        rank, world = self._rank_and_world()
        count = self.source.validation_length if validation else self.source.test_length
        # Every process needs a batch: one that had none would leave the others waiting for its metrics.
        length = min(self.source.test_rows, -(-count // world))
        rows = torch.split(torch.arange(count), length)[rank::world]
        workers = self.source.workers
        data = EvaluationBatches(self._resident(), validation)
        return DataLoader(data, batch_size=None, sampler=rows, num_workers=workers, persistent_workers=workers > 0)

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _resident(self) -> Source:
        """The source on the training device, unless worker processes make its batches."""
        if self.trainer is None or self.source.workers:
            return self.source
        return self.source.to(self.trainer.strategy.root_device)
