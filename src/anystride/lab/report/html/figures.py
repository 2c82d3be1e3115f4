"""The paper's figures from records: strides over time, where they end, accuracy against complexity, windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import torch

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.measure import entering_length
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.paper.figure4 import Known
from anystride.lab.paper.values import complexity_of
from anystride.lab.report.colours import METHOD_COLOURS, stride_colour
from anystride.lab.report.html.plots import Series, plot
from anystride.lab.report.text import strides_text
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record
from anystride.ops.window import window


@dataclass(frozen=True)
class Shown:
    """A run of a figure.

    Args:
        config: what was run.
        record: what came out.
        link: the address of its record.
        name: of the run; without one, its downsampler and where it started.
    """

    config: RunConfig
    record: Record
    link: str
    name: str = ""

    @property
    def title(self) -> str:
        """Name, downsampler and strides at the start."""
        what = f"{DOWNSAMPLERS[self.config.method].title} from ({strides_text(self.config.strides)})"
        what += ", one stride for both axes" if self.config.shared_stride else ""
        what += f", within {self.config.budget_macs}" if self.config.budget_macs else ""
        return f"{self.name}: {what}" if self.name else what


Runs = Sequence[Shown]


def trajectories(shown: Shown) -> str:
    """Figure 3a: the strides of one run, epoch by epoch."""
    axes = ARCHITECTURES[shown.config.model].axes
    curve = [shown.record.start_strides, *(epoch["strides"] for epoch in shown.record.epochs)]
    series, keys = [], {}
    for number in range(len(curve[0])):
        colour = stride_colour(number)
        keys[f"stride {number + 1}"] = colour
        for axis, name in enumerate(axes):
            points = [
                (
                    epoch,
                    strides[number][axis],
                    f"stride {number + 1}, {name}, epoch {epoch}: {strides[number][axis]:.2f}",
                )
                for epoch, strides in enumerate(curve)
                if strides[number][axis] is not None
            ]
            series.append(Series(colour, points, line=True, dashed=axis == 1))
    lines = f"; solid {axes[0]}, dashed {axes[1]}" if len(axes) > 1 else ""
    return figure(plot(series, "epoch", "stride"), f"{shown.title}: strides over the epochs{lines}.", keys)


def final_strides(runs: Runs) -> str:
    """Figure 3b: where every run's strides end, per downsampler and axis; a figure per method, a colour per start."""
    parts = []
    for method in dict.fromkeys(shown.config.method for shown in runs):
        mine = [shown for shown in runs if shown.config.method == method]
        axes = ARCHITECTURES[mine[0].config.model].axes
        starts = {
            text: stride_colour(number)
            for number, text in enumerate(dict.fromkeys(strides_text(shown.config.strides) for shown in mine))
        }
        series = []
        for shown in mine:
            start = strides_text(shown.config.strides)
            shift = 0.5 * (list(starts).index(start) + 0.5) / len(starts) - 0.25
            for axis, name in enumerate(axes):
                points = [
                    (
                        number + 1 + shift,
                        pair[axis],
                        f"{shown.title}, seed {shown.config.seed}\nstride {number + 1}, {name}: {pair[axis]:.2f}\n"
                        f"{100 * shown.record.accuracy:.1f} %",
                    )
                    for number, pair in enumerate(shown.record.strides)
                ]
                link = [shown.link] * len(points)
                series.append(Series(starts[start], points, hollow=axis == 1, link=link))
        marks = f"; discs {axes[0]}, rings {axes[1]}" if len(axes) > 1 else ""
        caption = f"{DOWNSAMPLERS[method].title}: where the strides of each run end, per downsampler{marks}."
        keys = {f"from ({start})": colour for start, colour in starts.items()}
        parts.append(figure(plot(series, "downsampler", "stride"), caption, keys))
    return "".join(parts)


def striding(runs: Runs) -> str:
    """Figure 3c: the global striding factor of every run against its accuracy."""
    series = []
    for shown in runs:
        accuracy, strides = 100 * shown.record.accuracy, shown.record.strides
        text = f"{shown.title}, seed {shown.config.seed}\n{strides_text(strides)}\n{accuracy:.1f} %"
        factor = math.prod(value for pair in strides for value in pair)
        series.append(Series(METHOD_COLOURS[shown.config.method], [(factor, accuracy, text)], link=[shown.link]))
    caption = "The global striding factor (product of all strides) of every learned run, against its accuracy."
    return figure(plot(series, "global striding factor", "accuracy (%)", log=True), caption, _methods(runs))


