"""What stands at a converted place: one class per role.

A place takes the map of a layer that once had a stride, and that now runs at stride 1, to the size that the plan asks
for. `Leads` learns a stride, `Shares` uses the stride of a place whose maps it meets, `Follows` takes the size that
another place gave in the same call of the network, `Keeps` gives a fixed size, `Enlarges` interpolates to a size.

The size that one place needs from another travels with the call: a module around both (`hosts.scope`) opens a record
when it is called and closes it when it returns. Nothing is left on a module for the next call.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystride.checks import check_input, spatial_size
from anystride.convolution import take_in
from anystride.layers import DiffStrideNd, SpectralPoolNd
from anystride.ops.autograd import resample
from anystride.ops.cache import remembered
from anystride.ops.fusion import convolved
from anystride.ops.matrix import SpectralAxis

CHILD = "resample"
INPUT = "input"
"""The leader of places that follow the size of the model's input; INPUT + ":" + path names one input of several."""

Size = tuple[int, ...]
# Per name of a place that is followed: the size that it gave in this call, or None before it ran. Under INPUT: the
# sizes of the inputs by their path.
CallRecord = dict[str, Any]


class _Calls(threading.local):
    """The calls that are under way in this thread, the innermost last."""

    records: tuple[CallRecord, ...] = ()


_calls = _Calls()


def open_record(names: Sequence[str], inputs: Mapping[str, Size]) -> tuple[CallRecord, ...]:
    """Open the record of a call of a module that some places and their leaders are in.

    Args:
        names: of the leaders.
        inputs: spatial sizes of the module's inputs, by their path.

    Returns:
        What `close_record` takes.
    """
    before = _calls.records
    record: CallRecord = dict.fromkeys(names)
    record[INPUT] = inputs
    _calls.records = (*before, record)
    return before


def close_record(before: tuple[CallRecord, ...]) -> None:
    """Close the record that was opened last."""
    _calls.records = before


class Geometry(NamedTuple):
    """How the layer that was replaced moved over its input; one entry per spatial axis.

    Attributes:
        stride: the stride it had.
        span: samples that one position of its kernel covers, (kernel - 1) * dilation + 1.
        padding: samples added on either side.
        same: whether it padded by TensorFlow's rule, which depends on the stride and on the input's length.
        ceil: whether a last window may reach beyond the border.
    """

    stride: Size
    span: Size
    padding: Size
    same: bool = False
    ceil: bool = False

    def missing(self, size: Sequence[int]) -> list[int]:
        """Samples by which the last windows of a `ceil` layer reach beyond its padding, for an input of `size`."""
        if not self.ceil:
            return [0] * len(self.stride)
        lengths = zip(size, self.stride, self.span, self.padding, strict=True)
        return [max(0, -(-(n + 2 * p - k) // s) * s + k - (n + 2 * p)) for n, s, k, p in lengths]

    def unstrided(self, size: Sequence[int]) -> Size:
        """Size that the layer gives at stride 1 for an input of `size`."""
        if self.same:
            return tuple(size)
        each_axis = zip(size, self.missing(size), self.span, self.padding, strict=True)
        return tuple([n + m + 2 * p - k + 1 for n, m, k, p in each_axis])

    def offset(self, size: Sequence[int]) -> list[int]:
        """Position in the stride-1 map of the layer's first sample, other than 0 only for `same`.

        There `size`, of that map, is the input's, too.
        """
        if not self.same:
            return [0] * len(self.stride)
        return [
            (k - 1) // 2 - max((-(-n // s) - 1) * s + k - n, 0) // 2
            for n, s, k in zip(size, self.stride, self.span, strict=True)
        ]

    def grid(self, size: Sequence[int]) -> Size:
        """Length per axis that a stride-1 map of `size` counts as: a whole number of the former stride."""
        return tuple([-(-n // s) * s for n, s in zip(size, self.stride, strict=True)])


@remembered
def counted(geometry: Geometry, size: Size, from_input: bool) -> Size:
    """Length per axis that the stride-1 map counts as, from its own size or from that of the layer's input."""
    return geometry.grid(geometry.unstrided(size) if from_input else size)


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
            for record in reversed(_calls.records):
                if self.name in record:
                    record[self.name] = size
                    break
        if not torch.compiler.is_compiling():
            self.seen = spatial_size(x), size
        return y.clone() if self.copies and y.requires_grad else y

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        """What the role does."""
        raise NotImplementedError

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
        """The size that counts in this call.

        Raises:
            RuntimeError: it is not known.
        """
        key, _, path = self.leader.partition(":") if self.leader.startswith(INPUT + ":") else (self.leader, "", "")
        whole = f"the module {self.scope!r}" if self.scope else "the whole model"
        for record in reversed(_calls.records):
            size = record.get(key)
            if key == INPUT and size is not None:
                sizes = [n for name, n in size.items() if len(n) == axes and path in ("", name)]
                if sizes:
                    return sizes[0]  # type: ignore[no-any-return]
            elif key in record:
                if size is None:
                    raise RuntimeError(
                        f"{self.name!r} takes its size from {key!r}, which did not run before it in this call of "
                        f"{whole}; convert with filter= so that one of the two stays, if {key!r} is skipped on purpose"
                    )
                return size  # type: ignore[no-any-return]
        raise RuntimeError(
            f"{self.name!r} takes its size from {self.leader!r} in the same call of {whole}, which is not under way; "
            f"call {whole}, not a part of it"
        )

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

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        return x if convolution is None else take_in(x, convolution, "")[0]


def _to_size(x: Tensor, convolution: Any, target: Size) -> Tensor:
    """Spectral pooling or its inverse to a size, after a convolution if there is one."""
    kernel = None
    if convolution is not None:
        x, kernel = take_in(x, convolution, "forward")
    size = spatial_size(x)
    lengths = size if kernel is None else convolved(kernel, size)
    axes = tuple([SpectralAxis(n, h) for n, h in zip(lengths, target, strict=True)])
    if kernel is None:
        return resample(x, axes)
    return resample(x, axes, None, kernel, convolution.weight, convolution.bias)


def _words(size: Size) -> str:
    return "x".join(map(str, size))
