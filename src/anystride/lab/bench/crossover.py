"""One long axis: a dense matrix against the real FFT, and the operator itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from anystride.functional import diffstride, resampling_matrix
from anystride.lab.bench.base import Bench, Setup
from anystride.lab.bench.record import BenchRecord
from anystride.lab.bench.sheet import Sheet, factor, milliseconds
from anystride.lab.bench.timing import Contestant, in_turn
from anystride.ops.window import output_length, window

LENGTHS = tuple(2**power for power in range(6, 15))
PRIMES = (67, 127, 251, 509, 1021, 2053, 4099, 8191, 16381)
"""Near the lengths above: a transform of theirs is slow."""
SAMPLES = 2**20
CHANNELS = 16
STRIDE = 2.0
MADE = 4100
"""Longer axes get a matrix of random entries. It takes as long to apply; the true one takes a minute to make."""

METHODS = {"dense": "dense matrix", "fft": "real FFT", "still": "diffstride", "moved": "diffstride, stride moved"}
KINDS = ("powers of two", "primes")


def fourier(x: Tensor, gains: Tensor, size: int) -> Tensor:
    """Compute what `anystride.functional.diffstride` computes along the last axis of `x`, by the real FFT.

    Both are equal for odd `size`; for an even one the bin in the middle differs.
    """
    kept = torch.fft.rfft(x, norm="forward")[..., : len(gains)]
    y: Tensor = torch.fft.irfft(kept * gains, n=size, norm="forward")
    return y


def gains_of(length: int) -> Tensor:
    """The window at the frequencies of the output."""
    bins = torch.arange(output_length(length, STRIDE) // 2 + 1)
    return window(bins, length, STRIDE)


def measure(setup: Setup) -> dict[str, Any]:
    """Measure all lengths, on maps with the same number of samples."""
    lengths = (
        [(64, False), (67, True)] if setup.quick else [*((n, False) for n in LENGTHS), *((n, True) for n in PRIMES)]
    )
    samples = 2**12 if setup.quick else SAMPLES if setup.on_cpu else 64 * SAMPLES
    rows = []
    for number, (length, prime) in enumerate(lengths):
        setup.announce(number, len(lengths), f"length {length}")
        rows.append({"length": length, "prime": prime, **_measure(length, samples, setup)})
    settings = {
        "stride": STRIDE,
        "smoothness": 4,
        "ramp": "outer",
        "channels": CHANNELS,
        "samples": samples,
        "random_matrix_above": MADE,
        "still": "the matrix, or the gains, come from memory",
        "moved": "they are made anew, as in training",
    }
    crossings = {
        kind: {name: crossing_length(rows, kind == KINDS[1], name) for name in ("fft", "still")} for kind in KINDS
    }
    return {"settings": settings, "rows": rows, "crossings": crossings}


def _measure(length: int, samples: int, setup: Setup) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.randn(max(1, samples // (CHANNELS * length)), CHANNELS, length, device=setup.device)
    size = output_length(length, STRIDE)
    made = length <= MADE
    matrix = (resampling_matrix(length, STRIDE) if made else torch.randn(size, length)).to(setup.device).t()
    gains = gains_of(length).to(setup.device)
    strides = _falling(length)
    runs: dict[str, Callable[[], object]] = {
        "dense": lambda: x @ matrix,
        "fft": lambda: fourier(x, gains, size),
        "still": lambda: diffstride(x, STRIDE),
        "moved": lambda: diffstride(x, strides()),
    }
    with torch.no_grad():
        times = in_turn({name: Contestant(run) for name, run in runs.items()}, setup.repeats, setup.device)
    return {"output": size, "shape": list(x.shape), **{name: spread.to_json() for name, spread in times.items()}}


def _falling(length: int) -> Callable[[], float]:
    """Return a function whose value falls a little at each call, by too little to change the output size."""
    stride, step = STRIDE, min(1e-5, 1 / (200 * length))

    def following() -> float:
        nonlocal stride
        stride -= step
        return stride

    return following


def crossing_length(rows: list[dict[str, Any]], prime: bool, name: str) -> float | None:
    """The length above which `name` always beats the dense matrix; None where it does not.

    Between two measured lengths the logarithms of the times are interpolated.
    """
    mine = [row for row in rows if row["prime"] == prime]
    gaps = [(math.log(row["length"]), math.log(row["dense"]["seconds"] / row[name]["seconds"])) for row in mine]
    slower = [number for number, (_, gap) in enumerate(gaps) if gap <= 0]
    if not slower:
        return float(mine[0]["length"])
    if slower[-1] == len(gaps) - 1:
        return None
    (x, y), (next_x, next_y) = gaps[slower[-1] : slower[-1] + 2]
    return math.exp(x - y * (next_x - x) / (next_y - y))


def sheets(record: BenchRecord) -> list[Sheet]:
    """One sheet for the powers of two, one for the primes."""
    found = []
    for kind in KINDS:
        cells = []
        for row in record.rows:
            if row["prime"] != (kind == KINDS[1]):
                continue
            times = [row[name]["seconds"] for name in METHODS]
            ratios = (factor(times[0] / each) for each in times[1:])
            cells.append((str(row["length"]), str(row["output"]), milliseconds(times[0]), *ratios))
        crossing = record.found["crossings"][kind]["fft"]
        where = "nowhere here" if crossing is None else f"from about {crossing:.0f} samples on"
        note = f"Forward. Speeds are relative to the dense matrix. The real FFT wins {where}."
        columns = ("length", "output", "dense matrix, ms", *list(METHODS.values())[1:])
        found.append(Sheet(f"One axis, {kind}", columns, tuple(cells), notes=(note,)))
    return found


BENCH = Bench("crossover", measure, sheets, {"cpu": 15, "cuda": 50})
