"""What a checkpoint must hold: each entry is checked before anything uses it."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anystride.lab.models import registry
from anystride.lab.models.network import Network
from anystride.lab.run.config import RunConfig
from anystride.lab.run.optimiser import groups

LARGEST = 2**28
"""Values of one input; a damaged shape must not ask for all memory."""
PREFIX = "model."
"""Of the network's weights in a checkpoint."""
BUDGET = "budget.multiplier"
"""What a budget keeps, in a checkpoint."""
FIT_STATES = (
    "state_dict",
    "epoch_loop.state_dict",
    "epoch_loop.automatic_optimization.state_dict",
    "epoch_loop.manual_optimization.state_dict",
    "epoch_loop.val_loop.state_dict",
)
FIT_PROGRESS = (
    "epoch_progress",
    "epoch_loop.batch_progress",
    "epoch_loop.scheduler_progress",
    "epoch_loop.val_loop.batch_progress",
)
"""What Lightning reads of its training loop."""
OF_GROUPS = {
    "sgd": ("lr", "initial_lr", "weight_decay", "momentum", "dampening", "nesterov", "maximize"),
    "adam": ("lr", "initial_lr", "weight_decay", "betas", "eps", "amsgrad", "maximize"),
}
"""What each optimiser keeps of a group of weights."""
OF_WEIGHTS = {"sgd": {"momentum_buffer"}, "adam": {"step", "exp_avg", "exp_avg_sq"}}
"""What each optimiser keeps of a weight."""
OF_SCHEDULE = ("base_lrs", "_last_lr", "lr_lambdas")


def check(saved: object) -> Network:
    """Check everything that is needed to use a network.

    Args:
        saved: what a checkpoint holds.

    Returns:
        The network of the checkpoint on the meta device, which has shapes and no values.

    Raises:
        ValueError: an entry is absent, has the wrong type, or does not fit the others.
    """
    values = entry(saved, "hyper_parameters", dict)
    config = configuration(entry(values, "config", dict))
    heads = entry(values, "heads", dict)
    if not heads:
        raise ValueError("heads is empty")
    for task in heads:
        names = entry(heads, task, (list, tuple))
        if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ValueError(f"heads has classes of {task!r} that are no different names")
        json.dumps([task, *names], ensure_ascii=False).encode()  # an error for what no file can hold
    shape = entry(values, "shape", (list, tuple))
    if len(shape) not in (2, 3) or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"shape must be that of an input, (C, T) or (C, H, W), got {shape!r}")
    if math.prod(shape) > LARGEST:
        raise ValueError(f"shape must have at most {LARGEST:,} values, got {shape!r}")
    json.dumps(values.get("preprocessing", {}))
    if not isinstance(values.get("preprocessing", {}), dict):
        raise ValueError("preprocessing is no dictionary")
    limit = values.get("budget")
    if limit is not None and (type(limit) not in (int, float) or not 0 < limit < math.inf):
        raise ValueError(f"budget must be a number above 0, got {limit!r}")
    with torch.device("meta"):  # as fast for any width that a damaged file may ask for
        model = registry.build(config.model, config.network([len(names) for names in heads.values()], shape[0]))
    expected = {PREFIX + name: value for name, value in model.state_dict().items()}
    if limit is not None:
        expected |= {BUDGET: torch.empty((), dtype=torch.float64, device="meta")}
    _check_weights(entry(saved, "state_dict", dict), expected)
    return model


