"""What stands at a converted place: one class per role.

A place takes the map of a layer that once had a stride, and that now runs at stride 1, to the size that the plan asks
for. `Leads` learns a stride, `Shares` uses the stride of a place whose maps it meets, `Follows` takes the size that
another place gave in the same call of the network, `Keeps` gives a fixed size, `Enlarges` interpolates to a size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystride.calls import note_size, size_of
from anystride.checks import check_input, spatial_size
from anystride.convolution import counted_size, take_in
from anystride.geometry import Geometry, Size, counted
from anystride.layers import DiffStrideNd, SpectralPoolNd
from anystride.ops.autograd import resample
from anystride.ops.matrix import SpectralAxis

CHILD = "resample"
"""The name under which a converted layer registers its place."""


class Place(nn.Module):
    """What all roles have in common.

    Args:
        name: of the place, as in the plan.
        geometry: of the layer that it stands after.
        followed: whether other places take their size from this one.

    Attributes:
        copies: whether the output is copied, because what comes next changes it in place and a gradient needs it.
        seen: spatial size of the last map and of what became of it, for `print(model)` alone.
    """

    def __init__(self, name: str, geometry: Geometry, followed: bool = False) -> None:
        super().__init__()
        self.name, self.geometry, self.followed, self.copies = name, geometry, followed, False
        self.seen: tuple[Size, Size] | None = None

    def forward(self, x: Tensor, convolution: nn.Module | None = None, input_size: Size | None = None) -> Tensor:
        """Resample.

        Args:
            x: (N, C, *spatial), the stride-1 map; with `convolution`, the map before it.
            convolution: runs at stride 1 before, in the cheapest exact order.
            input_size: spatial size of the layer's input, where it does not follow from that of `x`.

        Returns:
            (N, C, *size), with the channels of the convolution where there is one.
        """
        check_input(x)
        y = self.resampled(x, convolution, input_size)
        size = spatial_size(y)
        if self.followed:
            note_size(self.name, size)
        if not torch.compiler.is_compiling():
            self.seen = spatial_size(x), size
        return y.clone() if self.copies and y.requires_grad else y

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        """What the role does; here the map stays as it is, after the convolution if there is one."""
        return x if convolution is None else take_in(x, convolution, "")[0]

    def extra_repr(self) -> str:
        sizes = "" if self.seen is None else f"last {_words(self.seen[0])} to {_words(self.seen[1])}"
        return ", ".join(part for part in (self.described(), sizes) if part)

    def described(self) -> str:
        """What the role does, for `print(model)`."""
        return ""


class Leads(Place):
    """A stride of its own.

    Args:
        pool: the operator; its stride is the place's.
        place: arguments of `Place`.
    """

    def __init__(self, pool: DiffStrideNd | SpectralPoolNd, **place: Any) -> None:
        super().__init__(**place)
        self.pool = pool

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        lengths = self.lengths(spatial_size(x), convolution is not None, input_size)
        if self.geometry.same:
            for axis, skipped in enumerate(self.geometry.offset(x.shape[2:])):
                if skipped:
                    x = x.narrow(2 + axis, skipped, x.shape[2 + axis] - skipped)
        y: Tensor = self.pool(x, lengths, convolution)
        return y

    def lengths(self, size: Size, convolves: bool, input_size: Size | None) -> Size:
        """Length per axis that the stride-1 map counts as; the arguments are those of `forward`."""
        return counted(self.geometry, size, convolves)


class Shares(Leads):
    """The stride of a place that is given the same map, and whose output it meets.

    Args:
        pool: the operator of the leading place, the same object.
        leader: name of the leading place.
        leading: geometry of the leading layer: where the two layers would count different lengths, its length counts.
        shift: by how many samples the leading layer's input is longer than its own, per axis.
        place: arguments of `Place`.
    """

    def __init__(
        self, pool: DiffStrideNd | SpectralPoolNd, leader: str, leading: Geometry, shift: Size, **place: Any
    ) -> None:
        super().__init__(pool, **place)
        self.leader, self.leading, self.shift = leader, leading, shift

    def lengths(self, size: Size, convolves: bool, input_size: Size | None) -> Size:
        if convolves:
            input_size = size
        elif input_size is None:
            each_axis = zip(size, self.geometry.span, self.geometry.padding, strict=True)
            input_size = tuple([n + k - 1 - 2 * p for n, k, p in each_axis])
        leading = tuple([n + more for n, more in zip(input_size, self.shift, strict=True)])
        return counted(self.leading, leading, True)

    def described(self) -> str:
        return f"stride of {self.leader!r}"


class Keeps(Place):
    """A fixed size.

    Args:
        size: spatial size.
    """

    def __init__(self, size: Size, **place: Any) -> None:
        super().__init__(**place)
        self.size = tuple(size)

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        return _to_size(x, convolution, self.size)

    def described(self) -> str:
        return f"size {_words(self.size)}"


class Follows(Place):
    """The size that another place gave in the same call.

    Args:
        leader: name of that place, or `INPUT`.
        scope: name of the module that must be called as a whole, for messages.
    """

    def __init__(self, leader: str, scope: str = "", **place: Any) -> None:
        super().__init__(**place)
        self.leader, self.scope = leader, scope

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        return _to_size(x, convolution, self.target(x.dim() - 2))

    def target(self, axes: int) -> Size:
        """The size that counts in this call, see `calls.size_of`."""
        return size_of(self.leader, self.name, axes, self.scope)

    def described(self) -> str:
        return f"size of {self.leader!r}"


class Enlarges(Follows):
    """Interpolation to the size that another place gave, or to a fixed one.

    Args:
        mode, align_corners: those of `torch.nn.functional.interpolate`.
        size: a fixed spatial size, instead of `leader`.
    """

    def __init__(
        self,
        leader: str | None,
        mode: str,
        align_corners: bool | None = None,
        size: Size | None = None,
        **place: Any,
    ) -> None:
        super().__init__(leader or "", **place)
        self.mode, self.align_corners, self.size = mode, align_corners, size

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        size = self.target(x.dim() - 2) if self.size is None else self.size
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)

    def described(self) -> str:
        size = super().described() if self.size is None else f"size {_words(self.size)}"
        return f"{size}, mode={self.mode!r}"


class Passes(Place):
    """Nothing but its size is read, by places that follow it."""


def _to_size(x: Tensor, convolution: Any, target: Size) -> Tensor:
    """Spectral pooling or its inverse to a size, after a convolution if there is one."""
    kernel = None
    if convolution is not None:
        x, kernel = take_in(x, convolution, "forward")
    axes = tuple([SpectralAxis(n, h) for n, h in zip(counted_size(x, kernel), target, strict=True)])
    if kernel is None:
        return resample(x, axes)
    return resample(x, axes, None, kernel, convolution.weight, convolution.bias)


def _words(size: Size) -> str:
    return "x".join(map(str, size))
