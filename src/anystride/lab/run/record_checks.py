"""What a record must hold: each value is checked before anything is computed from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.run.checkpoint_checks import configuration
from anystride.lab.run.config import RunConfig

LARGEST_STRIDE = 1e6
LARGEST = 2**63 - 1
"""Of a whole number; sums and ratios of such numbers are finite."""
DEEPEST_MAP = 3
"""Axes of a map at most."""


def check(values: Mapping[str, Any]) -> None:
    """Check the values of a record that has all its fields, each of the right type.

    Args:
        values: what a file holds.

    Raises:
        ValueError: a value that no run leaves; the message names its field.
    """
    _texts(values)
    config = _configuration(values["configuration"])
    count = len(config.strides)
    for field in ("start_strides", "strides"):
        _strides(values[field], count, field)
    for field in ("start_map_sizes", "map_sizes"):
        _sizes(values[field], field)
    _whole(values["seed"], "seed", least=-LARGEST)
    for field in ("start_multiply_accumulates", "multiply_accumulates", "parameters"):
        _whole(values[field], field)
    for field in ("devices", "best_epoch", "counter"):
        if values.get(field) is not None:
            _whole(values[field], field, least=1)
    for number in _list(values.get("input_shape") or [], "input_shape"):
        _whole(number, "input_shape", least=1)
    _shares(values)
    if values["loss"] is not None:
        _number(values["loss"], "loss")
    for name in ("train", "total"):
        if _number(values["seconds"].get(name), f"seconds of {name}") < 0:
            raise ValueError(f"seconds of {name} must be at least 0, got {values['seconds'][name]!r}")
    for number, epoch in enumerate(values["epochs"], start=1):
        _epoch(epoch, count, f"epoch {number}")
    for number in _list(values.get("extended") or [], "extended"):
        _whole(number, "extended", least=1)


def _texts(values: Mapping[str, Any]) -> None:
    for field in ("command", "classes"):
        if not all(isinstance(text, str) for text in values[field]):
            raise ValueError(f"{field} must be texts, got {_short(values[field])}")
    if not isinstance(values.get("examples"), str | None):
        raise ValueError(f"examples must be a text, got {_short(values['examples'])}")
    for field in ("versions", "hardware"):
        if not all(isinstance(value, str | int | float | None) for value in values[field].values()):
            raise ValueError(f"{field} must be texts and numbers, got {_short(values[field])}")


def _configuration(values: dict[str, Any]) -> RunConfig:
    try:
        config = configuration(values)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"configuration is none: {_short(str(error))}") from None
    for name, known in (("model", ARCHITECTURES), ("method", DOWNSAMPLERS)):
        if getattr(config, name) not in known:
            raise ValueError(f"configuration: {name} must be one of {', '.join(known)}, got {getattr(config, name)!r}")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            _number(value, f"configuration: {field.name}")
    if config.smoothness <= 0:
        raise ValueError(f"configuration: smoothness must be above 0, got {config.smoothness}")
    _strides(config.strides, None, "configuration: strides")
    return config


def _strides(value: object, count: int | None, field: str, none_is_valid: bool = False) -> None:
    pairs = _list(value, field)
    if not pairs or (count is not None and len(pairs) != count):
        wanted = f"{count} pairs" if count else "a pair per downsampler"
        raise ValueError(f"{field} must have {wanted}, got {_short(value)}")
    for pair in pairs:
        if len(_list(pair, field)) != 2:
            raise ValueError(f"{field} must be pairs of numbers, got {_short(pair)}")
        for stride in pair:
            if stride is None and none_is_valid:
                continue
            if not 1 <= _number(stride, field) <= LARGEST_STRIDE:
                raise ValueError(f"{field} must be in [1, {LARGEST_STRIDE:g}], got {_short(stride)}")


def _sizes(value: object, field: str) -> None:
    stages = _list(value, field)
    axes = {len(_list(size, field)) for size in stages}
    if not stages or len(axes) > 1 or not 1 <= max(axes) <= DEEPEST_MAP:
        raise ValueError(f"{field} must have the sizes of each stage, as in [[32, 32], [16, 16]], got {_short(value)}")
    for size in stages:
        for length in size:
            _whole(length, field, least=1)


def _shares(values: Mapping[str, Any]) -> None:
    accuracies = values.get("accuracies") or {}
    if not isinstance(accuracies, Mapping):
        raise ValueError(f"accuracies must have an accuracy for each task, got {_short(accuracies)}")
    found = {f"accuracies of {task}": value for task, value in accuracies.items()}
    found |= {name: values[name] for name in ("top5", "validation_accuracy") if values.get(name) is not None}
    for name, value in {"accuracy": values["accuracy"], **found}.items():
        if not 0 <= _number(value, name) <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")


def _epoch(epoch: object, count: int, name: str) -> None:
    if not isinstance(epoch, Mapping) or "strides" not in epoch:
        raise ValueError(f"{name} must have strides, got {_short(epoch)}")
    # A run that diverged has no number there.
    _strides(epoch["strides"], count, f"{name}: strides", none_is_valid=True)
    for field, value in epoch.items():
        if field in ("strides", "tasks", "within_budget") or value is None:
            continue
        _number(value, f"{name}: {field}")


def _list(value: object, field: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{field} must be a list, got {_short(value)}")
    return value


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or math.isnan(value):
        raise ValueError(f"{field} must be a finite number, got {_short(value)}")
    return value


def _whole(value: Any, field: str, least: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise ValueError(f"{field} must be a whole number of at least {least}, got {_short(value)}")


def _short(value: object) -> str:
    """A value in a message: cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
