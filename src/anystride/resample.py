"""What hangs under a layer that used to downsample, and how a layer of stride > 1 becomes one of stride 1.

A converted layer stays the object that it was, with its weights, name, hooks and flags: its own stride is set to 1, a
`Resample` is registered as its child `resample`, and a forward hook passes its output through it; with one of torch's
convolutions the child runs as one unit (`unit.Convolved`). The stride-1 map, sampled at every s-th position, is what
the layer gave before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from anystride.compiling import join_graphs, leave_graphs
from anystride.functional import resize
from anystride.layers import DiffStrideNd, SpectralPoolNd
from anystride.ops.fusion import convolved_shape, settle

CHILD = "resample"


@dataclass(frozen=True)
class Geometry:
    """How the layer that was replaced walked over its input; one entry per spatial axis.

    Attributes:
        stride: the stride it had.
        span: samples that one position of its kernel covers, (kernel - 1) * dilation + 1.
        padding: samples added on either side.
        same: whether it padded by TensorFlow's rule, which depends on the stride and on the input's length.
        ceil: whether a last window may reach beyond the border.
    """

    stride: tuple[int, ...]
    span: tuple[int, ...]
    padding: tuple[int, ...]
    same: bool = False
    ceil: bool = False

    def missing(self, size: Sequence[int]) -> list[int]:
        """Samples by which the last windows of a `ceil` layer reach beyond its padding."""
        if not self.ceil:
            return [0] * len(self.stride)
        lengths = zip(size, self.stride, self.span, self.padding, strict=True)
        return [max(0, -(-(n + 2 * p - k) // s) * s + k - (n + 2 * p)) for n, s, k, p in lengths]

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

    def grid(self, size: Sequence[int]) -> list[int]:
        """Length per axis that a stride-1 map of `size` counts as: a whole number of the former stride."""
        return [-(-n // s) * s for n, s in zip(size, self.stride, strict=True)]


class Resample(nn.Module):
    """Takes a stride-1 map to the size that a plan asks for.

    One of: lead (its own `pool` decides), share (the pool and the grid of `leader`), follow (the size that `leader`
    gave last), or keep `size`.

    Args:
        geometry: of the layer that it hangs under; None for one that never had a stride.
        pool: the operator, shared by reference where strides are tied; None to follow or keep a size.
        leader: whose grid or size counts.
        size: the size to keep.
        mode: for what enlarges: the mode of `torch.nn.functional.interpolate` that it used.
        align_corners: its option of that name.
        static: whether all sizes that it meets are held (`grid="fixed"`), so that it may be in a compiler's graph.
    """

    def __init__(
        self,
        geometry: Geometry | None = None,
        pool: DiffStrideNd | SpectralPoolNd | None = None,
        leader: "Resample | SizeOf | None" = None,
        size: tuple[int, ...] | None = None,
        mode: str | None = None,
        align_corners: bool | None = None,
        static: bool = False,
    ) -> None:
        super().__init__()
        leave_graphs(Resample)
        join_graphs(self, static)
        self.geometry, self.size, self.mode, self.align_corners = geometry, size, mode, align_corners
        self.pool = pool
        # In a tuple, or the module would own its leader.
        self._leader = (leader,)
        self.grid: tuple[int, ...] | None = None
        self.output_size: tuple[int, ...] | None = None
        # Whether what comes next changes its input in place: the stride's gradient needs the output as it was.
        self.copies = False

    @property
    def leader(self) -> "Resample | SizeOf | None":
        """Whose grid or size counts, if not its own."""
        return self._leader[0]

    def forward(self, x: Tensor, lengths: None = None, convolution: nn.Module | None = None) -> Tensor:
        """(N, C, *spatial) to the size of the plan, after `convolution` as in `DiffStrideNd.forward`."""
        return self.inside(x, lengths, convolution)

    def inside(self, x: Tensor, lengths: None = None, convolution: nn.Module | None = None) -> Tensor:
        """The same, for a compiler's graph."""
        if self.mode is not None:
            y = self._enlarge(x)
        else:
            x, convolution = settle(x, convolution, "forward" if self.pool is None else self.pool.norm)
            if self.pool is None:
                y = resize(x, self._target(), convolution=convolution)
            else:
                y = self._downsample(x, convolution)
        self.output_size = tuple(y.shape[2:])
        return y

    def _downsample(self, x: Tensor, convolution: nn.Module | None) -> Tensor:
        assert self.pool is not None
        size = convolved_shape(x, convolution)[2:]
        grid = list(size)
        if self.geometry is not None:
            grid = self.geometry.grid(size)
            for axis, skipped in enumerate(self.geometry.offset(size)):
                if skipped:
                    x = x.narrow(2 + axis, skipped, x.shape[2 + axis] - skipped)
        if isinstance(self.leader, Resample):
            grid = list(_known(self.leader.grid, self))
        self.grid = tuple(grid)
        y: Tensor = self.pool(x, grid, convolution)
        return y.clone() if self.copies and y.requires_grad else y

    def _enlarge(self, x: Tensor) -> Tensor:
        assert self.mode is not None
        return F.interpolate(x, self._target(), mode=self.mode, align_corners=self.align_corners)

    def _target(self) -> tuple[int, ...]:
        return _known(self.size if self.leader is None else self.leader.output_size, self)

    def extra_repr(self) -> str:
        if self.pool is not None:
            return "shares another layer's grid" if self.leader is not None else ""
        return f"size={self.size}" if self.leader is None else "follows another map's size"


class SizeOf(nn.Module):
    """Notes the size of the maps that pass, for a `Resample` that follows them. The map itself stays as it is.

    Args:
        static: as of `Resample`.
    """

    def __init__(self, static: bool = False) -> None:
        super().__init__()
        leave_graphs(SizeOf)
        join_graphs(self, static)
        self.output_size: tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The same map."""
        return self.inside(x)

    def inside(self, x: Tensor) -> Tensor:
        """The same, for a compiler's graph."""
        self.output_size = tuple(x.shape[2:])
        return x


def _known(size: tuple[int, ...] | None, module: Resample) -> tuple[int, ...]:
    if size is None:
        raise RuntimeError(
            f"{module} takes its size from a layer that has not run yet; run the whole model that was converted"
        )
    return size


def resample_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Forward hook of a converted layer."""
    result: Tensor = getattr(module, CHILD)(output)
    return result


def _map(module: nn.Module, args: tuple[Any, ...]) -> Tensor:
    if not args:
        raise TypeError(f"{type(module).__name__} was converted: call it with its map as a positional argument")
    x: Tensor = args[0]
    return x


def recompute_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Forward hook of a converted layer that enlarges: to the size that it meets, from its input."""
    result: Tensor = getattr(module, CHILD)(_map(module, args))
    return result


def reach_beyond(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook of a pooling layer whose last windows reached beyond the border: repeat its last samples."""
    x = _map(module, args)
    missing = getattr(module, CHILD).geometry.missing(x.shape[2:])
    if not any(missing):
        return args
    return F.pad(x, [n for samples in reversed(missing) for n in (0, samples)], mode="replicate"), *args[1:]


def note_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook of a whole model in which a map follows the input's size."""
    maps = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.dim() > 2]
    getattr(module, CHILD)(maps[0])
