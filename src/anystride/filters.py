"""Frozen places whose strides are whole and whose windows are local: short filters, for maps of any size."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from anystride.constants import Call
from anystride.frozen import FrozenPlace
from anystride.geometry import Geometry, Size
from anystride.ops.cosine import CosineBand
from anystride.ops.fusion import programs
from anystride.ops.layout import autocast, convolve
from anystride.ops.matrix import LearnedAxis
from anystride.ops.program import Apply, Convolve, Filter, Kernel, Program, cost
from anystride.ops.segments import local_of, taps_of

torch.fx.wrap("run_filters")

# Per filter: its axis, stride, padding on either side, and what that padding is.
Table = list[tuple[int, int, int, str]]


class FilterPlace(FrozenPlace):
    """A frozen place that filters: the same for maps of any size.

    Args:
        name: of the place, for messages.
        filters: in their order.
        taps: of each of them.
        dtype, device: of the buffers.
        geometry, layer_stride, grows: as in `FrozenPlace`.
        multiple: per axis, what sizes must be multiples of.

    Shape:
        (N, C, *spatial) to (N, C, *output), with ceil(n / stride) samples for n where there is a stride.

    Raises:
        ValueError: a size is no multiple.
    """

    def __init__(
        self,
        name: str,
        filters: Sequence[Filter],
        taps: Sequence[Tensor],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        geometry: Geometry | None = None,
        layer_stride: Size = (),
        grows: bool = False,
        multiple: Sequence[int] = (),
    ) -> None:
        super().__init__(name, {}, dtype, device, geometry, layer_stride, grows)
        self.table: Table = [(step.axis, step.stride, step.padding, step.border) for step in filters]
        self.multiple = list(multiple)
        for number, each in enumerate(taps):
            self.register_buffer(f"taps{number}", each.to(device, dtype))

    def _scripted(self, x: Tensor, lengths: list[int] | None) -> Tensor:
        """As `_resampled`, in the part of Python that TorchScript knows."""
        taps: list[Tensor] = []
        for _, buffer in self.named_buffers():
            taps.append(buffer)
        y: Tensor = run_filters(x, self.name, self.table, self.multiple, taps)
        return y

    @torch.jit.unused
    def _resampled(self, x: Tensor) -> Tensor:
        buffers: Any = list(self._buffers.values())
        return run_filters(x, self.name, self.table, self.multiple, buffers)

    def extra_repr(self) -> str:
        taps = [len(buffer) for buffer in self._buffers.values() if buffer is not None]
        parts = [f"axis {row[0]}: {n} samples, stride {row[1]}" for row, n in zip(self.table, taps, strict=True)]
        return "; ".join(parts)


class FilterPool(FilterPlace):
    """A frozen operator that filters, called as the layer that it replaces; see `FilterPlace`."""

    def forward(self, x: Tensor, lengths: Any = None, convolution: Any = None) -> Tensor:  # type: ignore[override]
        """Resample. What the learned layer was given at freezing was the map alone."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._scripted(x, None)
        if lengths is not None or convolution is not None:
            raise ValueError(
                f"layer {self.name!r} was frozen for calls with a map alone, got lengths or a convolution: freeze the "
                "learned model with an example input that leads to such a call"
            )
        return self._resampled(x)


class Bias(nn.Module):
    """The bias of a convolution, added once its map was filtered: (N, C, *spatial), or (C, *spatial), to the same."""

    def __init__(self, bias: nn.Parameter, axes: int) -> None:
        super().__init__()
        self.bias, self.shape = bias, [-1] + [1] * axes

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.reshape(self.shape)


def run_filters(x: Tensor, name: str, table: Table, multiple: list[int], taps: list[Tensor]) -> Tensor:
    """Filters in their order: one operation to a tracer. A quantised map keeps its scale, as in torch's poolings."""
    scale, zero_point, kind = 1.0, 0, x.dtype
    quantized = x.is_quantized
    if quantized:
        scale, zero_point, x = x.q_scale(), x.q_zero_point(), x.dequantize()
    axes = len(multiple)
    alone = x.dim() == axes + 1
    if alone:
        x = x.unsqueeze(0)
    for axis in range(axes):
        if multiple[axis] > 1 and int(x.shape[2 + axis]) % multiple[axis] != 0:
            raise ValueError(
                f"layer '{name}' was frozen at a stride of {multiple[axis]} and takes multiples of it, got size "
                f"{x.shape[2:]}: freeze the learned model with one more example input, which leads to this size here"
            )
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        x = autocast(x)
    given = x.dtype
    if given == torch.float16 and x.device.type == "cpu":
        x = x.float()
    for n, (axis, stride, padding, border) in enumerate(table):
        x = _filtered(x, taps[n].to(x.dtype), axes, axis, stride, padding, border)
    x = x.to(given).squeeze(0) if alone else x.to(given)
    return torch.quantize_per_tensor(x, scale, zero_point, kind) if quantized else x


def _filtered(x: Tensor, taps: Tensor, axes: int, axis: int, stride: int, padding: int, border: str) -> Tensor:
    shape, strides, paddings = [x.shape[1], 1], [1] * axes, [0] * axes
    for n in range(axes):
        shape.append(taps.shape[0] if n == axis else 1)
    strides[axis], paddings[axis] = stride, padding
    if border != "zeros":
        sides = [0] * (2 * axes)
        sides[2 * (axes - 1 - axis)] = padding
        sides[2 * (axes - 1 - axis) + 1] = padding
        x, paddings[axis] = F.pad(x, sides, mode=border), 0
    weight = taps.reshape([1, 1] + shape[2:]).expand(shape)
    if axes == 1:
        return F.conv1d(x, weight, None, strides, paddings, groups=x.shape[1])
    if axes == 2:
        return F.conv2d(x, weight, None, strides, paddings, groups=x.shape[1])
    return F.conv3d(x, weight, None, strides, paddings, groups=x.shape[1])


class Filters:
    """What a place does to all its calls, as filters before and after a convolution.

    Attributes:
        before, after: filters, each with its taps; without a convolution all are in `before`.
        convolve: how the convolution runs.
        composed: per axis, the taps that its kernel takes in; None if it stays as it is.
    """

    def __init__(self, call: Call, program: Program, composed: bool) -> None:
        self.convolve: Convolve | None = None
        self.composed: list[Tensor] | None = None
        self.before: list[tuple[Filter, Tensor]] = []
        self.after: list[tuple[Filter, Tensor]] = []
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
    costs = [cost(program, first.size, first.channels, kernel) for program, kernel in options]
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
            wide[(slice(None), slice(None), *[slice(None, None, step if a == axis else 1) for a in range(axes)])] = kernel
            kernel = wide
    kernel = kernel.flatten(0, 1).unsqueeze(1)
    for axis, each in enumerate(taps):
        shape, padding, ones = [1, 1, *[1] * axes], [0] * axes, (1,) * axes
        shape[2 + axis], padding[axis] = len(each), len(each) - 1
        own = each.to(kernel.device).flip(0).reshape(shape)
        kernel = convolve(kernel, own, None, Convolve(ones, tuple(padding), ones, 1, ()))
    return kernel.squeeze(1).unflatten(0, weight.shape[:2]).to(weight.dtype)
