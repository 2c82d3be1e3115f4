"""The measurement of `anystride paper table-a2`: steps of the multi-task audio network beside the published ratios.

All networks are on the device at once and take their steps in turn. Whatever slows the device down for a while meets
all of them.
"""

from __future__ import annotations

from typing import Any

import torch

from anystride.lab.bench.networks import STEPS, Case, Method, peaks, times
from anystride.lab.bench.timing import MEMORY
from anystride.lab.errors import UsageError
from anystride.lab.paper.datasets import dataset_facts
from anystride.lab.paper.protocols import AUDIO, AUDIO_TASKS
from anystride.lab.paper.recipe import METHODS, TITLES
from anystride.lab.paper.table_a2 import PUBLISHED
from anystride.lab.record import provenance


def measure(
    width: int = 64, batch_size: int = 256, repeats: int = 20, device: torch.device | None = None
) -> dict[str, Any]:
    """Time and memory of one step of each method. A training step is forward and backward; strides stand still.

    Args:
        width: channels of the first block; the paper's is 64. A CPU needs a narrower network and smaller batches.
        batch_size: spectrograms of a step; the paper's is 256.
        repeats: measured steps per method and mode, after a warm-up.
        device: the GPU if there is one, else the CPU.

    Returns:
        JSON values: `measured` has seconds (median and quartiles) and peak bytes by mode and method; `ratios` are
        relative to the strided convolution, beside `published` ones; then `settings` and the fields of `provenance`.

    Raises:
        UsageError: an argument is not positive.
    """
    for name, value in (("width", width), ("batch_size", batch_size), ("repeats", repeats)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}; 64, 256 and 20 are usual")
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tasks = [dataset_facts(task, AUDIO) for task in AUDIO_TASKS]
    heads = tuple(task.classes for task in tasks)
    case = Case(AUDIO.model, tasks[0].shape, heads, width, batch_size, AUDIO.strides)
    methods = {name: Method(TITLES[name], name, AUDIO.smoothness) for name in METHODS}
    trainees = {name: case.trainee(method, where, optimised=False) for name, method in methods.items()}
    memory = {name: peaks(trainee, where) for name, trainee in trainees.items()}
    seconds = times(trainees, repeats, where)
    found = {step: {name: {**memory[name][step], **seconds[name][step]} for name in METHODS} for step in STEPS}
    ratios = {
        f"{step} {name}": {method: found[step][method][key] / found[step]["strided"][key] for method in METHODS}
        for step in STEPS
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
            "input": [batch_size, *case.shape],
            "strides": [list(pair) for pair in case.strides],
            "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
            "memory": MEMORY[where.type],
        },
        **provenance(),
    }
