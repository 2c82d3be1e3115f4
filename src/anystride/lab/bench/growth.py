"""Time and memory of a training step of ResNet-18, as one factor grows and the others stay."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from anystride.lab.bench.base import Bench, Setup
from anystride.lab.bench.record import BenchRecord
from anystride.lab.bench.sheet import Sheet, factor, milliseconds
from anystride.lab.bench.steps import Trainee, sgd
from anystride.lab.bench.timing import MEMORY, in_turn, peak_bytes
from anystride.lab.models.resnet import resnet18
from anystride.lab.models.spec import NetworkSpec

METHODS = {"strided": "strided convolution", "outer": "DiffStride outer", "inner": "DiffStride inner"}
QUANTITIES = {"time": "seconds", "memory": "bytes"}


@dataclass(frozen=True)
class Point:
    """One configuration. The first `learned` of the three shortcut blocks learn; the others are strided."""

    resolution: int = 32
    batch: int = 16
    width: int = 16
    learned: int = 3

    def build(self, method: str) -> nn.Module:
        torch.manual_seed(0)
        network = resnet18(NetworkSpec(10, width=self.width, method=method))
        strided = resnet18(NetworkSpec(10, width=self.width, method="strided"))
        for stage in range(1 + self.learned, len(network.stages)):
            network.stages[stage] = strided.stages[stage]
        return network


FACTORS: dict[str, tuple[int, ...]] = {
    "resolution": (16, 32, 64, 96),
    "batch": (8, 16, 32, 64),
    "width": (8, 16, 32, 64),
    "learned": (0, 1, 2, 3),
}
_QUICK = Point(resolution=8, batch=2, width=2)


def points(quick: bool) -> list[tuple[str, int, Point]]:
    """Every value of every factor around the default."""
    if quick:
        return [(name, value, replace(_QUICK, **{name: value})) for name in FACTORS for value in (2, 3)]
    return [(name, value, replace(Point(), **{name: value})) for name, values in FACTORS.items() for value in values]


def measure(setup: Setup) -> dict[str, Any]:
    """Measure all points, the methods of each point in turn."""
    chosen = points(setup.quick)
    rows = []
    for number, (name, value, point) in enumerate(chosen):
        setup.announce(number, len(chosen), f"{name} {value}")
        rows += [{"factor": name, "value": value, **row} for row in _measure(point, setup)]
    settings = {
        "default": vars(_QUICK if setup.quick else Point()),
        "step": "forward, backward and a step of SGD with momentum; strides move before each",
        "memory": MEMORY[setup.device.type],
        "slopes": "least squares on the logarithms of factor and quantity",
    }
    return {"settings": settings, "rows": rows, "slopes": _slopes(rows)}


def _measure(point: Point, setup: Setup) -> list[dict[str, Any]]:
    images = torch.randn(point.batch, 3, point.resolution, point.resolution, device=setup.device)
    trainees = {}
    for method in METHODS:
        network = point.build(method).to(setup.device)
        trainees[method] = Trainee(network, images, sgd(network))
    peaks = {method: peak_bytes(each.training, setup.device, each.held) for method, each in trainees.items()}
    times = in_turn({method: each.training for method, each in trainees.items()}, setup.repeats, setup.device)
    base = times["strided"].median, peaks["strided"]
    return [
        {
            "method": method,
            **times[method].to_json(),
            "bytes": peaks[method],
            "time_ratio": times[method].median / base[0],
            "memory_ratio": peaks[method] / base[1],
        }
        for method in METHODS
    ]


def _slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exponents for each factor except the number of learned layers, which starts at 0."""
    found = []
    for name in FACTORS:
        if name == "learned":
            continue
        for method in METHODS:
            mine = [row for row in rows if (row["factor"], row["method"]) == (name, method)]
            slopes = {what: _slope([(row["value"], row[key]) for row in mine]) for what, key in QUANTITIES.items()}
            found.append({"factor": name, "method": method, **slopes})
    return found


def _slope(points: list[tuple[float, float]]) -> float:
    x, y = ([math.log(value) for value in values] for values in zip(*points, strict=True))
    return statistics.linear_regression(x, y).slope


def sheets(record: BenchRecord) -> list[Sheet]:
    """Ratios to the strided convolution at each point, and the slopes."""
    default = record.settings["default"]
    at = ", ".join(f"{name} {value}" for name, value in default.items())
    cells = []
    for name, value in dict.fromkeys((row["factor"], row["value"]) for row in record.rows):
        mine = {row["method"]: row for row in record.rows if (row["factor"], row["value"]) == (name, value)}
        ratios = [
            factor(mine[method][f"{what}_ratio"]) for what in QUANTITIES for method in METHODS if method != "strided"
        ]
        cells.append((name, str(value), milliseconds(mine["strided"]["seconds"]), *ratios))
    others = [method for method in METHODS if method != "strided"]
    columns = ("factor", "value", "strided, ms", *(f"{what}, {method}" for what in QUANTITIES for method in others))
    slopes = [
        (row["factor"], METHODS[row["method"]], *(f"{row[what]:.2f}" for what in QUANTITIES))
        for row in record.found["slopes"]
    ]
    return [
        Sheet(f"A training step relative to strided convolutions, around {at}", columns, tuple(cells), 2),
        Sheet("Growth: exponent of each factor", ("factor", "downsampler", *QUANTITIES), tuple(slopes), 2),
    ]


BENCH = Bench("growth", measure, sheets, {"cpu": 7, "cuda": 30})
