"""The paper's figures from records: strides over time, where they end, accuracy against complexity, windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import torch

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.paper.values import complexity_of
from anystride.lab.report.html.plots import Series, plot
from anystride.lab.report.text import strides_text
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record
from anystride.ops.window import window

METHOD_COLOURS = {
    "strided": "#888888", "average": "#CC79A7", "spectral": "#E69F00", "outer": "#0072B2", "inner": "#009E73",
    "cosine": "#D55E00",
}  # fmt: skip
LAYER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")
Runs = Sequence[tuple[RunConfig, Record]]
Link = Callable[[RunConfig], str]


def trajectories(run: RunConfig, record: Record) -> str:
    """Figure 3a: the strides of one run, epoch by epoch."""
    axes = ARCHITECTURES[run.model].axes
    curve = [record.start_strides, *(epoch["strides"] for epoch in record.epochs)]
    series, keys = [], {}
    for layer in range(len(curve[0])):
        colour = LAYER_COLOURS[layer % len(LAYER_COLOURS)]
        keys[f"layer {layer + 1}"] = colour
        for axis, name in enumerate(axes):
            points = [
                (epoch, strides[layer][axis], f"layer {layer + 1}, {name}, epoch {epoch}: {strides[layer][axis]:.2f}")
                for epoch, strides in enumerate(curve)
            ]
            series.append(Series(colour, points, line=True, dashed=axis == 1))
    caption = f"{_title(run)}: strides over the epochs; solid {axes[0]}, dashed {axes[1]}."
    return figure(plot(series, "epoch", "stride"), caption, keys)


def final_strides(runs: Runs, link: Link) -> str:
    """Figure 3b: where every run's strides end, per layer; equal accuracies from unequal strides."""
    series = [
        Series(
            METHOD_COLOURS[run.method],
            [
                (
                    layer + 1 + (0.12 if run.method == "inner" else -0.12),
                    math.sqrt(pair[0] * pair[1]),
                    f"{_title(run)}, seed {run.seed}\nlayer {layer + 1}: {pair[0]:.2f} x {pair[1]:.2f}\n"
                    f"{100 * record.accuracy:.1f} %",
                )
                for layer, pair in enumerate(record.strides)
            ],
            link=[link(run)] * len(record.strides),
        )
        for run, record in runs
    ]
    caption = "Learned strides of every run, per layer: the geometric mean of both axes."
    return figure(plot(series, "layer", "stride"), caption, _methods(runs))


def striding(runs: Runs, link: Link) -> str:
    """Figure 3c: the global striding factor of every run against its accuracy."""
    series = []
    for run, record in runs:
        accuracy = 100 * record.accuracy
        text = f"{_title(run)}, seed {run.seed}\n{strides_text(record.strides)}\n{accuracy:.1f} %"
        factor = math.prod(value for pair in record.strides for value in pair)
        series.append(Series(METHOD_COLOURS[run.method], [(factor, accuracy, text)], link=[link(run)]))
    caption = "The global striding factor (product of all strides) of every learned run, against its accuracy."
    return figure(plot(series, "global striding factor", "accuracy (%)", log=True), caption, _methods(runs))


def accuracy_against(runs: Runs, link: Link, quantity: str) -> str:
    """Accuracy against `quantity`: "J" of Eq. 6 (Figure 4) or "cost", multiply-accumulates."""
    series = []
    for run, record in runs:
        j = complexity_of(record.strides)
        cost = record.multiply_accumulates / 1e6
        weight = f", lambda {run.lam:g}" if run.lam else ""
        accuracy = 100 * record.accuracy
        text = f"{_title(run)}{weight}, seed {run.seed}\n{strides_text(record.strides)}\n"
        text += f"{accuracy:.1f} %, J {j:.3f}, {cost:.1f} MMAC"
        point = (j if quantity == "J" else cost, accuracy, text)
        series.append(Series(METHOD_COLOURS[run.method], [point], link=[link(run)]))
    name = "J of Eq. 6 at the end" if quantity == "J" else "million multiply-accumulates per example"
    return figure(plot(series, name, "accuracy (%)", log=True), f"Accuracy against {name}, every run.", _methods(runs))


def windows(run: RunConfig, record: Record) -> str:
    """The window of each layer and axis over frequency: at the start (dashed) and as it was learned."""
    axes, parts = ARCHITECTURES[run.model].axes, []
    for axis, name in enumerate(axes):
        series, keys = [], {}
        for layer, (start, end) in enumerate(zip(record.start_strides, record.strides, strict=True)):
            colour = LAYER_COLOURS[layer % len(LAYER_COLOURS)]
            keys[f"layer {layer + 1}: {start[axis]:.2f} to {end[axis]:.2f}"] = colour
            for stride, dashed in ((start[axis], True), (end[axis], False)):
                series.append(Series(colour, _window(run, record, layer, axis, stride), True, dashed, marks=False))
        drawn = plot(series, f"frequency, {name} (cycles per sample)", "window")
        parts.append(figure(drawn, f"{_title(run)}: windows along {name}; dashed at the start.", keys))
    return "".join(parts)


def _window(run: RunConfig, record: Record, layer: int, axis: int, stride: float) -> list[tuple[float, float, str]]:
    sizes = record.map_sizes
    before = layer - (len(sizes) == len(record.strides))
    # The map that enters the first layer is not listed where entry 0 is what leaves it: its scale hardly matters.
    length = sizes[before][axis] if before >= 0 else max(32, round(sizes[0][axis] * record.strides[0][axis]))
    frequency = torch.linspace(0, length / 2, 60)
    gain = window(frequency, length, min(stride, length - 1e-3), run.smoothness, run.method)
    return [(float(k) / length, float(g), "") for k, g in zip(frequency, gain, strict=True)]


def figure(drawn: str, caption: str, keys: dict[str, str]) -> str:
    """A figure with its caption and what its colours mean."""
    legend = "".join(
        f'<span><i style="background:{colour}"></i> {escape(name)}</span>' for name, colour in keys.items()
    )
    return f'<figure>{drawn}<p class="key soft">{legend}</p><figcaption>{escape(caption)}</figcaption></figure>'


def _methods(runs: Runs) -> dict[str, str]:
    return {DOWNSAMPLERS[run.method].title: METHOD_COLOURS[run.method] for run, _ in runs}


def _title(run: RunConfig) -> str:
    return f"{DOWNSAMPLERS[run.method].title} from ({strides_text([list(pair) for pair in run.strides])})"
