"""What a learned layer did to all its maps, as short filters, where steps are whole and windows local."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anystride.constants import Call
from anystride.ops.axes import Axis, LearnedAxis
from anystride.ops.cosine import Cosine, CosineBand
from anystride.ops.fusion import programs
from anystride.ops.program import Apply, Convolve, Filter, Kernel, Program, cost, work
from anystride.ops.segments import local_of, taps_of

# A kernel with filters in it may take so many times the multiply-accumulates of the filters by themselves: a depthwise
# convolution of 3x3 takes 1.4 times, and half the time in ONNX Runtime; one of eight channels per group takes 5 times.
COMPOSED = 2.5


def cut(axis: Axis, tolerance: float) -> Axis:
    """The axis with a kernel of which at most `tolerance` (root of energy) is cut off, where its window is local."""
    at = getattr(axis, "band", None)
    if not isinstance(axis, LearnedAxis) or not isinstance(at, CosineBand) or tolerance <= at.cosine.tolerance:
        return axis
    cosine = Cosine.of(at.cosine.rolloff, tolerance, at.cosine.border)
    return axis._replace(band=replace(at, cosine=cosine, reach=cosine.reach * at.stride))


class Filters:
    """What a place does to all its calls, as filters before and after a convolution.

    Attributes:
        before, after: filters, each with its taps; without a convolution all are in `before`.
        convolve: how the convolution runs.
        composed: per axis, the taps that its kernel takes in; None if it stays as it is.
        steps: by axis, the stride of its filter.
        axes, channels, channels_after: of the map before all steps, and channels of the map after the convolution.
    """

    def __init__(self, call: Call, program: Program, composed: bool) -> None:
        self.axes, self.channels = len(call.size), call.channels
        self.channels_after = call.channels if call.kernel is None else call.kernel.channels
        self.convolve: Convolve | None = None
        self.composed: list[Tensor] | None = None
        self.before: list[tuple[Filter, Tensor]] = []
        self.after: list[tuple[Filter, Tensor]] = []
        self.steps = {step.axis: step.stride for step in program if isinstance(step, Filter)}
        for step in program:
            assert not isinstance(step, Apply)
            if isinstance(step, Convolve):
                self.convolve = step
            else:
                taps = taps_of(call.axes[step.axis], step, torch.float64, torch.device("cpu"))[0]
                (self.before if self.convolve is None else self.after).append((step, taps))
        if composed:
            own = [axis.band for axis in call.axes if isinstance(axis, LearnedAxis)]
            self.composed = [band.taps()[0] for band in own if isinstance(band, CosineBand)]


def filters_of(calls: Sequence[Call], device: torch.device, composes: bool) -> Filters | None:
    """The filters that do to each of some maps what was done to them; None where there are none.

    Args:
        calls: of one place.
        device: where it will run.
        composes: whether the weight of a convolution can take filters in.
    """
    if not calls:
        return None
    first = calls[0]
    spaces = {tuple([getattr(axis, "band", None) and _kind(axis) for axis in call.axes]) for call in calls}
    if len(spaces) > 1 or any(any(call.skipped) for call in calls):
        return None
    options = [option for option in _options(first, device) if composes or option[1] is first.kernel]
    if not options or not all(_options(call, device) for call in calls):
        return None
    each_work = [work(program, first.size, first.channels, kernel) for program, kernel in options]
    macs = [sum(step.macs for step in steps) for steps in each_work]
    options = [option for option, own in zip(options, macs, strict=True) if own <= COMPOSED * min(macs)]
    costs = [cost(program, first.size, first.channels, kernel, True) for program, kernel in options]
    best, kernel = options[costs.index(min(costs))]
    return Filters(first, best, kernel is not first.kernel)


def _kind(axis: Any) -> Any:
    """What the filter of an axis follows from, whatever its length."""
    at = axis.band
    return (at.stride, at.cosine, at.step) if isinstance(at, CosineBand) else at


def _options(call: Call, device: torch.device) -> list[tuple[Program, Kernel | None]]:
    """Programs of filters alone, each with the kernel of its convolution: its own, or one composed with the filters."""
    local = local_of(call.axes, call.kernel)
    if not local:
        return []
    found: list[tuple[Program, Kernel | None]] = [
        (program, call.kernel)
        for program in programs(*call.extents, call.size, call.kernel, device, local, True)
        if not any(isinstance(step, Apply) for step in program) and (program or call.kernel is None)
    ]
    if found and call.kernel is not None and all(own is not None and own.margin is not None for own in local):
        reaches = [0 if own is None else own.radius for own in local]
        each = list(zip(call.kernel.taps, reaches, strict=True))
        taps = [t._replace(size=(t.size - 1) * t.dilation + 1 + 2 * r, dilation=1) for t, r in each]
        padding = tuple([t.padding + r for t, r in each])
        strides = tuple([0 if own is None else own.step for own in local])
        step = Convolve(strides, padding, (1,) * len(local), call.kernel.groups, call.output)
        found.append(((step,), call.kernel._replace(taps=tuple(taps))))
    return found
