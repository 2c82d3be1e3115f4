"""Training one classifier with Lightning: the objective, the optimiser, and what is kept after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassAccuracy

from anystride import complexity, learned_strides, param_groups
from anystride.lab.config import RunConfig
from anystride.lab.models.resnet import ResNet, resnet18

MOMENTUM = 0.9
WARM_UP = 0.2
"""The share of the training over which the cosine schedule's learning rate rises."""


def cosine(progress: float) -> float:
    """The learning rate's factor after a share ``progress`` of the training: a linear rise, then half a cosine."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))


def step(progress: float) -> float:
    """The paper's schedule for CIFAR (section 3.2): divided by 10 at one half and again at three quarters."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "step": step}


class Classifier(pl.LightningModule):
    """A ResNet-18 trained by SGD on cross-entropy + lam * J (Eq. 6), as its configuration says."""

    def __init__(self, config: RunConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        # The checkpoint carries what is needed to build the model again, as plain values.
        self.save_hyperparameters(
            {"config": config.to_json(), "num_classes": num_classes, "in_channels": in_channels}, logger=False
        )
        self.config = config
        model = resnet18(
            num_classes,
            in_channels,
            config.width,
            config.method,
            config.strides,
            smoothness=config.smoothness,
            shared=config.shared_stride,
        )
        # On a CPU a step takes between 0.6 and 0.9 times as long in this layout, at the demo's size.
        self.model: ResNet = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        if self.config.lam:
            loss = loss + self.config.lam * complexity(self.model)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, labels = batch
        logits = self(images)
        self.accuracy(logits, labels)
        self.log("test/loss", cross_entropy(logits, labels), on_epoch=True, batch_size=len(labels))
        self.log("test/accuracy", self.accuracy, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        for stage, (vertical, horizontal) in enumerate(strides_of(self), start=1):
            self.log(f"stride/{stage}_vertical", vertical)
            self.log(f"stride/{stage}_horizontal", horizontal)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        config = self.config
        groups = param_groups(self.model, lr=config.lr, weight_decay=config.weight_decay, stride_lr=config.stride_lr)
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=MOMENTUM)
        steps = int(self.trainer.estimated_stepping_batches)
        factor = SCHEDULES[config.schedule]
        # The half step keeps the very first and the very last update from being zero.
        scheduler = LambdaLR(optimizer, lambda done: factor((done + 0.5) / (steps + 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def strides_of(classifier: Classifier) -> list[list[float]]:
    """The current (vertical, horizontal) stride of each shortcut block; the configured ones where none is learned."""
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
        metrics = {name: trainer.callback_metrics[name].item() for name in ("train/loss", "test/loss", "test/accuracy")}
        self.epochs.append(
            {
                "train_loss": metrics["train/loss"],
                "test_loss": metrics["test/loss"],
                "test_accuracy": metrics["test/accuracy"],
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
        trainer.save_checkpoint(unfinished)
        unfinished.replace(self.path)


def load_classifier(checkpoint: Path) -> Classifier:
    """The trained classifier of a run, on the CPU and in evaluation mode."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    values = saved["hyper_parameters"]
    classifier = Classifier(RunConfig.from_json(values["config"]), values["num_classes"], values["in_channels"])
    classifier.load_state_dict(saved["state_dict"])
    return classifier.eval()
