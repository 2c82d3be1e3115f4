"""Times of several contestants, measured side by side, and the peak memory of a step."""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

WARM_UP = 2
"""Rounds that are not counted: the first ones plan and allocate."""
SEED = 0


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Contestant:
    """Two functions: `run` is timed, `prepare` is called before each run and is not timed."""

    run: Callable[[], object]
    prepare: Callable[[], object] = _nothing


@dataclass(frozen=True)
class Spread:
    """Seconds of a run: the median and the quartiles."""

    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return {"seconds": self.median, "seconds_quartiles": [self.low, self.high]}


def in_turn(
    contestants: Mapping[str, Contestant], repeats: int, device: torch.device, seed: int = SEED
) -> dict[str, Spread]:
    """Time contestants in rounds. In each, all run once, in a new order: what one leaves behind, any other may find.

    Whatever slows the device down for a while meets all of them, so their ratios stay.
    """
    order, draw = list(contestants), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(WARM_UP + repeats):
        draw.shuffle(order)
        for name in order:
            elapsed = _seconds(contestants[name], device)
            if number >= WARM_UP:
                seconds[name].append(elapsed)
    return {name: _spread(values) for name, values in seconds.items()}


def _seconds(contestant: Contestant, device: torch.device) -> float:
    contestant.prepare()
    synchronize(device)
    started = time.perf_counter()
    contestant.run()
    synchronize(device)
    return time.perf_counter() - started


def _spread(seconds: list[float]) -> Spread:
    if len(seconds) == 1:
        return Spread(*seconds * 3)
    # Among what was seen: the other method extrapolates from a few values, even below zero.
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Spread(middle, low, high)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


MEMORY = {
    "cuda": "largest number of bytes that PyTorch's allocator gave during a step, and the network and its input",
    "cpu": "largest number of bytes allocated during a step as the profiler saw it, and the network and its input",
}
"""What `peak_bytes` counts, by the type of device."""


def peak_bytes(contestant: Contestant, device: torch.device, held: Iterable[Tensor]) -> int:
    """Peak bytes of a second run, with the bytes of `held`, which exist before it."""
    contestant.prepare()
    contestant.run()
    contestant.prepare()
    before = sum(each.nbytes for each in held)
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        present = torch.cuda.memory_allocated(device)
        contestant.run()
        synchronize(device)
        return before + torch.cuda.max_memory_allocated(device) - present
    # The profiler looks for a GPU at its first start, and reports on standard error that there is none.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        contestant.run()
    return before + _peak(profiler)


def _peak(profiler: profile) -> int:
    """The largest sum of allocations less releases, in the order of time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    now = highest = 0
    for _, change in changes:
        now += change
        highest = max(highest, now)
    return highest