def entry(values: object, name: str, kind: type | tuple[type, ...]) -> Any:
    """An entry of a dictionary; ValueError where it is absent, of another type, or the dictionary is none."""
    if not isinstance(values, Mapping):
        raise ValueError(f"there is a {type(values).__name__} where a dictionary with {name!r} should be")
    if name not in values:
        raise ValueError(f"{name!r} is missing")
    value = values[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{name!r} is a {type(value).__name__}")
    return value


def configuration(values: dict[str, Any]) -> RunConfig:
    """A configuration from JSON values.

    Raises:
        ValueError: a value has another type than its field.
        TypeError: as `RunConfig.from_json`.
    """
    config = RunConfig.from_json(values)
    for name, hint in typing.get_type_hints(RunConfig).items():
        allowed = typing.get_args(hint) or (hint,)
        value = getattr(config, name)
        if name != "strides" and type(value) not in (*allowed, *((int,) if float in allowed else ())):
            raise ValueError(f"{name} has the value {value!r}")
    return config


def _check_weights(weights: dict[str, Any], expected: dict[str, Tensor]) -> None:
    for names, what in ((set(expected) - set(weights), "missing"), (set(weights) - set(expected), "unknown")):
        if names:
            raise ValueError(f"{len(names)} weights are {what}, as {min(map(str, names))}")
    for name, value in expected.items():
        there = weights[name]
        if not isinstance(there, Tensor) or there.layout != torch.strided:
            raise ValueError(f"{name} is no tensor of values")
        if (there.shape, there.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"{name} has the shape {tuple(there.shape)} and type {there.dtype}, "
                f"its network {tuple(value.shape)} and {value.dtype}"
            )


def check_training(saved: dict[str, Any], model: Network) -> None:
    """Check everything that is needed to train on.

    Args:
        saved: as of `check`, which it passed.
        model: what `check` returned.

    Raises:
        ValueError: an entry is absent, has the wrong type, or does not fit the others.
    """
    config = configuration(saved["hyper_parameters"]["config"])
    if entry(saved, "epoch", int) < 0 or entry(saved, "global_step", int) < 0:
        raise ValueError("epoch and global_step must be at least 0")
    epochs = entry(entry(entry(saved, "callbacks", dict), "Curves", dict), "epochs", list)
    for epoch in epochs:
        for name in ("train_loss", "validation_accuracy" if config.validation else "test_accuracy"):
            entry(epoch, name, (int, float))
        entry(epoch, "strides", list)
    _check_loops(entry(saved, "loops", dict), len(epochs))
    states, schedules = entry(saved, "optimizer_states", list), entry(saved, "lr_schedulers", list)
    if len(states) != 1 or len(schedules) != 1:
        raise ValueError("optimizer_states and lr_schedulers must have one entry")
    made = groups(model, config)
    _check_optimizer(states[0], [group["params"] for group in made], config.optimizer)
    entry(schedules[0], "last_epoch", int)
    for name in OF_SCHEDULE:
        if len(entry(schedules[0], name, list)) != len(made):
            raise ValueError(f"{name} of the schedule has another length than there are groups of weights")


def _check_loops(loops: dict[str, Any], epochs: int) -> None:
    fit = entry(loops, "fit_loop", dict)
    for name in FIT_STATES:
        entry(fit, name, dict)
    for name in FIT_PROGRESS:
        for part in ("total", "current"):
            counts = entry(entry(fit, name, dict), part, dict)
            for each in ("ready", "completed"):
                if entry(counts, each, int) < 0:
                    raise ValueError(f"{name} counts {counts[each]}")
    step = entry(entry(fit, "epoch_loop.automatic_optimization.optim_progress", dict), "optimizer", dict)
    for name in ("step", "zero_grad"):
        for part in ("total", "current"):
            entry(entry(entry(step, name, dict), part, dict), "ready", int)
    passed = entry(fit["epoch_progress"]["current"], "processed", int)
    if passed != epochs:
        raise ValueError(f"the training loop has {passed} epochs, and the curves have {epochs}")


def _check_optimizer(state: object, groups: list[list[Tensor]], optimizer: str) -> None:
    saved = entry(state, "param_groups", list)
    if [len(entry(group, "params", list)) for group in saved] != [len(group) for group in groups]:
        raise ValueError("the optimiser has other weights than the network")
    for group in saved:
        for name in OF_GROUPS[optimizer]:
            entry(group, name, (int, float, bool, tuple, list))
    numbers = [number for group in saved for number in group["params"]]
    weights = dict(zip(numbers, (weight for group in groups for weight in group), strict=True))
    if len(weights) != len(numbers):
        raise ValueError("the optimiser has a weight twice")
    for number, kept in entry(state, "state", dict).items():
        if number not in weights or not isinstance(kept, dict) or set(kept) != OF_WEIGHTS[optimizer]:
            raise ValueError(f"the optimiser's state of weight {number!r} is incomplete")
        for name, value in kept.items():
            if not isinstance(value, Tensor) or value.shape not in (torch.Size(), weights[number].shape):
                raise ValueError(f"the optimiser's {name} of weight {number} has the wrong shape")
