"""DiffStride as modules: they hold parameters and run the operator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from anystride.checks import (
    check_choice,
    check_grid,
    check_input,
    check_size,
    check_smoothness,
    check_strides,
    cosine_ramp,
    per_axis,
)
from anystride.compiling import FOLLOW, exporting, outside_graphs
from anystride.convolution import counted_size, take_in
from anystride.functional import Norm, PaddingMode, Ramp
from anystride.ops.autograd import resample
from anystride.ops.axes import NORMS, Axis, LearnedAxis
from anystride.ops.cosine import ROLLOFF, TOLERANCE, Cosine, CosineBand
from anystride.ops.tables import tables
from anystride.ops.window import Band, band
from anystride.stride import HasStride, learned_axes

Grid = int | Literal["free", "fixed"]


class DiffStrideNd(HasStride):
    """What `DiffStride1d`, `DiffStride2d` and `DiffStride3d` share."""

    def __init__(
        self,
        stride: float | Sequence[float] = 2.0,
        smoothness: float | Sequence[float] = 4.0,
        shared: bool = False,
        ramp: Ramp = "outer",
        norm: Norm = "forward",
        grid: Grid = "free",
        device: torch.device | str | None = None,
        *,
        rolloff: float = ROLLOFF,
        tolerance: float = TOLERANCE,
        padding_mode: PaddingMode | None = None,
    ) -> None:
        kind = cosine_ramp(ramp, rolloff, tolerance, padding_mode)
        check_choice("norm", norm, NORMS)
        start = check_strides(per_axis("stride", stride, self.spatial_dims))
        if shared and len(set(start)) > 1:
            raise ValueError(f"stride must be a single value when shared=True, got {start}")
        super().__init__(start[:1] if shared else start, device)
        self.smoothness = per_axis("smoothness", smoothness, self.spatial_dims)
        check_smoothness(self.smoothness)
        self.shared, self.ramp, self.norm, self.grid = shared, ramp, norm, grid
        # The ramp as `ops` takes it, with what only a cosine has.
        self.kind = kind
        # Output sizes that stay, by the lengths of the input.
        self._held: dict[tuple[int, ...], tuple[int, ...]] = {}

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None, convolution: nn.Module | None = None) -> Tensor:
        """Downsample.

        Args:
            x: (N, C, *spatial).
            lengths: one per axis, to count an axis as longer (its last sample repeats) or shorter.
            convolution: a module to run before: the result is `self(convolution(x))`. One of torch's convolutions at
                stride 1 and the operator run in the order that costs least; one with hooks runs by itself first.

        Returns:
            (N, C, *output_size), with the channels of the convolution where there is one.
        """
        if self._grid == "fixed":
            return self._downsample(x, lengths, convolution)
        if exporting() and not torch.compiler.is_dynamo_compiling():  # a compiler answers both with yes
            raise RuntimeError(FOLLOW)
        return outside_graphs(DiffStrideNd._downsample)(self, x, lengths, convolution)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(
            self, x: Tensor, lengths: Sequence[int] | None = None, convolution: nn.Module | None = None
        ) -> Tensor: ...

    def _downsample(self, x: Tensor, lengths: Sequence[int] | None, convolution: Any) -> Tensor:
        check_input(x, self.spatial_dims)
        kernel = None
        if convolution is not None:
            x, kernel = take_in(x, convolution, self.keeps_constants)
        counted = counted_size(x, kernel, lengths)
        if torch.compiler.is_compiling():
            axes: tuple[Axis, ...] = tuple([LearnedAxis.of(at, self.norm) for at in self.bands(counted)])
        else:
            self._watch(counted)
            axes = self.axes(counted, torch.is_grad_enabled() and self.stride.requires_grad)
        if kernel is None:
            return resample(x, axes, self.stride)
        return resample(x, axes, self.stride, kernel, convolution.weight, convolution.bias)

    def bands(self, lengths: Sequence[int]) -> list[Band | CosineBand]:
        """What each axis of so many samples keeps at the current stride, on the grid that it has or now gets."""
        at = tuple(lengths)
        if torch.compiler.is_compiling():
            held = self._held.get(at)
            if self._grid != "fixed":
                raise RuntimeError(FOLLOW)
            if held is None:
                raise RuntimeError(
                    f"maps of size {at} are new to a fixed grid: call anystride.regrid_(model, example), then compile "
                    "or export"
                )
            parts: Any = self.stride.detach().double().expand(self.spatial_dims).unbind()
            static = zip(at, parts, self.smoothness, held, strict=True)
            return [band(length, stride, width, self.kind, h) for length, stride, width, h in static]
        return [axis.band for axis in self.axes(at)]

    def axes(self, lengths: tuple[int, ...], learns: bool = False) -> tuple[LearnedAxis, ...]:
        """What is done to axes of so many samples at the current stride."""
        at = lengths, self.stride_values(), self.smoothness, self.kind, self.norm, learns
        if self._grid == "free":
            return learned_axes(*at)
        sizes = tuple([axis.output_length for axis in learned_axes(*at)])
        if self._grid == "fixed":
            sizes = self._held.setdefault(lengths, sizes)
        else:
            n = int(self._grid)
            sizes = tuple([min(length, -(-h // n) * n) for length, h in zip(lengths, sizes, strict=True)])
        return learned_axes(*at, sizes)

    @property
    def grid(self) -> Grid:
        """How output sizes follow the stride: "free", a whole number, or "fixed"."""
        return self._grid

    @grid.setter
    def grid(self, grid: Grid) -> None:
        check_grid(grid)
        self._grid = grid
        if grid == "fixed":  # to a compiler, tables are constants; importing it takes a second
            torch.compiler.assume_constant_result(tables)

    @property
    def keeps_constants(self) -> bool:
        """Whether a constant map stays that constant, at its border as well."""
        return self.norm == "forward" and not (isinstance(self.kind, Cosine) and self.kind.border == "zeros")

    def regrid(self) -> None:
        """With `grid="fixed"`: give up the sizes that were held. The next call takes those of its stride."""
        self._held.clear()

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for a spatial size of the input, at the current stride."""
        return tuple([at.output_length for at in self.bands(check_size(input_size, self.spatial_dims))])

    def extra_repr(self) -> str:
        values = self.stride_values()
        stride, smoothness = (v[0] if len(set(v)) == 1 else v for v in (values, self.smoothness))
        grid = "" if self.grid == "free" else f", grid={self.grid!r}"
        kind = f"shared={self.shared}, ramp={self.ramp!r}, norm={self.norm!r}{grid}"
        if isinstance(self.kind, Cosine):
            width = f"rolloff={self.kind.rolloff}, tolerance={self.kind.tolerance}, padding_mode={self.kind.border!r}"
        else:
            width = f"smoothness={smoothness}"
        return f"stride={stride}, {width}, {kind}"


