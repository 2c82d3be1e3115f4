"""Training one classifier with Lightning: the objective, the optimiser, and what is kept after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from anystride import complexity, learned_strides, param_groups, regrid_
from anystride.lab.data.module import PRIME
from anystride.lab.data.source import Batch
from anystride.lab.models import registry
from anystride.lab.models.network import Network, in_fast_layout
from anystride.lab.run.config import RunConfig

MOMENTUM = 0.9
WARM_UP = 0.2
"""The share of the training over which the cosine schedule's learning rate rises."""
TOP = 5
"""With more classes than this, a second metric counts whether the right one is among this many best guesses."""


def cosine(progress: float) -> float:
    """The learning rate's factor after a share `progress` of the training: a linear rise, then half a cosine."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))


def tenths(*points: float) -> Callable[[float], float]:
    """A schedule whose factor is divided by 10 at each of `points`, shares of the training."""
    return lambda progress: 10.0 ** -sum(progress >= point for point in points)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "step": tenths(1 / 2, 3 / 4),  # section 3.2, CIFAR: after 200 and 300 of 400 epochs
    "step-imagenet": tenths(30 / 90, 60 / 90, 80 / 90),  # section 3.2, ImageNet
    # The authors' release, by batches of 78,000: a tenth at first, the full rate from batch 400 on, then ever less.
    "release": lambda progress: 0.1 if progress < 400 / 78_000 else tenths(18 / 78, 32 / 78)(progress),
    "constant": lambda progress: 1.0,  # section 3.1
}
OPTIMIZERS = ("sgd", "adam")


class Classifier(pl.LightningModule):
    """A network trained on cross-entropy + lam * J (Eq. 6), as its configuration says: one head per task of `heads`.

    Labels number the classes of all tasks: a label also tells the task of an example. An example is compared with the
    classes of its own task only. `shape` (C, H, W) is that of one input.
    """

    def __init__(self, config: RunConfig, heads: dict[str, tuple[str, ...]], shape: Sequence[int]) -> None:
        super().__init__()
        # The checkpoint carries what is needed to build the model again, as plain values.
        plain = {"config": config.to_json(), "heads": {task: list(names) for task, names in heads.items()}}
        self.save_hyperparameters({**plain, "shape": list(shape)}, logger=False)
        self.config, self.shape = config, tuple(shape)
        self.tasks = tuple(heads)
        sizes = [len(classes) for classes in heads.values()]
        model = registry.build(config.model, config.network(sizes, shape[0]))
        self.model: Network = in_fast_layout(model)
        self.network: Callable[[Tensor], Tensor]
        self.use(self.model)
        self.task_of_class: Tensor
        self.register_buffer("task_of_class", torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), False)
        self.right = nn.ModuleList(MeanMetric() for _ in sizes)
        self.top = MeanMetric() if len(sizes) == 1 and sizes[0] > TOP else None

    def setup(self, stage: str) -> None:
        if self.config.compile:
            self.use(torch.compile(self.model))

    def use(self, network: Callable[[Tensor], Tensor]) -> None:
        """Compute logits by `network` from now on; the model keeps its parameters and their names."""
        # nn.Module would register a compiled network, and the names in checkpoints would change.
        object.__setattr__(self, "network", network)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs)
        return logits

    def training_step(self, batch: Batch, _: int) -> Tensor:
        inputs, labels, *mixed = batch
        logits = self(inputs)
        loss = self._loss(logits, labels)
        if mixed:
            other, share = mixed
            loss = share * loss + (1 - share) * self._loss(logits, other)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)
        if self.config.lam:
            loss = loss + self.config.lam * complexity(self.model)
        return loss

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self._own(logits, labels), labels, label_smoothing=self.config.label_smoothing)

    def _own(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits with those of other tasks' classes at minus infinity."""
        if len(self.tasks) == 1:
            return logits
        return logits.masked_fill(self.task_of_class != self.task_of_class[labels][:, None], -math.inf)

    def validation_step(self, batch: Batch, _: int) -> None:
        inputs, labels, *group = batch
        logits = self(inputs)
        if group:
            # Section 3.1: the logits of an example's windows are averaged.
            sums = logits.new_zeros(len(labels), logits.shape[1]).index_add(0, group[0], logits)
            logits = sums / torch.bincount(group[0], minlength=len(labels))[:, None]
        logits = self._own(logits.float(), labels)
        right = (logits.argmax(dim=1) == labels).float()
        for number, metric in enumerate(self.right):
            mine = right[self.task_of_class[labels] == number]
            if len(mine):
                metric(mine)
        if self.top is not None:
            self.top((logits.topk(TOP).indices == labels[:, None]).any(dim=1).float())
        self.log("test/loss", cross_entropy(logits, labels), on_epoch=True, batch_size=len(labels), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        values = [_end(metric) for metric in self.right]
        if self.top is not None:
            self.log("test/top5", _end(self.top))
        for task, value in zip(self.tasks, values, strict=True):
            self.log(f"test/accuracy/{task}", value)
        self.log("test/accuracy", torch.stack(values).mean())

    def on_train_epoch_start(self) -> None:
        # What a network draws itself, as in dropout, follows from seed and epoch: a resumed run draws it again.
        torch.manual_seed((self.config.seed * PRIME + self.current_epoch) * PRIME + self.global_rank)
        if self.config.grid == "fixed":
            regrid_(self.model, torch.empty(1, *self.shape, device=self.device))

    def on_train_epoch_end(self) -> None:
        axes = registry.ARCHITECTURES[self.config.model].axes
        for number, pair in enumerate(strides_of(self), start=1):
            for axis, stride in zip(axes, pair, strict=False):  # a pair of one axis has the same stride twice
                self.log(f"stride/{number}_{axis}", stride)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        config = self.config
        groups = param_groups(self.model, lr=config.lr, weight_decay=config.weight_decay, stride_lr=config.stride_lr)
        optimizer: torch.optim.Optimizer
        if config.optimizer == "adam":
            optimizer = torch.optim.Adam(groups, lr=config.lr)
        else:
            optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=MOMENTUM)
        steps = int(self.trainer.estimated_stepping_batches)
        factor = SCHEDULES[config.schedule]
        # The half step keeps the very first and the very last update from being zero.
        scheduler = LambdaLR(optimizer, lambda done: factor((done + 0.5) / (steps + 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _end(metric: nn.Module) -> Tensor:
    """The value of a metric over all batches and processes; it starts anew."""
    assert isinstance(metric, MeanMetric)
    value: Tensor = metric.compute()
    metric.reset()
    return value


def strides_of(classifier: Classifier) -> list[list[float]]:
    """The current pair of strides of each downsampler; the configured ones where none is learned."""
    learned = [[float(value) for value in stride] for stride in learned_strides(classifier.model).values()]
    pairs = [stride * 2 if len(stride) == 1 else stride for stride in learned]
    return pairs or [list(pair) for pair in classifier.config.strides]


class Curves(pl.Callback):
    """One entry per epoch: losses, accuracy, strides, seconds. It is part of the checkpoint and survives a resume."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        tasks = {task: metrics[f"test/accuracy/{task}"] for task in pl_module.tasks}
        self.epochs.append(
            {
                "train_loss": metrics["train/loss"],
                "test_loss": metrics["test/loss"],
                "test_accuracy": metrics["test/accuracy"],
                **({"test_top5": metrics["test/top5"]} if "test/top5" in metrics else {}),
                **({"tasks": tasks} if len(tasks) > 1 else {}),
                "strides": strides_of(pl_module),
                "seconds": time.perf_counter() - self.started,
            }
        )

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = list(state_dict["epochs"])


class LastCheckpoint(Checkpoint):
    """Keeps the state after the latest finished epoch in one file, which is at no time half written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        unfinished = self.path.with_suffix(".part")
        trainer.save_checkpoint(unfinished)  # called by all processes, written by the first one
        if trainer.is_global_zero:
            unfinished.replace(self.path)


def load_classifier(checkpoint: Path) -> Classifier:
    """The trained classifier of a run, on the CPU and in evaluation mode."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    values = saved["hyper_parameters"]
    heads = {task: tuple(names) for task, names in values["heads"].items()}
    classifier = Classifier(RunConfig.from_json(values["config"]), heads, values["shape"])
    classifier.load_state_dict(saved["state_dict"])
    return classifier.eval()
