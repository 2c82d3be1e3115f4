"""Frozen places whose strides are whole and whose windows are local: short filters, for maps of any size."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anystride.checks import spatial_size
from anystride.compiling import exporting
from anystride.constants import Call
from anystride.convolution import CONVOLUTIONS
from anystride.geometry import Geometry, Size
from anystride.ops.cosine import CosineBand
from anystride.ops.fusion import programs
from anystride.ops.layout import convolve
from anystride.ops.matrix import LearnedAxis
from anystride.ops.program import Apply, Convolve, Filter, Kernel, Program, cost
from anystride.ops.segments import local_of, taps_of


class FilterPlace(nn.Sequential):
    """A frozen place that filters: a convolution of torch per axis, one filter for all channels, which does not learn.

    Args:
        filters: in their order.
        taps: of each of them.
        channels, axes: of the map.
        dtype, device: of the weights.
        geometry, layer_stride, grows: of the layer that it stands after, as in `resample.Place`.

    Shape:
        (N, C, *spatial), or (C, *spatial), to the same with ceil(n / stride) samples for n where there is a stride.
    """

    __jit_ignored_attributes__: ClassVar[list[str]] = ["geometry", "layer_stride"]

    def __init__(
        self,
        filters: Sequence[Filter],
        taps: Sequence[Tensor],
        channels: int,
        axes: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        geometry: Geometry | None = None,
        layer_stride: Size = (),
        grows: bool = False,
    ) -> None:
        layers = [_layer(*each, channels, axes) for each in zip(filters, taps, strict=True)]
        super().__init__(*layers)
        self.to(device, dtype)
        self.requires_grad_(False)
        self.geometry, self.layer_stride, self.grows = geometry, layer_stride, grows

    def forward(self, x: Tensor, convolution: Any = None, input_size: Any = None) -> Tensor:
        """Filter. The other arguments of a learned place follow from the size of the map."""
        for layer in self:
            x = layer(x)
        return x


class FilterPool(FilterPlace):
    """A frozen operator that filters, called as the layer that it replaces; see `FilterPlace`.

    Args:
        name: of the layer, for messages.
        multiple: per axis, what sizes must be multiples of.
        place: arguments of `FilterPlace`.

    Raises:
        ValueError: a size is no multiple, or it is called with more than a map.
    """

    __jit_ignored_attributes__: ClassVar[list[str]] = ["geometry", "layer_stride", "multiple", "name"]

    def __init__(self, name: str, multiple: Sequence[int], *place: Any) -> None:
        super().__init__(*place)
        self.name, self.multiple = name, tuple(multiple)

    def forward(self, x: Tensor, lengths: Any = None, convolution: Any = None) -> Tensor:  # type: ignore[override]
        """Filter. What the learned layer was given at freezing was the map alone."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check(x, lengths, convolution)
        for layer in self:
            x = layer(x)
        return x

    @torch.jit.unused
    def _check(self, x: Tensor, lengths: Any, convolution: Any) -> None:
        more = "; freeze the learned model with one more example input, which leads to such a call"
        if lengths is not None or convolution is not None:
            raise ValueError(f"layer {self.name!r} was frozen for calls with a map alone, got more{more}")
        size = spatial_size(x)
        if not exporting() and any(n % m for n, m in zip(size, self.multiple, strict=True)):
            raise ValueError(
                f"layer {self.name!r} was frozen for sizes that are multiples of {self.multiple}, got {size}{more}"
            )


def _layer(step: Filter, taps: Tensor, channels: int, axes: int) -> nn.Module:
    size, strides, paddings = [1] * axes, [1] * axes, [0] * axes
    size[step.axis], strides[step.axis], paddings[step.axis] = len(taps), step.stride, step.padding
    kind: Any = CONVOLUTIONS[axes - 1]
    layer: nn.Module = kind(
        channels,
        channels,
        size,
        strides,
        paddings,
        groups=channels,
        bias=False,
        padding_mode=step.border,
        device="meta",
    )
    layer.weight = nn.Parameter(taps.reshape(1, 1, *size).repeat(channels, 1, *[1] * axes))
    return layer


class Bias(nn.Module):
    """The bias of a convolution, added once its map was filtered: (N, C, *spatial), or (C, *spatial), to the same."""

    def __init__(self, bias: nn.Parameter, axes: int) -> None:
        super().__init__()
        self.bias, self.shape = bias, [-1] + [1] * axes

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.reshape(self.shape)


class Filters:
    """What a place does to all its calls, as filters before and after a convolution.

    Attributes:
        before, after: filters, each with its taps; without a convolution all are in `before`.
        convolve: how the convolution runs.
        composed: per axis, the taps that its kernel takes in; None if it stays as it is.
        steps: by axis, the stride of its filter.
    """

    def __init__(self, call: Call, program: Program, composed: bool) -> None:
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


def compose(weight: Tensor, taps: Sequence[Tensor], dilation: Sequence[int]) -> Tensor:
    """The weight of one convolution that does what a convolution and a filter after it do, per axis."""
    axes = len(taps)
    kernel = weight.detach().double()
    for axis, step in enumerate(dilation):
        if step > 1:
            shape = list(kernel.shape)
            shape[2 + axis] = (shape[2 + axis] - 1) * step + 1
            wide = kernel.new_zeros(shape)
            wide[(slice(None), slice(None), *[slice(None, None, step if a == axis else 1) for a in range(axes)])] = (
                kernel
            )
            kernel = wide
    kernel = kernel.flatten(0, 1).unsqueeze(1)
    for axis, each in enumerate(taps):
        shape, padding, ones = [1, 1, *[1] * axes], [0] * axes, (1,) * axes
        shape[2 + axis], padding[axis] = len(each), len(each) - 1
        own = each.to(kernel.device).flip(0).reshape(shape)
        kernel = convolve(kernel, own, None, Convolve(ones, tuple(padding), ones, 1, ()))
    return kernel.squeeze(1).unflatten(0, weight.shape[:2]).to(weight.dtype)
