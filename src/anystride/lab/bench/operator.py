"""Every operator that halves a map, compared with the limits of the device and with the same layer by FFT."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anystride import macs
from anystride.lab.bench import limits
from anystride.lab.bench.base import Bench, Setup
from anystride.lab.bench.contestants import TITLES, contestants
from anystride.lab.bench.limits import Limits
from anystride.lab.bench.moves import STEP, Moves
from anystride.lab.bench.operator_sheets import LARGE, PASSES, sheets
from anystride.lab.bench.oracle import transform_macs
from anystride.lab.bench.timing import Contestant, in_turn

TRANSFORMED = 1024
"""Samples of an axis from which on two transforms are less work than a dense matrix."""

CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels last"
_FORMATS = {CONTIGUOUS: torch.contiguous_format, CHANNELS_LAST: torch.channels_last}
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """One map (N, C, *spatial) of a type, as it lies in memory."""

    group: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    layout: str = CONTIGUOUS

    @property
    def title(self) -> str:
        return f"{self.group} {'x'.join(map(str, self.shape))} {_name(self.dtype)} {self.layout}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shapes(on_cpu: bool) -> list[tuple[str, tuple[int, ...]]]:
    batch = 8 if on_cpu else 32
    small = [(64, channels, side, side) for side, channels in ((32, 64), (24, 64), (16, 128), (8, 256))]
    large = [(batch, channels, side, side) for side, channels in ((112, 64), (56, 64), (28, 128), (14, 256))]
    return [
        *(("CIFAR", shape) for shape in small),
        *(("ImageNet", shape) for shape in large),
        ("audio", (16, 64, 100, 64)),
        ("waveform", (4, 16, 16000)),
        ("volume", (2, 16, 32, 32, 32)),
    ]


def cases(on_cpu: bool, quick: bool) -> list[Case]:
    """The maps: all in float32, a few in half precision on a CPU; those of two axes in both layouts."""
    if quick:
        return [Case("quick", (2, 3, 9, 8)), Case("quick", (1, 2, 8)), Case("quick", (2, 3, 8, 8), torch.float16)]
    shapes = _shapes(on_cpu)
    found = []
    for dtype in (torch.float32, *_HALF):
        chosen = shapes if dtype == torch.float32 or not on_cpu else _few(shapes, dtype)
        for group, shape in chosen:
            layouts = (CONTIGUOUS, CHANNELS_LAST) if len(shape) == 4 else (CONTIGUOUS,)
            found += [Case(group, shape, dtype, layout) for layout in layouts]
    return found


def _few(shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: torch.dtype) -> list[tuple[str, tuple[int, ...]]]:
    # Few CPUs multiply in float16: one map takes as long as all others.
    sides = (16,) if dtype == torch.float16 else (16, 28, 56)
    return [(group, shape) for group, shape in shapes if len(shape) == 4 and shape[2] in sides]


def measure(setup: Setup) -> dict[str, Any]:
    """Limits, then every case with all contestants in turn."""
    chosen = cases(setup.on_cpu, setup.quick)
    setup.announce(0, len(chosen), "limits")
    found = limits.measure(setup, dict.fromkeys(case.dtype for case in chosen))
    rows = []
    for number, case in enumerate(chosen):
        setup.announce(number, len(chosen), case.title)
        rows.append(_row(case, setup, Limits.of(found)))
    settings = {
        "stride": 2,
        "smoothness": 4,
        "floor": "forward: the larger of bytes (input once, output once) / fresh-buffer bandwidth at the nearest size "
        "and multiply-accumulates / matrix rate; both: twice that, as the gradients' way back moves as many bytes and "
        "multiplies as often (three times the products for a convolution, which has a weight gradient, too)",
        "moves": "strides move before each run, so that matrices are built anew",
        "fft": "float16 and bfloat16 are transformed in float32 and converted back",
    }
    return {"settings": settings, "limits": found, "rows": rows, "summary": _summary(rows)}


def _row(case: Case, setup: Setup, limit: Limits) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.randn(case.shape, device=setup.device).to(case.dtype)
    x = x.to(memory_format=_FORMATS[case.layout]).requires_grad_()
    entries: dict[str, dict[str, Any]] = {}
    runs: dict[str, dict[str, Contestant]] = {name: {} for name in PASSES}
    for name, layer in contestants(case.shape[1], case.shape[2:]).items():
        layer.to(setup.device, memory_format=_FORMATS[case.layout])  # type: ignore[call-overload]
        if name in ("blur", "strided"):
            layer.to(case.dtype)
        try:
            y = layer(x)
            grad = torch.randn_like(y)
            y.backward(grad)
        except RuntimeError as error:
            entries[name] = {"reason": str(error).splitlines()[0], **dict.fromkeys(PASSES)}
            continue
        entries[name] = {"output": list(y.shape), **_floors(name, layer, x, y, case, limit)}
        for way, run in _contestants(layer, x, grad).items():
            runs[way][name] = run
    for way in PASSES:
        times = in_turn(runs[way], setup.repeats, setup.device)
        for name, spread in times.items():
            entries[name][way] = {
                **spread.to_json(),
                "of_floor": spread.median / entries[name][f"{way}_floor"],
                "speed": times["fft"].median / spread.median if "fft" in times else None,
            }
    return {
        "group": case.group,
        "shape": list(case.shape),
        "dtype": _name(case.dtype),
        "layout": case.layout,
        "bytes": x.nbytes,
        "contestants": {name: entries[name] for name in TITLES},
    }


def _contestants(layer: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Contestant]:
    # On a long axis a smaller step must do, or sizes would change.
    moves = Moves(layer, min(STEP, 1 / (200 * max(x.shape[2:]))), x.shape[2:])

    def prepare() -> None:
        moves()
        layer.zero_grad(set_to_none=True)
        x.grad = None

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    return {"forward": Contestant(forward, prepare), "both": Contestant(lambda: layer(x).backward(grad), prepare)}


def _floors(name: str, layer: nn.Module, x: Tensor, y: Tensor, case: Case, limit: Limits) -> dict[str, Any]:
    work = _work(name, layer, x, y)
    type_name = _name(case.dtype)
    back = 2 if name == "strided" else 1
    forward = limit.floor(x.nbytes, y.nbytes, work, type_name)
    backward = limit.floor(x.nbytes, y.nbytes, back * work, type_name)
    return {
        "bytes": x.nbytes + y.nbytes,
        "macs": work,
        "forward_floor": forward,
        "both_floor": forward + backward,
    }


def _work(name: str, layer: nn.Module, x: Tensor, y: Tensor) -> float:
    """Multiply-accumulates of a forward pass."""
    spatial = list(x.shape[2:])
    if max(spatial) >= TRANSFORMED and name in ("outer", "inner", "spectral", "fft"):
        return x.shape[0] * x.shape[1] * (transform_macs(spatial) + transform_macs(list(y.shape[2:])))
    # By FFT or not: it is the same function.
    counted = contestants(x.shape[1], spatial)["outer"] if name == "fft" else layer
    return len(x) * macs(counted, torch.empty(1, *x.shape[1:], dtype=x.dtype, device=x.device)).item()


def _summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per type, layout and contestant: mean speed against the FFT, the slowest size, and distance from the floor."""
    found = []
    for dtype, layout in dict.fromkeys((row["dtype"], row["layout"]) for row in rows):
        mine = [row for row in rows if (row["dtype"], row["layout"]) == (dtype, layout)]
        for name in TITLES:
            for way in PASSES:
                timed = [(row, row["contestants"][name][way]) for row in mine if row["contestants"][name][way]]
                speeds = [(entry["speed"], row["shape"]) for row, entry in timed if entry["speed"]]
                large = [entry["of_floor"] for row, entry in timed if row["bytes"] >= LARGE]
                slowest, where = min(speeds, default=(None, None))
                found.append(
                    {
                        "dtype": dtype,
                        "layout": layout,
                        "contestant": name,
                        "pass": way,
                        "mean_speed": _mean([speed for speed, _ in speeds]),
                        "lowest_speed": slowest,
                        "lowest_at": where,
                        "of_floor_large": _mean(large),
                    }
                )
    return found


def _mean(values: list[float]) -> float | None:
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


BENCH = Bench("operator", measure, sheets, {"cpu": 25, "cuda": 50})
