"""What changes the parameters of a run: groups with their rates and decays, the optimiser, and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from anystride import param_groups
from anystride.lab.models.release import ReleaseDiffStride2d
from anystride.lab.run.config import RunConfig

MOMENTUM = 0.9
WARM_UP = 0.2
"""The share of the training over which the cosine schedule's learning rate rises."""

Group = dict[str, Any]


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


def groups(model: nn.Module, config: RunConfig) -> list[Group]:
    """Parameter groups: weights, then norms and biases where they do not decay, then strides, which never do."""
    stride_lr = config.lr if config.stride_lr is None else config.stride_lr
    theirs = [module.stride for module in model.modules() if isinstance(module, ReleaseDiffStride2d)]
    known = {id(stride) for stride in theirs}
    weights, *strides = param_groups(model, config.lr, config.weight_decay, stride_lr)
    weights["params"] = [parameter for parameter in weights["params"] if id(parameter) not in known]
    if theirs:
        strides = [{"params": theirs, "lr": stride_lr, "weight_decay": 0.0}]
    for group in strides:
        group["learns_strides"] = True
    if config.decay == "all":
        return [weights, *strides]
    vectors = [parameter for parameter in weights["params"] if parameter.ndim < 2]
    weights["params"] = [parameter for parameter in weights["params"] if parameter.ndim >= 2]
    return [weights, {"params": vectors, "lr": config.lr, "weight_decay": 0.0}, *strides]


def optimiser_of(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """The optimiser of a run."""
    made = groups(model, config)
    if config.optimizer == "adam":
        return torch.optim.Adam(made, lr=config.lr)
    return torch.optim.SGD(made, lr=config.lr, momentum=MOMENTUM)


def schedule_of(optimiser: torch.optim.Optimizer, config: RunConfig, steps: int, resting: int) -> LambdaLR:
    """The learning rates of a run, step by step.

    Args:
        optimiser: of `optimiser_of`.
        config: of the run.
        steps: of the whole run.
        resting: the first epoch, from 0 on, in which strides stay as they are.
    """
    factor = SCHEDULES[config.schedule]
    rest = resting * steps / config.epochs

    def of_weights(done: int) -> float:
        # The half step keeps the very first and the very last update from being zero.
        return factor((done + 0.5) / (steps + 1))

    def of_strides(done: int) -> float:
        return of_weights(done) if done < rest else 0.0

    factors: list[Callable[[int], float]] = [
        of_strides if group.get("learns_strides") else of_weights for group in optimiser.param_groups
    ]
    return LambdaLR(optimiser, factors)
