"""Records of runs that never took place."""

from __future__ import annotations

from typing import Any

from anystride.lab.models.measure import COUNTER
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record

LEARNED = [[1.5, 1.8], [2.1, 2.4], [2.6, 2.2], [2.0, 2.5]]


def fabricated(run: RunConfig | None = None, **changes: Any) -> Record:
    """A valid record of `run`, with some values changed."""
    run = run or RunConfig()
    start = [list(pair) for pair in run.strides]
    end = (2 * LEARNED)[: len(start)] if run.method in ("outer", "inner", "cosine") else start
    values: dict[str, Any] = {
        "command": ["anystride"],
        "configuration": run.to_json(),
        "seed": run.seed,
        "commit": "0123456789abcdef",
        "uncommitted_changes": False,
        "versions": {"torch": "2.11.0"},
        "hardware": {"processor": "a <fast> one", "gpu": "none"},
        "classes": ["a", "b"],
        "accuracy": 0.5,
        "top5": 0.9,
        "loss": 1.0,
        "start_strides": start,
        "strides": end,
        "start_map_sizes": [[32, 32], [16, 16], [8, 8], [4, 4]],
        "map_sizes": [[32, 32], [21, 18], [10, 8], [5, 4]],
        "start_multiply_accumulates": 10**7,
        "multiply_accumulates": {"strided": 8, "spectral": 12, "outer": 40, "inner": 16, "cosine": 16}.get(
            run.method, 8
        )
        * 10**6,
        "counter": COUNTER,
        "parameters": 1000,
        "epochs": [{"strides": start}, {"strides": end}],
        "seconds": {"train": 1.0, "total": 2.0},
    }
    return Record(**{**values, **changes})