def accuracy_against(runs: Runs, quantity: Literal["J", "cost"], where: str = "", known: Sequence[Known] = ()) -> str:
    """Accuracy against a quantity.

    Args:
        runs: the points.
        quantity: "J" of Eq. 6 (Figure 4) or "cost", multiply-accumulates.
        where: ends the caption.
        known: points of the paper, for J.
    """
    series, labelled = [], set()
    for shown in runs:
        config, record = shown.config, shown.record
        j = complexity_of(record.strides)
        cost = record.multiply_accumulates / 1e6
        weight = f"lambda {config.lam:g}" if config.lam else ""
        accuracy = 100 * record.accuracy
        text = f"{shown.title}{', ' * bool(weight)}{weight}, seed {config.seed}\n{strides_text(record.strides)}\n"
        text += f"{accuracy:.1f} %, J {j:.3f}, {cost:.1f} MMAC"
        point = (j if quantity == "J" else cost, accuracy, text)
        first = (config.method, config.lam) not in labelled
        labelled.add((config.method, config.lam))
        colour, label = METHOD_COLOURS[config.method], weight.replace("lambda ", "\u03bb ") if first else ""
        series.append(Series(colour, [point], hollow=config.shared_stride, link=[shown.link], label=label))
    for each in known:
        j = complexity_of(each.strides)
        text = f"the paper, {each.name}\n{strides_text(each.strides)}\n{each.accuracy:g} %, J {j:.3f}"
        series.append(Series(METHOD_COLOURS[each.method], [(j, each.accuracy, text)], hollow=True))
    name = "J of Eq. 6 at the end" if quantity == "J" else "million multiply-accumulates per example"
    caption = f"Accuracy against {name}, every run{where}."
    if known:
        caption += " Rings: what the paper prints, on its own data; its J follows from the strides."
    elif any(shown.config.shared_stride for shown in runs):
        caption += " Rings: one stride for both axes."
    return figure(plot(series, name, "accuracy (%)", log=True), caption, _methods(runs))


def windows(shown: Shown) -> str:
    """The window of each downsampler and axis over frequency: at the start (dashed) and as it was learned."""
    axes, parts, record = ARCHITECTURES[shown.config.model].axes, [], shown.record
    for axis, name in enumerate(axes):
        series, keys = [], {}
        for number, (start, end) in enumerate(zip(record.start_strides, record.strides, strict=True)):
            colour = stride_colour(number)
            keys[f"stride {number + 1}: {start[axis]:.2f} to {end[axis]:.2f}"] = colour
            for stride, sizes, dashed in (
                (start[axis], record.start_map_sizes, True),
                (end[axis], record.map_sizes, False),
            ):
                curve = _window(shown, entering_length(sizes, shown.record.strides, number, axis), stride)
                series.append(Series(colour, curve, True, dashed, marks=False))
        drawn = plot(series, f"frequency, {name} (cycles per sample)", "window")
        parts.append(figure(drawn, f"{shown.title}: windows along {name}; dashed at the start.", keys))
    return "".join(parts)


def _window(shown: Shown, length: int, stride: float) -> list[tuple[float, float, str]]:
    frequency = torch.linspace(0, length / 2, 60)
    gain = window(frequency, length, stride, shown.config.smoothness, shown.config.method)
    return [(float(k) / length, float(g), "") for k, g in zip(frequency, gain, strict=True)]


def figure(drawn: str, caption: str, keys: dict[str, str]) -> str:
    """A figure with its caption and what its colours mean."""
    legend = "".join(
        f'<span><i style="background:{colour}"></i> {escape(name)}</span>' for name, colour in keys.items()
    )
    return f'<figure>{drawn}<p class="key soft">{legend}</p><figcaption>{escape(caption)}</figcaption></figure>'


def _methods(runs: Runs) -> dict[str, str]:
    methods = dict.fromkeys(shown.config.method for shown in runs)
    return {DOWNSAMPLERS[method].title: METHOD_COLOURS[method] for method in methods}
