"""Is a convolution on the kept bins alone cheaper? Three exact orders of a circular convolution and the operator.

    python benchmarks/kept_bins.py --record results/performance/kept-bins-cpu.json    # and the picture beside it

The paper's "Limitations" expect so: in the frequency domain a convolution is a product per bin, and only the kept bins
need one. Compared, with all gradients, are

- "after": the convolution at the full resolution, then the operator,
- "interleaved": shifted copies of the operator's matrix, then the same weights at a stride as long as the kernel,
- "kept bins": the map's kept bins by matrix products, a product of complex matrices per bin, and back.

All give the same map. Each time is the least of several, taken in turns.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anystride.functional import resampling_matrix
from anystride.lab.record import provenance, write
from anystride.lab.report.figure import add_legend, new_figure, save_figure

KERNEL = 3
SMOOTHNESS = 1.0
CASES = ((16, 32, 15), (64, 32, 15), (64, 56, 27), (128, 28, 13), (256, 14, 7), (512, 14, 7))
"""Channels, samples before, samples after: odd, so that each kept bin has its partner."""
BATCHES = (1, 32)


def after(x: Tensor, weight: Tensor, size: int) -> Tensor:
    """The convolution, then the operator."""
    matrix = _matrix(x, size)
    return matrix @ F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight) @ matrix.t()


def interleaved(x: Tensor, weight: Tensor, size: int) -> Tensor:
    """The operator in shifted copies, then the convolution at the output's resolution."""
    matrix = _matrix(x, size)
    rows = torch.stack([matrix.roll(shift - 1, 1) for shift in range(KERNEL)], dim=1).flatten(0, 1)
    return F.conv2d(rows @ x @ rows.t(), weight, stride=KERNEL)


def on_kept_bins(x: Tensor, weight: Tensor, size: int) -> Tensor:
    """To the kept bins, a product of matrices per bin, and back."""
    length, half = x.shape[-1], size // 2 + 1
    vertical, horizontal = torch.fft.fftfreq(size, 1 / size), torch.arange(half).float()
    gains = _window(vertical, length, size)[:, None] * _window(horizontal, length, size) * (size / length) ** 2
    rows = _waves(horizontal, length).t()
    along = torch.complex(x @ rows.real, x @ rows.imag)
    bins = along.transpose(2, 3) @ _waves(vertical, length).t()
    shifts = torch.arange(KERNEL) - 1
    seen = [_waves(frequency, length, shifts).conj() for frequency in (vertical, horizontal)]
    kernel = torch.einsum("dcij,vi,hj->hvcd", weight.to(torch.complex64), *seen)
    product = torch.einsum("nchv,hvcd->ndhv", bins * gains.t(), kernel)
    return torch.fft.irfft2(product.transpose(2, 3), s=(size, size))


def _matrix(x: Tensor, size: int) -> Tensor:
    return resampling_matrix(x.shape[-1], x.shape[-1] / size, SMOOTHNESS, "inner")


def _window(frequency: Tensor, length: int, size: int) -> Tensor:
    return ((size / 2 - frequency.abs()) / SMOOTHNESS).clamp(0, 1)


def _waves(frequency: Tensor, length: int, at: Tensor | None = None) -> Tensor:
    at = torch.arange(length) if at is None else at
    angle = -2 * math.pi / length * torch.outer(frequency.double(), at.double())
    return torch.complex(angle.cos(), angle.sin()).to(torch.complex64)


WAYS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "after": after,
    "interleaved": interleaved,
    "kept bins": on_kept_bins,
}


def measured(batch: int, channels: int, length: int, size: int, repeats: int) -> dict[str, Any]:
    """Seconds of a forward and a backward pass by each way, and how far the ways are apart."""
    x = torch.randn(batch, channels, length, length, requires_grad=True)
    weight = (torch.randn(channels, channels, KERNEL, KERNEL) / math.sqrt(channels * KERNEL**2)).requires_grad_()
    grad = torch.randn(batch, channels, size, size)
    found = {name: [way(x, weight, size), *_gradients(way, x, weight, size, grad)] for name, way in WAYS.items()}
    error = max(
        float((mine - first).detach().abs().max() / first.detach().abs().max())
        for each in found.values()
        for mine, first in zip(each, found["after"], strict=True)
    )
    seconds = dict.fromkeys(WAYS, math.inf)
    for _ in range(repeats):
        for name, way in WAYS.items():
            started = time.perf_counter()
            _gradients(way, x, weight, size, grad)
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return {
        "batch": batch,
        "channels": channels,
        "length": length,
        "size": size,
        "seconds": seconds,
        "relative_error": error,
    }


def _gradients(way: Any, x: Tensor, weight: Tensor, size: int, grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(way(x, weight, size), [x, weight], grad)


def draw(rows: list[dict[str, Any]], picture: Path) -> None:
    """Save the times of the other ways as shares of the first one's."""
    figure, panels = new_figure(1, len(BATCHES), panel=(4.6, 3.4))
    for panel, batch in zip(panels.flat, BATCHES, strict=True):
        mine = [row for row in rows if row["batch"] == batch]
        for name, mark in zip(list(WAYS)[1:], ("o", "s"), strict=True):
            panel.plot([row["seconds"][name] / row["seconds"]["after"] for row in mine], mark + "-", label=name)
        panel.axhline(1, color="0.4", linestyle=":", linewidth=1.2)
        panel.set_xticks(range(len(mine)), [f"{r['channels']}\n{r['length']} to {r['size']}" for r in mine])
        panel.set_yscale("log")
        panel.set_yticks((0.5, 1, 2, 5, 10), ("0.5", "1", "2", "5", "10"))
        panel.set_ylim(0.3, 12)
        panel.set_title(f"{batch} example{'s' * (batch > 1)}")
        panel.set_xlabel("channels; samples before and after")
        panel.set_ylabel("time, as a share of convolving first")
    add_legend(figure, panels.flat[0].get_legend_handles_labels()[0], entry=1.6)
    save_figure(figure, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    rows = []
    for batch in BATCHES:
        for case in CASES:
            row = measured(batch, *case, options.repeats)
            rows.append(row)
            first, *others = row["seconds"].values()
            told = ", ".join(f"{name} {s / first:.2f}" for name, s in zip(list(WAYS)[1:], others, strict=True))
            print(
                f"batch {batch}, {case}: after {1e3 * first:.1f} ms; of that: {told}; apart {row['relative_error']:.0e}"
            )
    if options.record:
        draw(rows, options.record.with_suffix(".png"))
        command = ["benchmarks/kept_bins.py", "--threads", str(options.threads)]
        write({"schema": 1, "command": command, **provenance(), "rows": rows}, options.record)


if __name__ == "__main__":
    main()
