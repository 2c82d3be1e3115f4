"""Everything that can be wrong with a run, found before its folder is touched: data, network, strides, batches."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from anystride import fit_macs_
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.source import Source
from anystride.lab.errors import UsageError
from anystride.lab.models.downsample import DOWNSAMPLERS, RELEASE
from anystride.lab.models.measure import map_sizes, multiply_accumulates
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.report.text import strides_text
from anystride.lab.run.config import RunConfig
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.initial import start_from
from anystride.lab.run.training import Classifier, strides_of


@dataclass(frozen=True)
class Ready:
    """A run before its first step.

    Args:
        config: what is trained.
        environment: where.
        source: the examples.
        classifier: untrained, or with the weights that it is to start from.
        start: the record's fields that begin with "start".
        started: when this began, by `time.perf_counter`.
    """

    config: RunConfig
    environment: RunEnvironment
    source: Source
    classifier: Classifier
    start: dict[str, Any]
    started: float


def prepare(config: RunConfig, environment: RunEnvironment) -> Ready:
    """Open the data and build the network of a run.

    Args:
        config: of the run.
        environment: of the run.

    Raises:
        UsageError: the configuration does not fit the data, the network or the number of processes.
    """
    started = time.perf_counter()
    _check_method(config)
    if config.patience and not config.validation:
        raise UsageError(f"--patience {config.patience} needs validation examples; give --validation, such as 0.1")
    source = open_source(config, environment.root, environment.download)
    check_batch(config, source, environment)
    torch.manual_seed(config.seed)
    classifier = build(config, source)
    sizes = map_sizes(classifier.model, source.example)
    _check_strides(config, sizes)
    if config.init:
        start_from(classifier, Path(config.init))
        sizes = map_sizes(classifier.model, source.example)
    costs = multiply_accumulates(classifier.model, source.example)
    start = {
        "start_strides": strides_of(classifier),
        "start_map_sizes": sizes,
        "start_multiply_accumulates": costs,
    }
    if config.budget_macs:
        _limit_macs(classifier, source, costs)
    return Ready(config, environment, source, classifier, start, started)


def _check_method(config: RunConfig) -> None:
    """UsageError for what holds costs down, with a method whose costs follow no stride that we know of."""
    for option, value in (("--budget-macs", config.budget_macs), ("--lam", config.lam)):
        if value and (not DOWNSAMPLERS[config.method].learns or config.method in RELEASE):
            known = ", ".join(name for name, kind in DOWNSAMPLERS.items() if kind.learns and name not in RELEASE)
            raise UsageError(f"{option} {value} needs a method that learns, {known}; got --method {config.method}")


def _limit(config: RunConfig, source: Source, costs: int) -> float:
    text = config.budget_macs
    if config.budget_strides is not None:
        twin = replace(config, method="strided", strides=config.budget_strides)
        return multiply_accumulates(build(twin, source).model, source.example)
    return float(text.removesuffix("x")) * costs if text.endswith("x") else float(text)


def _limit_macs(classifier: Classifier, source: Source, costs: int) -> None:
    """Move the strides to just within the budget, where training starts; UsageError for one that no strides meet.

    A multiplier that must first bring costs down grows meanwhile, and carries them too far.
    """
    limit = _limit(classifier.config, source, costs)
    try:
        fit_macs_(classifier.model, source.example, limit)
    except ValueError as error:
        raise UsageError(f"--budget-macs {classifier.config.budget_macs} cannot be met: {error}") from error
    classifier.limit_macs(limit)


def build(config: RunConfig, source: Source) -> Classifier:
    """Build the untrained classifier; UsageError for settings that the network refuses."""
    axes, shape = ARCHITECTURES[config.model].axes, tuple(source.example.shape[1:])
    if len(axes) != len(shape) - 1:
        raise UsageError(
            f"--model {config.model} works along {' and '.join(axes)}, and --data {config.data} has inputs of shape "
            f"{shape}; leave --model out, and it follows from the data"
        )
    try:
        return Classifier(config, source.heads, source.example.shape[1:], source.preprocessing)
    except ValueError as error:
        option = str(error).partition(" ")[0]
        raise UsageError(f"{'--' * (option in vars(config))}{error}") from error


def check_batch(config: RunConfig, source: Source, environment: RunEnvironment) -> None:
    """UsageError for a batch size that the examples or the processes cannot give."""
    count, parts = source.train_length, config.accumulate * environment.world
    pairs = config.mixup > 0 and config.mixup_by == "pair"
    if config.batch_size * (1 + pairs) > count and not config.epoch_steps:
        most = f"{count // (1 + pairs)}, {'half of ' * pairs}the training examples"
        raise UsageError(f"--batch-size must be at most {most}, got {config.batch_size}; pass a smaller one")
    if config.batch_size % parts:
        raise UsageError(
            f"--batch-size must be a multiple of {parts}, the parts that --accumulate {config.accumulate} and "
            f"{environment.world} processes make of a step, got {config.batch_size}"
        )


def _check_strides(config: RunConfig, sizes: list[list[int]]) -> None:
    if len(sizes) <= len(config.strides):
        return  # the maps before the strides are not listed
    for number, (stride, size) in enumerate(zip(config.strides, sizes, strict=False), start=1):
        if any(one > length for one, length in zip(stride, size, strict=False)):  # series have one length
            largest, unit = "x".join(map(str, size)), "pixels" if len(size) == 2 else "samples"
            given = strides_text([list(stride)])
            raise UsageError(f"--strides must not exceed the map, {largest} {unit} before stride {number}, got {given}")