class DiffStride1d(DiffStrideNd):
    """Downsampling of (N, C, L) whose stride is a parameter (Algorithm 1).

    The parameter is float32 whatever the model's dtype. Any optimiser may step it anywhere: its value in use stays
    between 1 and what the map can take, and no call after the step is needed. Give optimisers
    `anystride.param_groups(model, ...)`, so that it does not decay.

    Args:
        stride: initial stride, at least 1, a number or one per spatial axis.
        smoothness: R, width of the window's ramp in frequency bins (the paper: 4), one value or one per axis.
        shared: learn a single stride for all axes.
        ramp: "outer" (the paper), "inner" (the shapes of a strided convolution), or "cosine" (the same shapes by a
            short filter, which costs little in any runtime; `smoothness` does not count).
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" is the authors' release.
        grid: how output sizes follow the stride. "free": at once. A whole number n: rounded up to a multiple of n (at
            most to L), so that fewer sizes occur. "fixed": the size that the stride gives at the first call stays,
            for each input size, until `anystride.regrid_`, and the layer can be compiled with its network.
        rolloff: for "cosine", b in (0, 1]: the window falls from 1 at (1 - b) L / (2 S) to 0 at (1 + b) L / (2 S).
        tolerance: for "cosine", the share of its kernel that is cut off, from 1e-4 to 0.2, as a root of energy.
        padding_mode: for "cosine", what lies beyond the border: one of torch's words, or "auto" (the default): with a
            `convolution`, its map goes on where its input is zero, as under a stride, and any other map is replicated.
        device: where the parameter is created.

    Attributes:
        stride: the parameter, of shape (1,); input samples per output sample.

    Shape:
        (N, C, L) to (N, C, *output_size((L,))). An axis of length 1 passes.

    Raises:
        ValueError: an argument is out of range, the stride has become NaN, or the input has another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> DiffStride1d(stride=2.5)(torch.randn(4, 8, 100)).shape
        torch.Size([4, 8, 48])
    """

    spatial_dims = 1


