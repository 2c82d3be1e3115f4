"""Three policies by which map sizes follow strides (`grid`): their accuracy, and how often a compiler must work."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anystride import DiffStride2d, regrid_
from anystride.lab.bench.base import Bench, Setup
from anystride.lab.bench.record import BenchRecord
from anystride.lab.bench.sheet import Sheet, factor, millions, milliseconds
from anystride.lab.bench.steps import mean_square, sgd
from anystride.lab.bench.timing import synchronize
from anystride.lab.models import registry
from anystride.lab.models.spec import NetworkSpec
from anystride.lab.run.config import RunConfig

GRIDS: tuple[int | str, ...] = ("free", 4, "fixed")
TITLES = {"free": "free", "4": "multiples of 4", "fixed": "fixed for an epoch"}
EPOCH = 20
"""Compiled steps after which sizes may change where they are fixed in between."""


def measure(setup: Setup) -> dict[str, Any]:
    """Train with each policy; then let strides sweep a compiled network through many sizes."""
    epochs, scenes, seeds = (1, 64, 1) if setup.quick else (6, 3000, setup.repeats)
    run = RunConfig(method="inner", epochs=epochs, train_size=scenes, test_size=1000 if not setup.quick else 32)
    total = len(GRIDS) * (seeds + 1)
    rows = []
    for number, grid in enumerate(GRIDS):
        trained = []
        for seed in range(seeds):
            setup.announce(number * (seeds + 1) + seed, total, f"{TITLES[str(grid)]}, training {seed + 1}")
            trained.append(_train(replace(run, grid=grid, seed=seed)))
        setup.announce(number * (seeds + 1) + seeds, total, f"{TITLES[str(grid)]}, compiled")
        rows.append({"grid": grid, "runs": trained, "compiled": _compile(setup, grid)})
    settings = {
        "network": "resnet18, inner, from strides (2, 2, 2)",
        "width": run.width,
        "epochs": epochs,
        "scenes": scenes,
        "seeds": seeds,
        "compiled_steps": _steps(setup),
        "compiled_epoch": EPOCH,
    }
    return {"settings": settings, "rows": rows}


def _train(run: RunConfig) -> dict[str, Any]:
    """Make one ordinary run of the stand-in; return its results and the seconds of its training."""
    from anystride.lab.run import experiment

    with tempfile.TemporaryDirectory() as folder:
        record = experiment.run(run, Path(folder))
    keys = ("accuracy", "multiply_accumulates", "strides", "map_sizes")
    return {**{key: getattr(record, key) for key in keys}, "seconds": record.seconds["train"]}


def _steps(setup: Setup) -> int:
    return 4 if setup.quick else 5 * EPOCH


def _network(setup: Setup, grid: int | str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    width = 2 if setup.quick else 8
    images = torch.randn(4 if setup.quick else 32, 1, 32, 32, device=setup.device)
    spec = NetworkSpec(10, in_channels=1, width=width, method="inner", strides=(2, 2, 2), grid=grid)
    return registry.build("resnet18", spec).to(setup.device), images


def _sweep(network: nn.Module, step: int) -> None:
    """Set strides that swing between 1.4 and 2.8, each layer and axis at its own pace. No optimiser does this."""
    with torch.no_grad():
        for number, layer in enumerate(m for m in network.modules() if isinstance(m, DiffStride2d)):
            phases = [step / 30 + number, step / 37 + 2 * number]
            layer.stride.copy_(torch.tensor([2.1 + 0.7 * math.sin(phase) for phase in phases]))


def _compile(setup: Setup, grid: int | str) -> dict[str, Any]:
    """Take steps with `torch.compile`, and the same steps without it."""
    from torch._dynamo.utils import counters

    seconds: dict[str, list[float]] = {}
    graphs: list[int] = []
    for kind in ("eager", "compiled"):
        network, images = _network(setup, grid)
        optimiser = sgd(network)
        call: Callable[[Tensor], Tensor] = network
        if kind == "compiled":
            torch._dynamo.reset()
            counters.clear()
            options: dict[str, Any] = {"fullgraph": True, "dynamic": False} if grid == "fixed" else {}
            call = torch.compile(network, **options)
        seconds[kind] = []
        sizes = set()
        for step in range(_steps(setup)):
            _sweep(network, step)
            if grid == "fixed" and step % EPOCH == 0:
                regrid_(network, images)
            started = time.perf_counter()
            optimiser.zero_grad()
            mean_square(call(images)).backward()
            optimiser.step()
            synchronize(setup.device)
            seconds[kind].append(time.perf_counter() - started)
            layers = [m for m in network.modules() if isinstance(m, DiffStride2d)]
            sizes.add(layers[0].output_size((32, 32)))
            if kind == "compiled":
                graphs.append(counters["stats"]["unique_graphs"])
    return {
        "sizes_of_the_first_map": len(sizes),
        "compilations": graphs,
        "seconds": {kind: sum(values) for kind, values in seconds.items()},
        "step": {kind: statistics.median(values) for kind, values in seconds.items()},
    }


def _spread(values: list[float], digits: int) -> str:
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def sheets(record: BenchRecord) -> list[Sheet]:
    """Accuracy and time of training; compilations."""
    rows, settings = record.rows, record.settings
    free = statistics.fmean(run["seconds"] for run in rows[0]["runs"])
    trained = tuple(
        (
            TITLES[str(row["grid"])],
            _spread([100 * run["accuracy"] for run in row["runs"]], 1),
            millions(statistics.fmean(run["multiply_accumulates"] for run in row["runs"])),
            factor(statistics.fmean(run["seconds"] for run in row["runs"]) / free),
        )
        for row in rows
    )
    compiled = tuple(
        (
            TITLES[str(row["grid"])],
            str(found["sizes_of_the_first_map"]),
            str(found["compilations"][-1]),
            str(found["compilations"][min(9, len(found["compilations"]) - 1)]),
            factor(found["seconds"]["compiled"] / found["seconds"]["eager"]),
            milliseconds(found["step"]["eager"]),
            factor(found["step"]["compiled"] / found["step"]["eager"]),
        )
        for row in rows
        for found in [row["compiled"]]
    )
    title = (
        f"{settings['network']}, width {settings['width']}, {settings['epochs']} epochs of {settings['scenes']} scenes"
    )
    steps, epoch = settings["compiled_steps"], settings["compiled_epoch"]
    return [
        Sheet(title, ("grid", "accuracy, %", "MMAC", "training time, of free"), trained),
        Sheet(
            f"The same network under torch.compile, {steps} steps of strides that sweep from 1.4 to 2.8",
            (
                "grid",
                "sizes of the first map",
                "compilations",
                "of these, in 10 steps",
                "all steps, of eager",
                "eager step, ms",
                "compiled step, of eager",
            ),
            compiled,
            notes=(
                f'"fixed" takes the sizes of its strides every {epoch} steps, and is compiled whole (fullgraph=True, '
                "dynamic=False); the others run learned layers between graphs.",
            ),
        ),
    ]


BENCH = Bench("grid", measure, sheets, {"cpu": 3, "cuda": 3})
