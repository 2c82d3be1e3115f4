"""DiffStride and spectral pooling as modules: they hold parameters and call `functional`."""

import functools
import itertools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anystride.compiling import join_graphs, leave_graphs
from anystride.functional import (
    check_choice,
    check_input,
    check_smoothness,
    downsample,
    per_axis,
    resize,
    spectral_pool,
)
from anystride.ops.fusion import convolved_shape, settle
from anystride.ops.matrix import NORMS
from anystride.ops.window import RAMPS, Band, band, stride_bounds

_live: "weakref.WeakSet[DiffStrideNd]" = weakref.WeakSet()
# Counts calls of layers, so that the order in which data met them can be told afterwards.
_calls = itertools.count(1)


class DiffStrideNd(nn.Module):
    """Downsampling whose stride is a parameter (Algorithm 1); use `DiffStride1d`, `DiffStride2d` or `DiffStride3d`.

    The parameter is float32 whatever the model's dtype. Its value in use is clamped to what the map can take
    (`window.stride_bounds`), so any optimiser may step it anywhere; the gradient passes the clamp, and each backward
    pass brings a value that has left the range back to its end. Neither is done in `forward`, which writes nothing.

    Args:
        stride: initial stride, at least 1, a number or one per spatial axis.
        smoothness: R, width of the window's ramp in frequency bins (the paper: 4), one value or one per axis.
        shared: learn a single stride for all axes.
        ramp: "outer" (the paper) or "inner" (the shapes of a strided convolution).
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" is the authors' release.
        grid: how output sizes follow the stride. "free": at once. A whole number n: rounded up to a multiple of n (at
            most to L), so that fewer sizes occur. "fixed": the size that the stride gives at the first call stays,
            for each input size, until `anystride.regrid_`; meanwhile the window moves on that grid. With "fixed" the
            layer can be compiled with its network, without a break.
        device: where the parameter is created.

    Shape:
        (N, C, *spatial) to (N, C, *output_size(spatial)). An axis of length 1 passes.

    Raises:
        ValueError: an argument is out of range, the stride has become NaN, or the input has another number of axes.
        TypeError: the input is not floating point.
    """

    spatial_dims: ClassVar[int]
    stride: nn.Parameter

    def __init__(
        self,
        stride: float | Sequence[float] = 2.0,
        smoothness: float | Sequence[float] = 4.0,
        shared: bool = False,
        ramp: str = "outer",
        norm: str = "forward",
        grid: int | str = "free",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        leave_graphs(DiffStrideNd)
        check_choice("ramp", ramp, RAMPS)
        check_choice("norm", norm, NORMS)
        start = check_strides(per_axis("stride", stride, self.spatial_dims))
        if shared and len(set(start)) > 1:
            raise ValueError(f"stride must be a single value when shared=True, got {start}")
        self.smoothness = per_axis("smoothness", smoothness, self.spatial_dims)
        check_smoothness(self.smoothness)
        self.shared, self.ramp, self.norm, self.grid = shared, ramp, norm, grid
        self._start = start[:1] if shared else start
        self.stride = nn.Parameter(torch.tensor(self._start, dtype=torch.float32, device=device))
        # The parameter that carries our hook, in a tuple, or the module would list it as a second parameter.
        self._watched: tuple[nn.Parameter] | None = None
        # Its version and values when the host last read them.
        self._host: tuple[tuple[int, int], tuple[float, ...]] | None = None
        # What its maps could take since the last backward pass, per axis.
        self._bounds: list[tuple[float, float]] | None = None
        self._projected = False
        # The number of its last call; 0 before the first.
        self._call = 0
        # Output sizes that stay, by the lengths of the input.
        self._held: dict[tuple[int, ...], tuple[int, ...]] = {}
        _live.add(self)

    def reset_parameters(self) -> None:
        """Put the stride back to its initial value."""
        with torch.no_grad():
            self.stride.copy_(torch.tensor(self._start))

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None, convolution: nn.Module | None = None) -> Tensor:
        """Downsample.

        Args:
            x: (N, C, *spatial).
            lengths: one per axis, to count an axis as longer (its last sample repeats) or shorter.
            convolution: a module to run before: the result is that of `self(convolution(x))`. Where it is one of
                torch's convolutions at stride 1, both run in the order that costs least, mostly at the output's
                resolution. It keeps its parameters; one with hooks runs by itself first.
        """
        check_input(x, self.spatial_dims)
        if torch._C._current_graph_task_id() < 0:  # a checkpoint that runs anew in a backward pass is no new call
            self._call = next(_calls)
        self._watch()
        return self.inside(x, lengths, convolution)

    def inside(self, x: Tensor, lengths: Sequence[int] | None = None, convolution: nn.Module | None = None) -> Tensor:
        """The part of `forward` that can be in a compiler's graph."""
        x, convolution = settle(x, convolution, self.norm)
        counted = tuple(convolved_shape(x, convolution)[2:] if lengths is None else lengths)
        if not torch.compiler.is_compiling():
            self._note_bounds(counted)
        return downsample(x, self.stride, self.bands(counted), self.norm, convolution)

    def bands(self, lengths: Sequence[int]) -> list[Band]:
        """What each axis of so many samples keeps at the current stride, on the grid that it has or now gets."""
        at = tuple(lengths)
        if torch.compiler.is_compiling():
            held = self._held.get(at)
            if held is None:
                raise RuntimeError(
                    f"maps of size {at} are new: call anystride.regrid_(model, example) and compile then"
                )
            parts: Any = self.stride.detach().double().expand(self.spatial_dims).unbind()
            static = zip(at, parts, self.smoothness, held, strict=True)
            return [band(length, stride, width, self.ramp, h) for length, stride, width, h in static]
        each_axis = list(zip(at, self._values(), self.smoothness, strict=True))
        bands = [band(*each, self.ramp) for each in each_axis]
        if self.grid == "free":
            return bands
        sizes = tuple(each.output_length for each in bands)
        if self.grid == "fixed":
            sizes = self._held.setdefault(at, sizes)
        else:
            n = int(self.grid)
            sizes = tuple(min(length, -(-h // n) * n) for length, h in zip(at, sizes, strict=True))
        return [band(*each, self.ramp, h) for each, h in zip(each_axis, sizes, strict=True)]

    @property
    def grid(self) -> int | str:
        """How output sizes follow the stride: "free", a whole number, or "fixed"."""
        return self._grid

    @grid.setter
    def grid(self, grid: int | str) -> None:
        check_grid(grid)
        self._grid = grid
        join_graphs(self, grid == "fixed")

    def regrid(self) -> None:
        """With `grid="fixed"`: give up the sizes that were held. The next call takes those of its stride."""
        self._held.clear()

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for a spatial size of the input, at the current stride."""
        return tuple(each.output_length for each in self.bands(check_size(input_size, self.spatial_dims)))

    def effective_stride(self) -> Tensor:
        """The stride in use, (n,) or (1,) as the parameter: clamped to what the last maps could take.

        Its gradient passes the clamp.
        """
        value = self.stride.detach()
        clamped = [part.clamp(low, high) for part, (low, high) in zip(value.split(1), self._range(), strict=True)]
        return torch.cat(clamped) + (self.stride - value)

    def extra_repr(self) -> str:
        values = self._values()
        stride = values[0] if len(set(values)) == 1 else values
        smoothness = self.smoothness[0] if len(set(self.smoothness)) == 1 else self.smoothness
        grid = "" if self.grid == "free" else f", grid={self.grid!r}"
        kind = f"shared={self.shared}, ramp={self.ramp!r}, norm={self.norm!r}{grid}"
        return f"stride={stride}, smoothness={smoothness}, {kind}"

    def _values(self) -> tuple[float, ...]:
        """The parameter's values on the host, one per axis.

        Where reading waits for a device, all layers there are read together, once per change of theirs.
        """
        stride = self.stride
        if stride.is_meta:
            values = self._start
        elif not reading_waits(stride):
            values = tuple(stride.detach().tolist())
        else:
            if self._host is None or self._host[0] != _version(stride):
                stale = [layer for layer in _live if layer._is_stale(stride.device)]
                _read(stale if self in stale else [self])
            assert self._host is not None
            values = self._host[1]
        if any(math.isnan(value) for value in values):
            raise ValueError(f"stride is {values}: training has diverged; lower the learning rate (or only stride_lr)")
        return values * (self.spatial_dims // len(values))

    def _is_stale(self, device: torch.device) -> bool:
        stride = self.stride
        return stride.device == device and (self._host is None or self._host[0] != _version(stride))

    def _range(self) -> list[tuple[float, float]]:
        """Bounds per entry of the parameter, as wide as any axis that it serves allows."""
        bounds = self._bounds or [(1.0, math.inf)] * self.spatial_dims
        if len(self._start) == 1:
            return [(min(low for low, _ in bounds), max(high for _, high in bounds))]
        return bounds

    def _note_bounds(self, size: Sequence[int]) -> None:
        """Remember what this map can take, together with others since the last backward pass."""
        bounds = [stride_bounds(n, width, self.ramp) for n, width in zip(size, self.smoothness, strict=True)]
        if self._bounds is not None and not self._projected:
            bounds = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(bounds, self._bounds, strict=True)]
        self._bounds, self._projected = bounds, False

    def _watch(self) -> None:
        stride = self.stride
        if self._watched is not None and self._watched[0] is stride:
            return
        if stride.is_leaf and stride.requires_grad and isinstance(stride, nn.Parameter):
            # A hook that owned the layer would keep it alive: the parameter belongs to the layer, out of sight of gc.
            project = weakref.WeakMethod(self._project)
            stride.register_post_accumulate_grad_hook(functools.partial(_project_if_alive, project))
            self._watched = (stride,)

    @torch.no_grad()
    def _project(self, stride: Tensor) -> None:
        """Before the optimiser steps: start its step from within the range."""
        for value, (low, high) in zip(stride.split(1), self._range(), strict=True):
            value.clamp_(low, high)
        self._projected = True

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to this very parameter: a copy has its own."""
        return {**self.__dict__, "_watched": None, "_host": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        leave_graphs(DiffStrideNd)
        _live.add(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DiffStrideNd":
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == torch.float32 else tensor.to(moved.device)

        super()._apply(keep_float32, recurse)  # type: ignore[no-untyped-call]
        return self


def _project_if_alive(project: "weakref.WeakMethod[Any]", stride: Tensor) -> None:
    alive = project()
    if alive is not None:
        alive(stride)


def reading_waits(stride: Tensor) -> bool:
    """Whether the host must wait for a device to see the stride's value."""
    return stride.device.type != "cpu"


def _version(stride: Tensor) -> tuple[int, int]:
    return stride._version, stride.data_ptr()


def _read(layers: Sequence[DiffStrideNd]) -> None:
    """Bring the strides of layers that share a device to the host: one transfer."""
    values = iter(torch.cat([layer.stride.detach() for layer in layers]).tolist())
    for layer in layers:
        layer._host = _version(layer.stride), tuple(next(values) for _ in range(layer.stride.numel()))


class DiffStride1d(DiffStrideNd):
    """`DiffStrideNd` for (N, C, L).

    Example:
        >>> DiffStride1d(stride=2.5)(torch.randn(4, 8, 100)).shape
        torch.Size([4, 8, 48])
    """

    spatial_dims = 1


class DiffStride2d(DiffStrideNd):
    """`DiffStrideNd` for (N, C, H, W).

    Example:
        >>> pool = DiffStride2d(stride=2.0)
        >>> pool(torch.randn(8, 64, 32, 32)).shape
        torch.Size([8, 64, 24, 24])
        >>> DiffStride2d(stride=(2.0, 3.0), ramp="inner")(torch.randn(8, 64, 32, 32)).shape
        torch.Size([8, 64, 16, 11])
    """

    spatial_dims = 2


class DiffStride3d(DiffStrideNd):
    """`DiffStrideNd` for (N, C, D, H, W).

    Example:
        >>> DiffStride3d(stride=2.0, ramp="inner", shared=True)(torch.randn(2, 8, 8, 16, 16)).shape
        torch.Size([2, 8, 4, 8, 8])
    """

    spatial_dims = 3


class SpectralPoolNd(nn.Module):
    """Spectral pooling (section 2.3); use `SpectralPool1d`, `SpectralPool2d` or `SpectralPool3d`.

    Args:
        stride: S >= 1, fixed, a number or one per spatial axis; the output has max(1, floor(L / S)) samples.
        output_size: the output's spatial size instead, a number or one per spatial axis.
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" leaves transforms unscaled.

    Shape:
        (N, C, *spatial) to (N, C, *output_size(spatial)).

    Raises:
        ValueError: not exactly one of `stride` and `output_size` is given, an argument is out of range, or the input
            has another number of axes.
        TypeError: the input is not floating point.
    """

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        stride: float | Sequence[float] | None = None,
        output_size: int | Sequence[int] | None = None,
        norm: str = "forward",
    ) -> None:
        super().__init__()
        check_choice("norm", norm, NORMS)
        if (stride is None) == (output_size is None):
            raise ValueError(f"give either stride or output_size, got stride={stride} and output_size={output_size}")
        self.stride = None if stride is None else check_strides(per_axis("stride", stride, self.spatial_dims))
        self.size = None if output_size is None else per_axis("output_size", output_size, self.spatial_dims)
        self.norm = norm

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None, convolution: nn.Module | None = None) -> Tensor:
        """Downsample; `lengths` and `convolution` as in `DiffStrideNd.forward`."""
        check_input(x, self.spatial_dims)
        x, convolution = settle(x, convolution, self.norm)
        if lengths is None and convolution is None:
            return spectral_pool(x, self.output_size(x.shape[2:]), self.norm)
        counted = convolved_shape(x, convolution)[2:] if lengths is None else lengths
        return resize(x, self.output_size(counted), self.norm, counted, convolution)

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for a spatial size of the input."""
        if self.size is not None:
            return self.size
        assert self.stride is not None
        sizes = check_size(input_size, self.spatial_dims)
        return tuple(max(1, int(size / stride + 1e-9)) for size, stride in zip(sizes, self.stride, strict=True))

    def extra_repr(self) -> str:
        what = f"stride={self.stride}" if self.size is None else f"output_size={self.size}"
        return f"{what}, norm={self.norm!r}"


class SpectralPool1d(SpectralPoolNd):
    """`SpectralPoolNd` for (N, C, L).

    Example:
        >>> SpectralPool1d(stride=2.5)(torch.randn(4, 8, 100)).shape
        torch.Size([4, 8, 40])
    """

    spatial_dims = 1


class SpectralPool2d(SpectralPoolNd):
    """`SpectralPoolNd` for (N, C, H, W).

    Example:
        >>> SpectralPool2d(output_size=(20, 16))(torch.randn(8, 64, 32, 32)).shape
        torch.Size([8, 64, 20, 16])
    """

    spatial_dims = 2


class SpectralPool3d(SpectralPoolNd):
    """`SpectralPoolNd` for (N, C, D, H, W).

    Example:
        >>> SpectralPool3d(stride=(1.0, 2.0, 2.0))(torch.randn(2, 8, 8, 16, 16)).shape
        torch.Size([2, 8, 8, 8, 8])
    """

    spatial_dims = 3


def check_size(input_size: Sequence[int], axes: int) -> tuple[int, ...]:
    """The spatial size as integers; raise unless there is one per axis."""
    if len(input_size) != axes:
        raise ValueError(f"input_size must have one entry per spatial axis ({axes}), got {tuple(input_size)}")
    return tuple(input_size)


def check_grid(grid: int | str) -> None:
    """Raise unless it is "free", "fixed" or a whole number of at least 1."""
    if grid not in ("free", "fixed") and not (isinstance(grid, int) and not isinstance(grid, bool) and grid >= 1):
        raise ValueError(f"grid must be 'free', 'fixed' or a whole number of at least 1, got {grid!r}")


def check_strides(strides: Sequence[float]) -> tuple[float, ...]:
    """The strides as floats; raise unless each is finite and at least 1."""
    values = tuple(float(value) for value in strides)
    for value in values:
        if not 1 <= value < math.inf:
            raise ValueError(f"stride must be a finite number of at least 1, got {value}")
    return values
