"""Table A.2: time and peak memory of a step, relative to strided convolutions, in the multi-task audio network.

This is a measurement on the device at hand, not a training. All networks are on the device at once and take their steps
in turn, so that whatever slows the device down meets all of them. The paper's layers transform with the FFT on a V100;
here a layer is two products with real matrices.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from anystride.lab.errors import UsageError
from anystride.lab.models import registry
from anystride.lab.paper.datasets import facts
from anystride.lab.paper.protocols import AUDIO, AUDIO_TASKS
from anystride.lab.paper.recipe import METHODS, Measurement, transcribed
from anystride.lab.record import provenance

MODES = ("training", "inference")
PUBLISHED = transcribed(
    """
    training time: 1.0, 1.32, 1.43
    training memory: 1.0, 1.02, 1.98
    inference time: 1.0, 1.32, 1.32
    inference memory: 1.0, 1.02, 1.02
    """,
    ("strided", "spectral", "outer"),
)
"""Ratios to strided convolutions on a V100, at the paper's width and batch size."""

MEMORY = {
    "cuda": "largest number of bytes that PyTorch's allocator held, the network included",
    "cpu": "largest number of bytes allocated during a step as the profiler saw it, and the network and its input",
}


def measure(
    width: int = 64, batch_size: int = 256, repeats: int = 20, device: torch.device | None = None
) -> dict[str, Any]:
    """Time and memory of one step of each method, as JSON values.

    Args:
        width: channels of the first block; the paper's is 64. A CPU needs a narrower network and smaller batches.
        batch_size: spectrograms of a step; the paper's is 256.
        repeats: measured steps per method and mode, after a warm-up.
        device: the GPU if there is one, else the CPU.

    Returns:
        ``measured``: seconds (median and quartiles) and peak bytes by mode and method; ``ratios`` to the strided
        convolution, beside ``published`` ones; ``settings``; and `provenance`'s fields.

    Raises:
        UsageError: an argument is not positive.
    """
    for name, value in (("width", width), ("batch_size", batch_size), ("repeats", repeats)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}; 64, 256 and 20 are usual")
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    heads = [facts(task, AUDIO).classes for task in AUDIO_TASKS]
    images = torch.randn(batch_size, *facts(next(iter(AUDIO_TASKS)), AUDIO).shape, device=where)
    found: dict[str, dict[str, Any]] = {
        mode: {method: {"bytes": _memory(_network(method, width, heads), images, mode)} for method in METHODS}
        for mode in MODES
    }
    networks = {method: _network(method, width, heads).to(where) for method in METHODS}
    for mode in MODES:
        for method, seconds in _times(networks, images, mode, repeats).items():
            low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
            found[mode][method].update(seconds=middle, seconds_quartiles=[low, high])
    ratios = {
        f"{mode} {name}": {method: found[mode][method][key] / found[mode]["strided"][key] for method in METHODS}
        for mode in MODES
        for name, key in (("time", "seconds"), ("memory", "bytes"))
    }
    return {
        "measured": found,
        "ratios": ratios,
        "published": {row: {method: each.mean for method, each in values.items()} for row, values in PUBLISHED.items()},
        "settings": {
            "width": width,
            "batch_size": batch_size,
            "repeats": repeats,
            "input": list(images.shape),
            "strides": [list(pair) for pair in AUDIO.strides],
            "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
            "memory": MEMORY[where.type],
        },
        **provenance(),
    }


def _network(method: str, width: int, heads: list[int]) -> nn.Module:
    run = replace(AUDIO, method=method)
    return registry.build(run.model, heads, 1, width, method, run.strides, smoothness=run.smoothness)


def _step(network: nn.Module, images: Tensor, mode: str) -> None:
    """Forward and backward, or forward only."""
    if mode == "training":
        network.train()
        network.zero_grad(set_to_none=True)
        network(images).square().mean().backward()
    else:
        network.eval()
        with torch.no_grad():
            network(images)


def _times(networks: dict[str, nn.Module], images: Tensor, mode: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, the methods in turn."""
    seconds: dict[str, list[float]] = {method: [] for method in networks}
    for repeat in range(repeats + 2):
        for method, network in networks.items():
            _synchronize(images)
            started = time.perf_counter()
            _step(network, images, mode)
            _synchronize(images)
            if repeat >= 2:  # the first steps plan and allocate
                seconds[method].append(time.perf_counter() - started)
    return seconds


def _synchronize(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def _memory(network: nn.Module, images: Tensor, mode: str) -> int:
    """Peak bytes of one step, with no other network on the device."""
    network = network.to(images.device)
    _step(network, images, mode)
    network.zero_grad(set_to_none=True)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
        torch.cuda.reset_peak_memory_stats(images.device)
        _step(network, images, mode)
        torch.cuda.synchronize(images.device)
        return torch.cuda.max_memory_allocated(images.device)
    # The profiler looks for a GPU at its first start, and reports on standard error that there is none.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    held = sum(each.nbytes for each in [*network.parameters(), *network.buffers(), images])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        _step(network, images, mode)
    return held + _peak(profiler)


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


MEASUREMENT = Measurement("table-a2", "Time and memory of a step", "Table A.2, appendix", measure)
