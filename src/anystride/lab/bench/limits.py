"""The limits of a device: bytes moved and multiply-accumulates per second, and the least time that follows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from anystride.lab.bench.base import Setup
from anystride.lab.bench.sheet import Sheet, factor
from anystride.lab.bench.timing import Contestant, in_turn

MIB = 2**20
SIDE = 2048
SLOW_SIDE = 512
"""For types without instructions of the CPU, whose products would take seconds."""
THIN = (16, 32, 32)
"""Rows, inner axis and columns of one product of a long batch: an axis of 32 samples of a 32x32 map, halved."""


@dataclass(frozen=True)
class Limits:
    """The limits of one device.

    Args:
        bandwidth: bytes (read and written) per second into a fresh buffer, by the bytes of a tensor.
        rate: multiply-accumulates per second, by the name of a type.
    """

    bandwidth: dict[int, float]
    rate: dict[str, float]

    def floor(self, read: int, written: int, macs: float, dtype: str) -> float:
        """The least seconds of an operator: to read its input and write its output once, or to multiply."""
        nearest = min(self.bandwidth, key=lambda size: abs(math.log(size / read)))
        return max((read + written) / self.bandwidth[nearest], macs / self.rate[dtype])

    @classmethod
    def of(cls, found: dict[str, Any]) -> Limits:
        """The limits that `measure` returned."""
        bandwidth = {row["bytes"]: row["fresh"] for row in found["bandwidth"]}
        return cls(bandwidth, {row["dtype"]: max(row["square"], row["thin"]) for row in found["rates"]})


def measure(setup: Setup, dtypes: Iterable[torch.dtype]) -> dict[str, Any]:
    """Measure copies of 64 MiB (on a CPU also of 16 MiB, where caches may help) and products of matrices.

    Copies go into an existing buffer or into a fresh one: every operator allocates its result. Matrices are square, or
    thin like those of a small map.
    """
    sizes = [MIB] if setup.quick else [16 * MIB, 64 * MIB] if setup.on_cpu else [64 * MIB]
    return {
        "bandwidth": [_bandwidth(setup, size) for size in sizes],
        "rates": [_rates(setup, dtype) for dtype in dtypes],
    }


def _bandwidth(setup: Setup, size: int) -> dict[str, Any]:
    source = torch.randn(size // 4, device=setup.device)
    target = torch.zeros_like(source)
    copies = {"existing": Contestant(lambda: target.copy_(source)), "fresh": Contestant(lambda: source.clone())}
    times = in_turn(copies, setup.repeats, setup.device)
    return {"bytes": source.nbytes, **{name: 2 * source.nbytes / spread.median for name, spread in times.items()}}


def _rates(setup: Setup, dtype: torch.dtype) -> dict[str, Any]:
    side = 64 if setup.quick else SLOW_SIDE if setup.on_cpu and dtype == torch.float16 else SIDE
    rows, inner, columns = THIN
    batch = 64 if setup.quick else 4096
    a, b = (torch.randn(side, side, device=setup.device).to(dtype) for _ in range(2))
    matrix = torch.randn(rows, inner, device=setup.device).to(dtype).expand(batch, rows, inner)
    maps = torch.randn(batch, inner, columns, device=setup.device).to(dtype)
    products = {"square": Contestant(lambda: torch.mm(a, b)), "thin": Contestant(lambda: torch.bmm(matrix, maps))}
    times = in_turn(products, setup.repeats, setup.device)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "side": side,
        "batch": batch,
        "square": side**3 / times["square"].median,
        "thin": batch * rows * inner * columns / times["thin"].median,
    }


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """The limits of a record."""
    copies = [
        (f"{row['bytes'] / MIB:g} MiB", factor(row["existing"] / 1e9), factor(row["fresh"] / 1e9))
        for row in found["bandwidth"]
    ]
    rows, inner, columns = THIN
    rates = [
        (row["dtype"], f"{row['side']}^3", factor(row["square"] / 1e9), factor(row["thin"] / 1e9))
        for row in found["rates"]
    ]
    thin = f"thin, {rows}x{inner} by {inner}x{columns}"
    return [
        Sheet("Copies, GB read and written per second", ("tensor", "existing buffer", "fresh buffer"), tuple(copies)),
        Sheet(
            "Matrix products, 10^9 multiply-accumulates per second", ("type", "size", "square", thin), tuple(rates), 2
        ),
    ]
