"""The table of whole networks: time, memory and multiply-accumulates of their steps, for each downsampler."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from anystride import macs, regrid_
from anystride.lab.bench.base import Bench, Setup
from anystride.lab.bench.networks import STEPS, Case, Method, peaks, steps_of, times
from anystride.lab.bench.record import BenchRecord
from anystride.lab.bench.sheet import Sheet, factor, millions, milliseconds
from anystride.lab.bench.steps import Trainee
from anystride.lab.bench.timing import MEMORY
from anystride.lab.paper.datasets import dataset_facts
from anystride.lab.paper.protocols import AUDIO, CIFAR
from anystride.lab.paper.table_a2 import PUBLISHED

EAGER, COMPILED = "eager", "compiled"
RECOMPILE_LIMIT = 64


METHODS = {
    "strided": Method("strided convolution", "strided"),
    "spectral": Method("spectral pooling", "spectral"),
    "fft": Method("DiffStride outer, R = 4, by FFT", "outer", by_fft=True),
    "outer": Method("DiffStride outer, R = 4", "outer"),
    "outer-r1": Method("DiffStride outer, R = 1", "outer", 1.0),
    "inner": Method("DiffStride inner", "inner"),
}

STATIC = {"inner-fixed": Method("DiffStride inner, fixed grid", "inner", grid="fixed")}
"""A method that is measured under `torch.compile` only: in eager mode it equals "inner"."""
NETWORKS_ON_CPU = ("resnet18",)
METHODS_ON_CPU = ("strided", "spectral", "outer", "inner", "inner-fixed")
"""The networks and methods that are compiled on a CPU."""


def cases(on_cpu: bool, quick: bool) -> list[Case]:
    """The audio network and ResNet-18 for small images; narrower and with smaller batches on a CPU."""
    task = dataset_facts("nsynth-pitch", AUDIO)
    audio = Case("audio", task.shape, (task.classes,), 64, 256, AUDIO.strides)
    resnet = Case("resnet18", (3, 32, 32), (10,), 64, 128, CIFAR.strides)
    if quick:
        return [replace(audio, width=2, batch=2), replace(resnet, width=2, batch=2)]
    return [replace(audio, width=16, batch=16), replace(resnet, batch=32)] if on_cpu else [audio, resnet]


def measure(setup: Setup) -> dict[str, Any]:
    """Measure both networks with every method in turn, in eager mode and where asked for also compiled."""
    chosen = cases(setup.on_cpu, setup.quick)
    modes = {EAGER: _eager, COMPILED: _compiled} if setup.compiled else {EAGER: _eager}
    rows: list[dict[str, Any]] = []
    for case in chosen:
        for mode, timed in modes.items():
            if mode == COMPILED and _compiles_few(setup) and case.model not in NETWORKS_ON_CPU:
                continue
            setup.announce(len(rows), len(chosen) * len(modes) * len(METHODS), f"{case.model}, {mode}")
            found = timed(case, setup)
            rows += [{"model": case.model, "mode": mode, "method": name, **row} for name, row in found.items()]
    settings = {
        "networks": {
            case.model: {"width": case.width, "batch_size": case.batch, "input": list(case.shape)} for case in chosen
        },
        "step": "forward, backward and a step of SGD with momentum; strides move before each",
        "yardstick": "seconds of the eager strided convolution in the same comparison",
        "memory": MEMORY[setup.device.type],
        "compile": f"torch.compile, recompile_limit {RECOMPILE_LIMIT}, no caches" if setup.compiled else None,
    }
    published = {row: {method: each.mean for method, each in values.items()} for row, values in PUBLISHED.items()}
    return {"settings": settings, "rows": rows, "published": published}


def _compiles_few(setup: Setup) -> bool:
    """Whether to compile only the most important networks: on a CPU each takes minutes."""
    return setup.on_cpu and not setup.quick


def _measured(trainee: Trainee, setup: Setup) -> dict[str, Any]:
    """Peaks, and multiply-accumulates after the first steps, which may bring a stride into its range."""
    found: dict[str, Any] = peaks(trainee, setup.device)
    return {**found, "macs": int(macs(trainee.network, trainee.images[:1]).item())}


def _eager(case: Case, setup: Setup) -> dict[str, dict[str, Any]]:
    trainees = {name: case.trainee(method, setup.device) for name, method in METHODS.items()}
    found = {name: _measured(trainee, setup) for name, trainee in trainees.items()}
    seconds = times(trainees, setup.repeats, setup.device)
    for name in trainees:
        for step in STEPS:
            found[name][step].update(seconds[name][step], yardstick=seconds["strided"][step]["seconds"])
    return found


def _compiled(case: Case, setup: Setup) -> dict[str, dict[str, Any]]:
    """Measure each compiled method beside the same method in eager mode and the eager strided convolution.

    Compiled networks are not compared in one round. They share their code: a compiler that has seen the sizes of one
    network makes the sizes of the next one variable. Caches on disk are off for the same reason: with them, torch 2.11
    ran a graph for the memory layout of another method. The blocks of a network share code, too; without a higher limit
    the blocks after the eighth would stay eager without a word.
    """
    config: Any = torch.compiler.config  # its own stubs do not know `patch`
    yardstick, found = case.trainee(METHODS["strided"], setup.device), {}
    for name, method in (METHODS | STATIC).items():
        if _compiles_few(setup) and name not in METHODS_ON_CPU:
            continue
        torch.compiler.reset()
        try:
            with config.patch(force_disable_caches=True, recompile_limit=RECOMPILE_LIMIT):
                eager, twin = (case.trainee(method, setup.device) for _ in range(2))
                found[name] = _against(yardstick, eager, twin, setup, static=method.grid == "fixed")
        except Exception as error:  # a compiler fails in many ways, and each is a result
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            found[name] = {**dict.fromkeys(STEPS), "reason": reason, "macs": None}
    return found


def _against(yardstick: Trainee, eager: Trainee, compiled: Trainee, setup: Setup, static: bool) -> dict[str, Any]:
    if static:
        regrid_(compiled.network, compiled.images)
    compiled.compile(fullgraph=static, dynamic=False if static else None)
    started = time.perf_counter()
    for contestant in steps_of(compiled).values():
        for _ in range(3):
            contestant.prepare()
            contestant.run()
    found = {"compile_seconds": time.perf_counter() - started, **_measured(compiled, setup)}
    seconds = times({"yardstick": yardstick, "eager": eager, "compiled": compiled}, setup.repeats, setup.device)
    for step in STEPS:
        own = {name: seconds[name][step]["seconds"] for name in ("yardstick", "eager")}
        found[step].update(seconds["compiled"][step], **own)
    return found


def sheets(record: BenchRecord) -> list[Sheet]:
    """One sheet per network and mode: times and bytes as ratios to the strided convolution's."""
    kinds = dict.fromkeys((row["model"], row["mode"]) for row in record.rows)
    return [_sheet(record, model, mode) for model, mode in kinds]