class DiffStride2d(DiffStrideNd):
    """Downsampling of (N, C, H, W) whose stride is a parameter (Algorithm 1).

    The parameter is float32 whatever the model's dtype. Any optimiser may step it anywhere: its value in use stays
    between 1 and what the map can take, and no call after the step is needed. Give optimisers
    `anystride.param_groups(model, ...)`, so that it does not decay.

    Args:
        stride: initial stride, at least 1, a number or one per spatial axis.
        smoothness: R, width of the window's ramp in frequency bins (the paper: 4), one value or one per axis.
        shared: learn a single stride for all axes.
        ramp: "outer" (the paper), "inner" (the shapes of a strided convolution), or "cosine" (the same shapes by a
            short filter, which costs little in any runtime; `smoothness` does not count).
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" is the authors' release.
        grid: how output sizes follow the stride. "free": at once. A whole number n: rounded up to a multiple of n (at
            most to L), so that fewer sizes occur. "fixed": the size that the stride gives at the first call stays,
            for each input size, until `anystride.regrid_`, and the layer can be compiled with its network.
        rolloff: for "cosine", b in (0, 1]: the window falls from 1 at (1 - b) L / (2 S) to 0 at (1 + b) L / (2 S).
        tolerance: for "cosine", the share of its kernel that is cut off, from 1e-4 to 0.2, as a root of energy.
        padding_mode: for "cosine", what lies beyond the border: one of torch's words, or "auto" (the default): with a
            `convolution`, its map goes on where its input is zero, as under a stride, and any other map is replicated.
        device: where the parameter is created.

    Attributes:
        stride: the parameter, of shape (2,), or (1,) where `shared`; input samples per output sample.

    Shape:
        (N, C, H, W) to (N, C, *output_size((H, W))). An axis of length 1 passes.

    Raises:
        ValueError: an argument is out of range, the stride has become NaN, or the input has another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> pool = DiffStride2d(stride=2.0)
        >>> pool(torch.randn(8, 64, 32, 32)).shape
        torch.Size([8, 64, 24, 24])
        >>> DiffStride2d(stride=(2.0, 3.0), ramp="inner")(torch.randn(8, 64, 32, 32)).shape
        torch.Size([8, 64, 16, 11])
    """

    spatial_dims = 2


class DiffStride3d(DiffStrideNd):
    """Downsampling of (N, C, D, H, W) whose stride is a parameter (Algorithm 1).

    The parameter is float32 whatever the model's dtype. Any optimiser may step it anywhere: its value in use stays
    between 1 and what the map can take, and no call after the step is needed. Give optimisers
    `anystride.param_groups(model, ...)`, so that it does not decay.

    Args:
        stride: initial stride, at least 1, a number or one per spatial axis.
        smoothness: R, width of the window's ramp in frequency bins (the paper: 4), one value or one per axis.
        shared: learn a single stride for all axes.
        ramp: "outer" (the paper), "inner" (the shapes of a strided convolution), or "cosine" (the same shapes by a
            short filter, which costs little in any runtime; `smoothness` does not count).
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" is the authors' release.
        grid: how output sizes follow the stride. "free": at once. A whole number n: rounded up to a multiple of n (at
            most to L), so that fewer sizes occur. "fixed": the size that the stride gives at the first call stays,
            for each input size, until `anystride.regrid_`, and the layer can be compiled with its network.
        rolloff: for "cosine", b in (0, 1]: the window falls from 1 at (1 - b) L / (2 S) to 0 at (1 + b) L / (2 S).
        tolerance: for "cosine", the share of its kernel that is cut off, from 1e-4 to 0.2, as a root of energy.
        padding_mode: for "cosine", what lies beyond the border: one of torch's words, or "auto" (the default): with a
            `convolution`, its map goes on where its input is zero, as under a stride, and any other map is replicated.
        device: where the parameter is created.

    Attributes:
        stride: the parameter, of shape (3,), or (1,) where `shared`; input samples per output sample.

    Shape:
        (N, C, D, H, W) to (N, C, *output_size((D, H, W))). An axis of length 1 passes.

    Raises:
        ValueError: an argument is out of range, the stride has become NaN, or the input has another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> DiffStride3d(stride=2.0, ramp="inner", shared=True)(torch.randn(2, 8, 8, 16, 16)).shape
        torch.Size([2, 8, 4, 8, 8])
    """

    spatial_dims = 3
