"""Table A.2: time and peak memory of a step, relative to strided convolutions, in the multi-task audio network.

This is a measurement on the device at hand, not a training. All networks are on the device at once and take their steps
in turn, so that whatever slows the device down meets all of them. The paper's layers transform with the FFT on a V100;
here a layer is two products with real matrices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from anystride.lab.bench.steps import Trainee
from anystride.lab.bench.timing import MEMORY, in_turn, peak_bytes
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
    networks = {method: Trainee(_network(method, width, heads).to(where), images) for method in METHODS}
    found: dict[str, dict[str, Any]] = {}
    for mode in MODES:
        steps = {method: each.training if mode == "training" else each.inference for method, each in networks.items()}
        peaks = {method: peak_bytes(step, where, networks[method].held) for method, step in steps.items()}
        times = in_turn(steps, repeats, where)
        found[mode] = {method: {"bytes": peaks[method], **times[method].to_json()} for method in METHODS}
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
    run = replace(AUDIO, method=method, width=width)
    return registry.build(run.model, run.network(heads, 1))


MEASUREMENT = Measurement("table-a2", "Time and memory of a step", "Table A.2, appendix", measure)
