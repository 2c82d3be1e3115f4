"""What Lightning calls during a training: a curve per run, and checkpoints of its last and its best epoch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from anystride.lab.files import replacing
from anystride.lab.models.measure import multiply_accumulates
from anystride.lab.run.folder import BEST, CHECKPOINT
from anystride.lab.run.training import Classifier, strides_of

SLACK = 1.02
"""An epoch is within a budget up to so many times its limit."""


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, beside its place: Lightning's own goes by way of the system's folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(Path(path)) as unfinished, unfinished.open("wb") as file:
            torch.save(checkpoint, file)


def measures(metrics: dict[str, float], part: str, tasks: tuple[str, ...]) -> dict[str, Any]:
    """What was measured on a part of the data, "val" or "test", by the names that records use."""
    name = {"val": "validation", "test": "test"}[part]
    by_task = {task: metrics[f"{part}/accuracy/{task}"] for task in tasks}
    return {
        f"{name}_loss": metrics[f"{part}/loss"],
        f"{name}_accuracy": metrics[f"{part}/accuracy"],
        **({f"{name}_top5": metrics[f"{part}/top5"]} if f"{part}/top5" in metrics else {}),
        **({"tasks": by_task} if len(tasks) > 1 else {}),
    }


class Curves(pl.Callback):
    """One entry per epoch: losses, accuracy, strides, seconds. It is part of the checkpoint and survives a resume.

    Args:
        planned: the number of epochs at which the run is to end; what earlier commands planned comes from a checkpoint.
    """

    def __init__(self, planned: int) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.planned = [planned]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        part = "val" if pl_module.config.validation else "test"
        self.epochs.append(
            {
                "train_loss": metrics["train/loss"],
                **measures(metrics, part, pl_module.tasks),
                "strides": strides_of(pl_module),
                **self._costs(pl_module),
                "seconds": time.perf_counter() - self.started,
            }
        )

    @staticmethod
    def _costs(classifier: Classifier) -> dict[str, Any]:
        if classifier.budget is None:
            return {}
        costs = int(multiply_accumulates(classifier.model, torch.empty(1, *classifier.shape, device=classifier.device)))
        return {"multiply_accumulates": costs, "within_budget": costs <= SLACK * classifier.budget.limit}

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "planned": self.planned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = list(state_dict["epochs"])
        self.planned = list(dict.fromkeys([*state_dict.get("planned", []), *self.planned]))


class Checkpoints(Checkpoint):
    """Keeps the state after the latest epoch, and the best epoch's where there are validation examples.

    A first checkpoint is written before the first step, so that there is one to go on from at any time. Stands behind
    `Curves` in the list of callbacks, whose entries it reads.

    Args:
        folder: of the run.
        curves: of the run.
        patience: epochs without a better validation accuracy after which the training ends; 0 for no such end.
    """

    def __init__(self, folder: Path, curves: Curves, patience: int) -> None:
        self.folder, self.curves, self.patience = folder, curves, patience

    @property
    def best(self) -> int | None:
        """The number of the best epoch, from 0 on, the first of equals; None without validation examples.

        Epochs that are within the budget come before others.
        """
        epochs = self.curves.epochs
        if not epochs or "validation_accuracy" not in epochs[0]:
            return None
        order = [(epoch.get("within_budget", True), epoch["validation_accuracy"]) for epoch in epochs]
        return order.index(max(order))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.curves.epochs:
            trainer.save_checkpoint(self.folder / CHECKPOINT)
        self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # All processes call this, the first one writes. The best goes first: a run that is killed between the two
        # repeats this epoch, and comes to the same best again.
        if self.best == len(self.curves.epochs) - 1:
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        trainer.save_checkpoint(self.folder / CHECKPOINT)
        self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        if self.patience and self.best is not None and len(self.curves.epochs) - 1 - self.best >= self.patience:
            trainer.should_stop = True
