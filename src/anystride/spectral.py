"""Spectral pooling as modules."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from anystride.checks import check_choice, check_input, check_output_size, check_size, check_strides, per_axis
from anystride.convolution import counted_size, take_in
from anystride.functional import Norm
from anystride.ops.autograd import resample
from anystride.ops.axes import NORMS, SpectralAxis


class SpectralPoolNd(nn.Module):
    """What `SpectralPool1d`, `SpectralPool2d` and `SpectralPool3d` share."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        stride: float | Sequence[float] | None = None,
        output_size: int | Sequence[int] | None = None,
        norm: Norm = "forward",
    ) -> None:
        super().__init__()
        check_choice("norm", norm, NORMS)
        if (stride is None) == (output_size is None):
            raise ValueError(f"give either stride or output_size, got stride={stride} and output_size={output_size}")
        self.stride = None if stride is None else check_strides(per_axis("stride", stride, self.spatial_dims))
        sizes = None if output_size is None else per_axis("output_size", output_size, self.spatial_dims)
        self.size = None if sizes is None else tuple([check_output_size(size) for size in sizes])
        self.norm = norm

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None, convolution: Any = None) -> Tensor:
        """Downsample; `lengths` and `convolution` as in `DiffStride2d.forward`."""
        check_input(x, self.spatial_dims)
        kernel = None
        if convolution is not None:
            x, kernel = take_in(x, convolution, self.keeps_constants)
        counted = counted_size(x, kernel, lengths)
        axes = self.axes(counted)
        if kernel is None:
            return resample(x, axes)
        return resample(x, axes, None, kernel, convolution.weight, convolution.bias)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(
            self, x: Tensor, lengths: Sequence[int] | None = None, convolution: nn.Module | None = None
        ) -> Tensor: ...

    @property
    def keeps_constants(self) -> bool:
        """Whether a constant map stays that constant."""
        return self.norm == "forward"

    def axes(self, lengths: Sequence[int]) -> tuple[SpectralAxis, ...]:
        """What is done to axes of so many samples."""
        each_axis = zip(self.output_size(lengths), lengths, strict=True)
        return tuple([SpectralAxis(length, check_output_size(size, length), self.norm) for size, length in each_axis])

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
    """Spectral pooling (section 2.3) of (N, C, L) at a fixed stride.

    Args:
        stride: S >= 1, fixed, a number or one per spatial axis; the output has max(1, floor(L / S)) samples.
        output_size: the output's spatial size instead, a number or one per spatial axis.
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" leaves transforms unscaled.

    Shape:
        (N, C, L) to (N, C, *output_size((L,))).

    Raises:
        ValueError: not exactly one of `stride` and `output_size` is given, an argument is out of range, or the input
            has another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> SpectralPool1d(stride=2.5)(torch.randn(4, 8, 100)).shape
        torch.Size([4, 8, 40])
    """

    spatial_dims = 1


class SpectralPool2d(SpectralPoolNd):
    """Spectral pooling (section 2.3) of (N, C, H, W) at a fixed stride.

    Args:
        stride: S >= 1, fixed, a number or one per spatial axis; the output has max(1, floor(L / S)) samples.
        output_size: the output's spatial size instead, a number or one per spatial axis.
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" leaves transforms unscaled.

    Shape:
        (N, C, H, W) to (N, C, *output_size((H, W))).

    Raises:
        ValueError: not exactly one of `stride` and `output_size` is given, an argument is out of range, or the input
            has another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> SpectralPool2d(output_size=(20, 16))(torch.randn(8, 64, 32, 32)).shape
        torch.Size([8, 64, 20, 16])
    """

    spatial_dims = 2


class SpectralPool3d(SpectralPoolNd):
    """Spectral pooling (section 2.3) of (N, C, D, H, W) at a fixed stride.

    Args:
        stride: S >= 1, fixed, a number or one per spatial axis; the output has max(1, floor(L / S)) samples.
        output_size: the output's spatial size instead, a number or one per spatial axis.
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" leaves transforms unscaled.

    Shape:
        (N, C, D, H, W) to (N, C, *output_size((D, H, W))).

    Raises:
        ValueError: not exactly one of `stride` and `output_size` is given, an argument is out of range, or the input
            has another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> SpectralPool3d(stride=(1.0, 2.0, 2.0))(torch.randn(2, 8, 8, 16, 16)).shape
        torch.Size([2, 8, 8, 8, 8])
    """

    spatial_dims = 3
