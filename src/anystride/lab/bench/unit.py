"""A convolution and the operator after it: in the plain order, and as one operation in the cheapest order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anystride import DiffStride2d, macs
from anystride.lab.bench.base import Bench, Setup
from anystride.lab.bench.moves import Moves
from anystride.lab.bench.record import BenchRecord
from anystride.lab.bench.sheet import Sheet, factor, millions, milliseconds
from anystride.lab.bench.timing import Contestant, in_turn

RAMPS = ("inner", "outer")


@dataclass(frozen=True)
class Case:
    """A convolution (without stride, its map keeping its size) where a network downsamples by 2."""

    network: str
    channels: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    batch: int

    def convolution(self, stride: int = 1) -> nn.Conv2d:
        padding = (self.kernel[0] // 2, self.kernel[1] // 2)
        return nn.Conv2d(*self.channels, self.kernel, stride, padding, bias=False)

    @property
    def title(self) -> str:
        return f"{self.network}, {self.kernel[0]}x{self.kernel[1]}, {self.channels[0]} to {self.channels[1]}"


def cases(on_cpu: bool, quick: bool) -> list[Case]:
    """ResNet-18's downsampling convolutions and projections on small and large images, and those of sound."""
    if quick:
        return [Case("quick", (2, 4), (8, 8), (3, 3), 2), Case("quick", (2, 4), (9, 8), (1, 3), 2)]
    channels = ((64, 128), (128, 256), (256, 512))
    found = []
    for network, side, batch in (("CIFAR", 32, 16), ("ImageNet", 56, 8)):
        for kernel in ((3, 3), (1, 1)):
            for depth, pair in enumerate(channels):
                at = side // 2**depth
                found.append(Case(network, pair, (at, at), kernel, batch if on_cpu else 16 * batch))
    batch = 16 if on_cpu else 256
    for kernel in ((3, 1), (1, 3)):
        for pair, size in (((64, 64), (98, 64)), ((128, 128), (49, 32)), ((256, 256), (25, 16)), ((512, 512), (13, 8))):
            found.append(Case("audio", pair, size, kernel, batch))
    return found


class Pair(nn.Module):
    """Both layers, (N, C, H, W) to a smaller map: one after the other, or as one operation."""

    def __init__(self, convolution: nn.Module, ramp: Any, unit: bool) -> None:
        super().__init__()
        self.convolution, self.pool, self.unit = convolution, DiffStride2d(2.0, ramp=ramp), unit

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(x, convolution=self.convolution) if self.unit else self.pool(self.convolution(x))
        return y


def measure(setup: Setup) -> dict[str, Any]:
    """Forward and backward, with all gradients: both orders and both ramps in turn, and the strided convolution."""
    chosen = cases(setup.on_cpu, setup.quick)
    rows = []
    for number, case in enumerate(chosen):
        setup.announce(number, len(chosen), case.title)
        rows += _measure(case, setup)
    settings = {"step": "forward and backward; strides move before each", "stride": 2, "smoothness": 4}
    return {"settings": settings, "rows": rows}


def _measure(case: Case, setup: Setup) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    x = torch.randn(case.batch, case.channels[0], *case.size, device=setup.device, requires_grad=True)
    layers: dict[str, nn.Module] = {"strided": case.convolution(stride=2)}
    for ramp in RAMPS:
        convolution = case.convolution()
        layers |= {f"{ramp} {kind}": Pair(convolution, ramp, kind == "unit") for kind in ("plain", "unit")}
    costs = {name: int(macs(layer, torch.empty(1, *x.shape[1:])).item()) for name, layer in layers.items()}
    runs = {name: _contestant(layer.to(setup.device), x) for name, layer in layers.items()}
    times = in_turn(runs, setup.repeats, setup.device)
    shared = {
        "network": case.network,
        "kernel": list(case.kernel),
        "channels": list(case.channels),
        "size": list(case.size),
        "batch_size": case.batch,
        "strided": {**times["strided"].to_json(), "macs": costs["strided"]},
    }
    rows = []
    for ramp in RAMPS:
        plain, unit = f"{ramp} plain", f"{ramp} unit"
        row: dict[str, Any] = {**shared, "ramp": ramp}
        for kind, name in (("plain", plain), ("unit", unit)):
            row[kind] = {**times[name].to_json(), "macs": costs[name]}
        rows.append({**row, "speed": times[plain].median / times[unit].median})
    return rows


def _contestant(layer: nn.Module, x: Tensor) -> Contestant:
    grad = torch.randn_like(layer(x))
    moves = Moves(layer, lengths=x.shape[2:])  # which the convolution keeps

    def prepare() -> None:
        moves()
        layer.zero_grad(set_to_none=True)
        x.grad = None

    return Contestant(lambda: layer(x).backward(grad), prepare)


def sheets(record: BenchRecord) -> list[Sheet]:
    """Times beside the strided convolution's, one sheet per ramp."""
    found = []
    for ramp in RAMPS:
        cells = []
        for row in record.rows:
            if row["ramp"] != ramp:
                continue
            strided = row["strided"]
            cells.append(
                (
                    row["network"],
                    f"{'x'.join(map(str, row['kernel']))}, {row['channels'][0]} to {row['channels'][1]}",
                    "x".join(map(str, row["size"])),
                    milliseconds(strided["seconds"]),
                    *(factor(row[kind]["seconds"] / strided["seconds"]) for kind in ("plain", "unit")),
                    factor(row["speed"]),
                    *(millions(row[kind]["macs"]) for kind in ("plain", "unit", "strided")),
                )
            )
        columns = ("network", "convolution", "map", "strided, ms", "plain", "unit", "speed-up")
        work = ("MMAC plain", "MMAC unit", "MMAC strided")
        note = "Forward and backward. Plain and unit: time relative to the strided convolution of the same kernel."
        found.append(Sheet(f"Convolution and DiffStride {ramp}", (*columns, *work), tuple(cells), 3, (note,)))
    return found


BENCH = Bench("unit", measure, sheets, {"cpu": 12, "cuda": 50})
