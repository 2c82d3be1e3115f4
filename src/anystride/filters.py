"""Frozen places whose strides are whole and whose windows are local: short filters, for maps of any size."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.fx
from torch import Tensor, nn

from anystride.checks import spatial_size
from anystride.compiling import exporting
from anystride.convolution import CONVOLUTIONS
from anystride.filtered import Filters
from anystride.frozen import FrozenConv
from anystride.geometry import Geometry, Size
from anystride.ops.layout import convolve
from anystride.ops.program import Convolve, Filter


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

    def __init__(self, name: str, multiple: Sequence[int], **place: Any) -> None:
        super().__init__(**place)
        self.name, self.multiple = name, tuple(multiple)

    def forward(self, x: Tensor, lengths: Any = None, convolution: Any = None) -> Tensor:  # type: ignore[override]
        """Filter. What the learned layer was given at freezing was the map alone."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check(x, lengths, convolution)
        steps = 0  # TorchScript knows no length of a module
        for layer in self:
            x, steps = layer(x), steps + 1
        return x if steps > 0 else x.clone()

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


def frozen_filters(kind: str, name: str, filters: Filters, **host: Any) -> nn.Module:
    """What takes the place of a layer that filters.

    Args:
        kind: "pool" (an operator by itself), "layer" (a place after a layer), or "convolution": a `FrozenConv`, which
            waits for its convolution.
        name: of the layer, for messages.
        filters: what it does.
        host: further arguments of `FilterPlace`.
    """
    both = filters.before, filters.after
    before, after = [dict[str, Any](filters=[s for s, _ in part], taps=[t for _, t in part]) for part in both]
    about: dict[str, Any] = {"axes": filters.axes, "channels": filters.channels, **host}
    if kind == "pool":
        multiple = [filters.steps.get(axis, 1) for axis in range(filters.axes)]
        return FilterPool(name, multiple, **before, **about)
    if kind == "layer":
        return FilterPlace(**before, **about)
    frozen = FrozenConv(filters.convolve, filters.composed, late=bool(filters.after))
    if filters.before:
        frozen.add_module("before", FilterPlace(**before, **about))
    frozen.add_module("conv", nn.Identity())
    if filters.after:
        frozen.add_module("after", FilterPlace(**after, **{**about, "channels": filters.channels_after}))
    return frozen


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
        y: Tensor = add_bias(x, self.bias, self.shape)
        return y


@torch.fx.wrap
def add_bias(x: Tensor, bias: Tensor, shape: list[int]) -> Tensor:
    """One operation to a tracer. A quantised map keeps its scale."""
    if x.is_quantized:
        y = x.dequantize() + bias.reshape(shape)
        return torch.quantize_per_tensor(y, x.q_scale(), x.q_zero_point(), x.dtype)
    return x + bias.reshape(shape)


def compose(weight: Tensor, taps: Sequence[Tensor], dilation: Sequence[int]) -> Tensor:
    """The weight of one convolution that does what a convolution and a filter after it do, per axis."""
    axes = len(taps)
    kernel = weight.detach().double()
    for axis, step in enumerate(dilation):
        if step > 1:
            shape = list(kernel.shape)
            shape[2 + axis] = (shape[2 + axis] - 1) * step + 1
            wide = kernel.new_zeros(shape)
            places = [slice(None)] * kernel.dim()
            places[2 + axis] = slice(None, None, step)
            wide[tuple(places)] = kernel
            kernel = wide
    kernel = kernel.flatten(0, 1).unsqueeze(1)
    for axis, each in enumerate(taps):
        shape, padding, ones = [1, 1, *[1] * axes], [0] * axes, (1,) * axes
        shape[2 + axis], padding[axis] = len(each), len(each) - 1
        own = each.to(kernel.device).flip(0).reshape(shape)
        kernel = convolve(kernel, own, None, Convolve(ones, tuple(padding), ones, 1, ()))
    composed: Tensor = kernel.squeeze(1).unflatten(0, weight.shape[:2]).to(weight.dtype)
    return composed
