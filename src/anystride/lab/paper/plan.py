"""What a grid will cost: runs, multiply-accumulates, device time and disk, before anything is trained or downloaded.

Multiply-accumulates are those of the strides at the start: learned ones change them. The device's speed is measured
with the cheapest and the most expensive network of each method, several steps of each: the median, the fastest and the
slowest step give an estimate and its range. Between the two networks the time of a step grows linearly with its
multiply-accumulates. What is left out: the loading of data, the evaluation after each epoch, and the optimiser.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from anystride import macs
from anystride.lab.data.names import tasks_of
from anystride.lab.models import registry
from anystride.lab.models.network import in_fast_layout
from anystride.lab.paper.datasets import DatasetFacts, dataset_facts
from anystride.lab.paper.recipe import Grid
from anystride.lab.report.text import counted
from anystride.lab.run.config import RunConfig

PASSES = 3
"""A training step costs three forward passes: one forward, one for the inputs' and one for the weights' gradients."""
BYTES = 4
STATES = {"sgd": 1, "adam": 2}
"""Values that an optimiser keeps per parameter."""
PATIENCE = 1.5
"""Seconds of measurement for each network."""
STEPS = (5, 15)
"""Steps that are measured: at least, and at most."""


@dataclass(frozen=True)
class Range:
    """A quantity as it was measured: the smallest value, the median, and the largest."""

    low: float
    middle: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(factor * self.low, factor * self.middle, factor * self.high)

    def plus(self, other: Range) -> Range:
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)


@dataclass(frozen=True)
class Estimate:
    """What runs of a grid take.

    Args:
        runs: how many, those that follow from a result included.
        examples: what all runs train on.
        macs: the smallest and the largest number of multiply-accumulates per example.
        rate: multiply-accumulates per second in training, of each method's most expensive network, at the median.
        device: what the time is for, in words.
        hours: of the device, one run after another.
        parameters: the smallest and the largest number.
        checkpoint_bytes: of all runs.
        data_bytes: about what the data sets take, unpacked; 0 for a stand-in.
    """

    runs: int
    examples: int
    macs: tuple[int, int]
    rate: dict[str, float]
    device: str
    hours: Range
    parameters: tuple[int, int]
    checkpoint_bytes: int
    data_bytes: int


def estimate(
    grid: Grid,
    device: torch.device | None = None,
    rate: float | None = None,
    is_left: Callable[[RunConfig], bool] = lambda run: True,
) -> Estimate:
    """Cost of those runs of `grid` that are left. It takes a few seconds and trains nothing.

    Args:
        grid: the runs.
        device: where a step is measured, by default the GPU if there is one.
        rate: multiply-accumulates per second in training of another device; then nothing is measured.
        is_left: whether a run is to be made; of at least one. By default all are.
    """
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # A run that follows from a result is counted as a strided convolution at its predecessor's initial strides.
    before = dict.fromkeys(run for cell in grid.pending for run in cell.follows if is_left(run))
    runs = [*filter(is_left, grid.runs), *(replace(run, method="strided", lam=0.0) for run in before)]
    costs = {run: _cost(_cost_key(run)) for run in runs}
    speeds = {
        method: _Speed.of([run for run in runs if run.method == method], costs, where, rate)
        for method in dict.fromkeys(run.method for run in runs)
    }
    examples = {run: _examples(run) for run in runs}
    hours = Range(0.0, 0.0, 0.0)
    for run in runs:
        hours = hours.plus(speeds[run.method].seconds(costs[run][0]).times(examples[run] / 3600))
    each, parameters = zip(*costs.values(), strict=True)
    checkpoints = sum(BYTES * costs[run][1] * (1 + STATES[run.optimizer]) for run in runs)
    processor = f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else processor
    return Estimate(
        runs=len(runs),
        examples=sum(examples[run] for run in runs),
        macs=(min(each), max(each)),
        rate={method: speed.rate for method, speed in speeds.items()},
        device=f"one that trains at {rate / 1e9:g} GMAC/s" if rate else f"this device ({name})",
        hours=hours,
        parameters=(min(parameters), max(parameters)),
        checkpoint_bytes=checkpoints,
        data_bytes=_data_bytes(runs),
    )


@dataclass(frozen=True)
class _Speed:
    """Seconds of training per example of a cheap and of an expensive network of one method."""

    cheap: tuple[int, Range]
    expensive: tuple[int, Range]

    @classmethod
    def of(
        cls, runs: list[RunConfig], costs: dict[RunConfig, tuple[int, int]], device: torch.device, rate: float | None
    ) -> _Speed:
        ends = [min(runs, key=lambda run: costs[run][0]), max(runs, key=lambda run: costs[run][0])]
        macs = [costs[run][0] for run in ends]
        if rate:
            found = [Range(*[PASSES * each / rate] * 3) for each in macs]
        else:
            found = [_seconds(ends[0], device)]
            found.append(found[0] if macs[0] == macs[1] else _seconds(ends[1], device))
        return cls((macs[0], found[0]), (macs[1], found[1]))

    def seconds(self, macs: int) -> Range:
        """Per example, for a network of so many multiply-accumulates."""
        (low, cheap), (high, expensive) = self.cheap, self.expensive
        share = (macs - low) / (high - low) if high > low else 0.0
        return cheap.times(1 - share).plus(expensive.times(share))

    @property
    def rate(self) -> float:
        macs, seconds = self.expensive
        return PASSES * macs / seconds.middle


def _examples(run: RunConfig) -> int:
    """Training examples that a run sees."""
    per_epoch = run.epoch_steps * run.batch_size if run.epoch_steps else sum(part.train for part in _facts(run))
    return run.epochs * per_epoch


def _facts(run: RunConfig) -> list[DatasetFacts]:
    return [dataset_facts(name, run) for name in tasks_of(run.data)]


def _data_bytes(runs: Iterable[RunConfig]) -> int:
    """Two tasks on the same recordings count once."""
    return sum({part.folder: part.disk for run in runs for part in _facts(run)}.values())


def _cost_key(run: RunConfig) -> RunConfig:
    """The fields that decide a network and its input. Runs that differ in others have the same cost."""
    chosen = {name: getattr(run, name) for name in ("model", "method", "strides", "shared_stride", "width", "data")}
    return RunConfig(**chosen, smoothness=run.smoothness, image_size=run.image_size, label_pattern=run.label_pattern)


def build_network(run: RunConfig) -> tuple[nn.Module, tuple[int, int, int]]:
    """The network as it starts, and the shape (C, H, W) of one input."""
    parts = _facts(run)
    shape = parts[0].shape
    # An estimate lets sizes follow strides at once, whatever the policy of the run: a fixed grid needs data first.
    spec = replace(run, grid="free").network([part.classes for part in parts], shape[0])
    return registry.build(run.model, spec), shape


@lru_cache(maxsize=256)
def _cost(run: RunConfig) -> tuple[int, int]:
    """Multiply-accumulates per example and parameters."""
    network, shape = build_network(run)
    return int(macs(network, torch.zeros(1, *shape)).item()), sum(each.numel() for each in network.parameters())


def _seconds(run: RunConfig, device: torch.device) -> Range:
    """Seconds of training per example, with the largest batch that fits the patience."""
    network, shape = build_network(run)
    network = in_fast_layout(network).to(device).train()
    precision = torch.bfloat16 if run.precision.startswith("bf16") else torch.float16
    lower = torch.autocast(device.type, precision, enabled=run.precision != "32-true")

    def step(batch: int) -> float:
        images = torch.randn(batch, *shape, device=device)
        with lower:
            return _timed(network, images)

    batch, started = min(2, run.batch_size), time.perf_counter()
    step(batch)  # the first pass plans and allocates
    while batch < run.batch_size and 2 * STEPS[0] * step(batch) < PATIENCE:
        batch = min(2 * batch, run.batch_size)
    step(batch)
    times: list[float] = []
    while len(times) < STEPS[0] or (len(times) < STEPS[1] and time.perf_counter() - started < PATIENCE):
        times.append(step(batch) / batch)
    return Range(min(times), statistics.median(times), max(times))


def _timed(network: nn.Module, images: Tensor) -> float:
    """Seconds of one training step."""
    _synchronize(images)
    started = time.perf_counter()
    _step(network, images)
    _synchronize(images)
    return time.perf_counter() - started


def _step(network: nn.Module, images: Tensor) -> None:
    network.zero_grad(set_to_none=True)
    network(images).square().mean().backward()


def _synchronize(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
