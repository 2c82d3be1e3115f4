"""Labelled images in memory and the order in which they are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset


@dataclass(frozen=True)
class LabelledImages:
    """A task: images (n, C, H, W) float32 in [0, 1] and labels (n,) int64, for training and for testing."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]


class ShuffledBatches(Sampler[Tensor]):
    """Index tensors of whole batches, in an order that follows from (seed, epoch) and nothing else.

    No global random state is involved, so a run that is interrupted and resumed sees the same batches as one that is
    not. Lightning calls `set_epoch`. The last, incomplete batch of an epoch is dropped.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length, self.batch_size, self.seed, self.epoch = length, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator)
        yield from torch.split(order[: len(self) * self.batch_size], self.batch_size)


class TensorData(pl.LightningDataModule):
    """Serves `LabelledImages` from the training device: no worker processes, one indexing operation per batch."""

    def __init__(self, images: LabelledImages, batch_size: int, seed: int) -> None:
        super().__init__()
        self.images, self.batch_size, self.seed = images, batch_size, seed

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        dataset = self._resident(self.images.train_images, self.images.train_labels)
        order = ShuffledBatches(len(dataset), self.batch_size, self.seed)
        return DataLoader(dataset, batch_size=None, sampler=order)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        dataset = self._resident(self.images.test_images, self.images.test_labels)
        in_order = torch.split(torch.arange(len(dataset)), 4 * self.batch_size)
        return DataLoader(dataset, batch_size=None, sampler=in_order)

    def _resident(self, *tensors: Tensor) -> TensorDataset:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return TensorDataset(*(tensor.to(device) for tensor in tensors))
