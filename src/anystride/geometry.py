"""How a layer with a stride moves over its input, and what that means for the layer at stride 1."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from anystride.ops.cache import remembered

Size = tuple[int, ...]
AXES = ("depth", "height", "width")


def axis_names(count: int) -> tuple[str, ...]:
    """The spatial axes of a map that has so many, in words."""
    return AXES[-count:] if count > 1 else ("length",)


class SizeRule(NamedTuple):
    """The size that an unconverted network has at a place along one axis, from the size of its input.

    Attributes:
        leader: the input, as `calls.size_of` takes it.
        axis: of the input.
        axes: how many the input has.
        steps: from a size n to (n * a + b) // c, for each (a, b, c) in turn.
        example: spatial size that the input had when the rule was found; empty in plans of version 0.1.
    """

    leader: str
    axis: int
    axes: int
    steps: tuple[tuple[int, int, int], ...] = ()
    example: Size = ()

    def apply(self, size: int) -> int:
        """The size for one of the input."""
        for factor, offset, divisor in self.steps:
            size = (size * factor + offset) // divisor
        return size


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
        """Samples by which windows reach beyond the padding, for an input of `size`: the last ones of a `ceil` layer,
        and the only one where the map has become smaller than a window.
        """
        each_axis = list(zip(size, self.stride, self.span, self.padding, strict=True))
        if not self.ceil or self.same:
            return [0 if self.same else max(0, k - n - 2 * p) for n, _, k, p in each_axis]
        return [max(0, -(-(n + 2 * p - k) // s) * s + k - (n + 2 * p), k - n - 2 * p) for n, s, k, p in each_axis]

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

    def step(self, axis: int) -> tuple[int, int, int]:
        """One of the steps of a `SizeRule`: from the input's size to the output's along an axis."""
        s, k, p = self.stride[axis], self.span[axis], self.padding[axis]
        if self.same:
            return 1, s - 1, s
        return 1, 2 * p - k + (2 * s - 1 if self.ceil else s), s

    def grid(self, size: Sequence[int]) -> Size:
        """Length per axis that a stride-1 map of `size` counts as: a whole number of the former stride."""
        return tuple([-(-n // s) * s for n, s in zip(size, self.stride, strict=True)])


@remembered
def counted(geometry: Geometry, size: Size, from_input: bool) -> Size:
    """Length per axis that the stride-1 map counts as, from its own size or from that of the layer's input."""
    return geometry.grid(geometry.unstrided(size) if from_input else size)


def along(x: Tensor, dims: Sequence[int], run: Callable[[Tensor], Tensor]) -> Tensor:
    """Run on a map whose spatial dimensions are `dims`: all others but the first count as channels."""
    if tuple(dims) == tuple(range(2, x.dim())):
        return run(x)
    last = tuple(range(-len(dims), 0))
    moved = x.movedim(tuple(dims), last)
    others = moved.shape[1 : -len(dims)]
    y: Tensor = run(moved.flatten(1, len(others))).unflatten(1, others)
    return y.movedim(last, tuple(dims)).contiguous()


def words(sizes: Sequence[Any]) -> str:
    """Sizes in words, and the inputs that they follow from."""
    leaders = sorted({repr(size.leader) for size in sizes if isinstance(size, SizeRule)})
    numbers = "x".join(str(size) if isinstance(size, int) else "?" for size in sizes)
    return f"{numbers if '?' not in numbers else 'that it had'} by {', '.join(leaders)}" if leaders else numbers
