"""Training one classifier with Lightning: the objective, the optimiser, and what is kept after each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from anystride import Budget, complexity, fit_macs_, macs, regrid_
from anystride.lab.data.module import PRIME
from anystride.lab.data.source import Batch
from anystride.lab.models import registry
from anystride.lab.models.measure import learned
from anystride.lab.models.network import Network, in_fast_layout
from anystride.lab.run.checkpoint import read_checkpoint
from anystride.lab.run.config import RunConfig
from anystride.lab.run.optimiser import optimiser_of, schedule_of

TOP = 5
"""With more classes than this, a second metric counts whether the right one is among this many best guesses."""


class Classifier(pl.LightningModule):
    """A network trained on cross-entropy + lam * J (Eq. 6), as its configuration says: one head per task of `heads`.

    Labels number the classes of all tasks: a label also tells the task of an example. An example is compared with the
    classes of its own task only. `shape` (C, H, W) is that of one input, and `preprocessing` says how a file becomes
    one, see `Source`.
    """

    def __init__(
        self,
        config: RunConfig,
        heads: Mapping[str, tuple[str, ...]],
        shape: Sequence[int],
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # The checkpoint carries what is needed to build the model again, and to use it, as plain values.
        plain = {"config": config.to_json(), "heads": {task: list(names) for task, names in heads.items()}}
        self.save_hyperparameters(
            {**plain, "shape": list(shape), "preprocessing": dict(preprocessing or {})}, logger=False
        )
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
        self.budget: Budget | None = None

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
        if mixed:
            other, share = mixed
            loss = self._loss(logits, labels, share) + self._loss(logits, other, 1 - share)
        else:
            loss = self._loss(logits, labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)
        if self.config.lam:
            over: Any = self.config.lam_over
            example = torch.empty(1, *self.shape, device=self.device) if over == "convolutions" else None
            loss = loss + self.config.lam * complexity(self.model, example, over)
        if self.budget is not None and self.current_epoch < self.resting:
            loss = loss + self.budget(macs(self.model, torch.empty(1, *self.shape, device=self.device)))
        return loss

    @property
    def resting(self) -> int:
        """The first epoch, from 0 on, in which strides stay as they are; the number of epochs for none."""
        return math.ceil(self.config.stride_until * self.config.epochs)

    def limit_macs(self, limit: float) -> None:
        """Hold the multiply-accumulates per example to `limit` from now on, by a term of the loss."""
        self.budget = Budget(limit)
        self.hparams["budget"] = limit

    def _loss(self, logits: Tensor, labels: Tensor, share: Tensor | None = None) -> Tensor:
        """The mean loss, times `share`: one number, or one per example."""
        reduction = "mean" if share is None or share.ndim == 0 else "none"
        own, smoothing = self.own(logits, labels), self.config.label_smoothing
        loss = cross_entropy(own, labels, label_smoothing=smoothing, reduction=reduction)
        return loss if share is None else (share * loss).mean()

    def own(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits with those of other tasks' classes at minus infinity."""
        if len(self.tasks) == 1:
            return logits
        return logits.masked_fill(self.task_of_class != self.task_of_class[labels][:, None], -math.inf)

    def validation_step(self, batch: Batch, _: int) -> None:
        self._measure(batch, "val" if self.config.validation else "test")

    def on_validation_epoch_end(self) -> None:
        self._log_measures("val" if self.config.validation else "test")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._log_measures("test")

    def _measure(self, batch: Batch, part: str) -> None:
        inputs, labels, *group = batch
        logits = self(inputs)
        if group:
            # Section 3.1: the logits of an example's windows are averaged.
            sums = logits.new_zeros(len(labels), logits.shape[1]).index_add(0, group[0], logits)
            logits = sums / torch.bincount(group[0], minlength=len(labels))[:, None]
        logits = self.own(logits.float(), labels)
        right = (logits.argmax(dim=1) == labels).float()
        for number, metric in enumerate(self.right):
            mine = right[self.task_of_class[labels] == number]
            if len(mine):
                metric(mine)
        if self.top is not None:
            self.top((logits.topk(TOP).indices == labels[:, None]).any(dim=1).float())
        self.log(f"{part}/loss", cross_entropy(logits, labels), on_epoch=True, batch_size=len(labels), sync_dist=True)

    def _log_measures(self, part: str) -> None:
        values = [_end(metric) for metric in self.right]
        if self.top is not None:
            self.log(f"{part}/top5", _end(self.top))
        for task, value in zip(self.tasks, values, strict=True):
            self.log(f"{part}/accuracy/{task}", value)
        self.log(f"{part}/accuracy", torch.stack(values).mean())

    def on_train_epoch_start(self) -> None:
        # What a network draws itself, as in dropout, follows from seed and epoch: a resumed run draws it again.
        torch.manual_seed((self.config.seed * PRIME + self.current_epoch) * PRIME + self.global_rank)
        if self.budget is not None and self.current_epoch == self.resting:
            fit_macs_(self.model, torch.empty(1, *self.shape, device=self.device), self.budget.limit)
        if self.config.grid == "fixed":
            regrid_(self.model, torch.empty(1, *self.shape, device=self.device))

    def on_train_epoch_end(self) -> None:
        axes = registry.ARCHITECTURES[self.config.model].axes
        for number, pair in enumerate(strides_of(self), start=1):
            for axis, stride in zip(axes, pair, strict=False):  # a pair of one axis has the same stride twice
                self.log(f"stride/{number}_{axis}", stride)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optimiser_of(self.model, self.config)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = schedule_of(optimizer, self.config, steps, self.resting)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _end(metric: nn.Module) -> Tensor:
    """The value of a metric over all batches and processes; it starts anew."""
    assert isinstance(metric, MeanMetric)
    value: Tensor = metric.compute()
    metric.reset()
    return value


def strides_of(classifier: Classifier) -> list[list[float]]:
    """The current pair of strides of each downsampler; the configured ones where none is learned."""
    found = [[float(value) for value in stride] for stride in learned(classifier.model).values()]
    pairs = [stride * 2 if len(stride) == 1 else stride for stride in found]
    return pairs or [list(pair) for pair in classifier.config.strides]


def load_classifier(checkpoint: Path) -> Classifier:
    """The trained classifier of a run, on the CPU and in evaluation mode.

    Raises:
        UsageError: as `checkpoint.read_checkpoint`.
    """
    return restored(read_checkpoint(checkpoint))


def restored(saved: Mapping[str, Any]) -> Classifier:
    """The classifier of what `checkpoint.read_checkpoint` gave, on the CPU and in evaluation mode."""
    values = saved["hyper_parameters"]
    heads = {task: tuple(names) for task, names in values["heads"].items()}
    classifier = Classifier(
        RunConfig.from_json(values["config"]), heads, values["shape"], values.get("preprocessing", {})
    )
    if values.get("budget"):
        classifier.limit_macs(values["budget"])
    classifier.load_state_dict(saved["state_dict"])
    return classifier.eval()