def _sheet(record: BenchRecord, model: str, mode: str) -> Sheet:
    rows = {row["method"]: row for row in record.rows if (row["model"], row["mode"]) == (model, mode)}
    published = record.found["published"] if model == "audio" else {}
    titles = {name: method.title for name, method in (METHODS | STATIC).items()}
    cells = []
    for name, row in rows.items():
        ratios = []
        for step in STEPS:
            for what, ratio in _ratios(row[step], rows["strided"][step]).items():
                known = published.get(f"{step} {what}", {}).get(name)
                ratios.append(factor(ratio) + (f" ({known:.2f})" if known is not None else ""))
        training = row["training"] or {}
        eager = (factor(training["seconds"] / training["eager"]) if training else "-",) if mode == COMPILED else ()
        work = "-" if row["macs"] is None else millions(row["macs"])
        cells.append((titles[name], milliseconds(training.get("seconds")), *eager, *ratios, work))
    setting = record.settings["networks"][model]
    size = f"width {setting['width']}, batch {setting['batch_size']}, {'x'.join(map(str, setting['input']))}"
    columns = (
        "downsampler",
        "training step, ms",
        *(("time of eager",) if mode == COMPILED else ()),
        *(f"{step} {what}" for step in STEPS for what in ("time", "memory")),
        "MMAC, forward",
    )
    notes = [
        "Times and memory relative to the strided convolution."
        + (" In brackets: the paper's, on a V100 at width 64, batch 256." if published else "")
        + " MMAC by FFT are without the transforms."
    ]
    failed = [f"{titles[name]}: {row['reason']}" for name, row in rows.items() if row.get("reason")]
    if failed:
        notes.append(f"Not measured: {'; '.join(failed)}.")
    return Sheet(f"{model}, {mode}: {size}", columns, tuple(cells), notes=tuple(notes))


def _ratios(mine: dict[str, Any] | None, strided: dict[str, Any] | None) -> dict[str, float | None]:
    """Time and memory relative to the strided convolution in the same mode."""
    if mine is None or strided is None:
        return {"time": None, "memory": None}
    time_ratio = (mine["seconds"] / mine["yardstick"]) / (strided["seconds"] / strided["yardstick"])
    return {"time": time_ratio, "memory": mine["bytes"] / strided["bytes"]}


BENCH = Bench("network", measure, sheets, {"cpu": 12, "cuda": 50})
