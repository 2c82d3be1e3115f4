"""What a run learns from: the examples of one task or of several, as batches made on the training device."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]
"""Inputs (M, C, H, W) and labels (N,); with M > N a third tensor, the example 0 .. N - 1 of each input (M,)."""

Self = TypeVar("Self", bound="Source")


class Source(ABC):
    """Labelled examples for training and for testing, of one task or of several.

    `heads` maps each task to its classes. Labels count through the classes of all tasks in this order: a label also
    says which task it belongs to. `example` (1, C, H, W) is one input as the network sees it, on the CPU.
    `train_labels` (train_length,) int64 are those of all training examples, on the CPU. `counts` says in a line for
    people what was found. `workers` processes make the training batches, 0 for none. `validation_length` counts the
    examples that are set aside, see `holdout.hold_out`. `preprocessing` says in plain values how a file becomes an
    input, see `inputs.read_inputs`; it is empty where the examples are not files.
    """

    heads: dict[str, tuple[str, ...]]
    example: Tensor
    preprocessing: Mapping[str, Any] = MappingProxyType({})
    train_length: int
    test_length: int
    validation_length: int = 0
    train_labels: Tensor
    test_rows: int = 128
    """Examples in one batch of the evaluation."""
    workers: int = 0
    counts: str = ""
    device: torch.device = torch.device("cpu")

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of all tasks, in the order in which labels count them."""
        return tuple(name for classes in self.heads.values() for name in classes)

    def to(self: Self, device: torch.device) -> Self:
        """The same source, whose batches are made on `device`."""
        moved = copy.copy(self)
        moved.device = device
        return moved

    def train_order(self, length: int, generator: torch.Generator) -> Tensor:
        """`length` rows of the training examples: as many passes as it takes, each in an order of its own."""
        passes = -(-length // self.train_length)
        orders = [torch.randperm(self.train_length, generator=generator) for _ in range(passes)]
        return torch.cat(orders)[:length]

    @abstractmethod
    def train_batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """Inputs and labels of training examples; whatever is random follows from the CPU's `generator`."""

    @abstractmethod
    def test_batch(self, rows: Tensor) -> Batch:
        """Inputs and labels of test examples, and which example each input belongs to where they are more."""

    def plain_batch(self, rows: Tensor) -> Batch:
        """As `test_batch`, of training examples: what is set aside for validation is seen as a test example is."""
        raise NotImplementedError(f"{type(self).__name__} cannot set examples aside")

    def validation_batch(self, rows: Tensor) -> Batch:
        """As `test_batch`, of validation examples."""
        raise NotImplementedError(f"{type(self).__name__} has no validation examples")


class TensorSource(Source):
    """Images that all lie in the device's memory: (n, C, H, W), float32 in [0, 1] or uint8, with labels (n,) int64.

    `augment(images, generator)` changes training images, `prepare(images)` makes float32 inputs of what is stored;
    both work on whole batches.
    """

    def __init__(
        self,
        train_images: Tensor,
        train_labels: Tensor,
        test_images: Tensor,
        test_labels: Tensor,
        classes: Sequence[str],
        task: str = "class",
        prepare: Callable[[Tensor], Tensor] | None = None,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        self.train_images, self.train_labels = train_images, train_labels
        self.test_images, self.test_labels = test_images, test_labels
        self.heads = {task: tuple(classes)}
        self.prepare, self.augment = prepare or _unchanged, augment
        self.preprocessing = preprocessing or self.preprocessing
        self.example = self.prepare(test_images[:1])
        self.train_length, self.test_length = len(train_labels), len(test_labels)
        self.counts = f"{self.train_length:,} training and {self.test_length:,} test images, {len(classes)} classes"

    def to(self, device: torch.device) -> TensorSource:
        moved = super().to(device)
        for name in ("train_images", "train_labels", "test_images", "test_labels"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def train_batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        rows = rows.to(self.device)
        images = self.train_images[rows]
        if self.augment is not None:
            images = self.augment(images, generator)
        return self.prepare(images), self.train_labels[rows]

    def test_batch(self, rows: Tensor) -> Batch:
        rows = rows.to(self.device)
        return self.prepare(self.test_images[rows]), self.test_labels[rows]

    def plain_batch(self, rows: Tensor) -> Batch:
        rows = rows.to(self.device)
        return self.prepare(self.train_images[rows]), self.train_labels[rows]


def _unchanged(images: Tensor) -> Tensor:
    return images
