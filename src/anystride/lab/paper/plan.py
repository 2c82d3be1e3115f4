"""What a grid will cost: runs, multiply-accumulates, device time and disk, before anything is trained or downloaded.

Multiply-accumulates are those of the strides at the start: learned ones change them. The device's speed is measured
with the grid's own networks, for a fraction of a second per method. It holds for their sizes and this device only, and
leaves out the loading of data and the evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
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
from anystride.lab.run.config import RunConfig

PASSES = 3
"""A training step costs three forward passes: one forward, one for the inputs' and one for the weights' gradients."""
BYTES = 4
STATES = {"sgd": 1, "adam": 2}
"""Values that an optimiser keeps per parameter."""
PATIENCE = 0.8
"""Seconds of measurement for each method."""


@dataclass(frozen=True)
class Estimate:
    """`runs` counts all runs, those that follow from a result included.

    `macs` is the smallest and the largest number of multiply-accumulates per example, `examples` those that all
    runs train on, `hours` the device time of all runs one after another on `device`, at `rate` (for each method,
    multiply-accumulates per second). `checkpoint_bytes` is for all runs; `data_bytes` is about what the data sets
    take, unpacked, and 0 for a stand-in.
    """

    runs: int
    examples: int
    macs: tuple[int, int]
    training_macs: float
    rate: dict[str, float]
    device: str
    hours: float
    parameters: tuple[int, int]
    checkpoint_bytes: int
    data_bytes: int


def estimate(grid: Grid, device: torch.device | None = None) -> Estimate:
    """Cost of `grid` on `device`, by default the GPU if there is one. It takes a few seconds and trains nothing."""
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # A run that follows from a result is counted as a strided convolution at its predecessor's initial strides.
    before = dict.fromkeys(run for cell in grid.pending for run in cell.follows)
    runs = [*grid.runs, *(replace(run, method="strided", lam=0.0) for run in before)]
    costs = {run: _cost(_cost_key(run)) for run in runs}
    rates: dict[str, float] = {}
    for run in runs:
        if run.method not in rates:
            rates[run.method] = _rate(run, costs[run][0], where)
    examples = {run: _examples(run) for run in runs}
    work = {run: float(PASSES) * costs[run][0] * examples[run] for run in runs}
    each, parameters = zip(*costs.values(), strict=True)
    checkpoints = sum(BYTES * costs[run][1] * (1 + STATES[run.optimizer]) for run in runs)
    return Estimate(
        runs=len(runs),
        examples=sum(examples[run] for run in runs),
        macs=(min(each), max(each)),
        training_macs=sum(work[run] for run in runs),
        rate=rates,
        device=torch.cuda.get_device_name(where) if where.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        hours=sum(work[run] / rates[run.method] for run in runs) / 3600,
        parameters=(min(parameters), max(parameters)),
        checkpoint_bytes=checkpoints,
        data_bytes=_data_bytes(runs),
    )


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


def _rate(run: RunConfig, cost: int, device: torch.device) -> float:
    """Multiply-accumulates per second of training steps, with the largest batch that fits the patience."""
    network, shape = build_network(run)
    network = in_fast_layout(network).to(device).train()
    batch, started, best = min(2, run.batch_size), time.perf_counter(), 0.0
    _step(network, torch.randn(batch, *shape, device=device))  # the first pass plans and allocates
    while True:
        images = torch.randn(batch, *shape, device=device)
        seconds = _timed(network, images)
        best = max(best, PASSES * cost * batch / seconds)
        if batch == run.batch_size or time.perf_counter() - started + 3 * seconds > PATIENCE:
            return best
        batch = min(2 * batch, run.batch_size)


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
