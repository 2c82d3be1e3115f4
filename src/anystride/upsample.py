"""The way back up: maps are enlarged in the frequency domain."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from anystride.checks import check_choice, check_input, check_output_size, check_strides, per_axis, spatial_size
from anystride.compiling import FOLLOW, exporting, outside_graphs
from anystride.functional import Norm
from anystride.layers import DiffStrideNd
from anystride.ops.autograd import resample
from anystride.ops.axes import NORMS, Axis, LearnedAxis, SpectralAxis, TransposedAxis


class SpectralUpsampleNd(nn.Module):
    """What `SpectralUpsample1d`, `SpectralUpsample2d` and `SpectralUpsample3d` share."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        scale_factor: float | Sequence[float] | None = None,
        output_size: int | Sequence[int] | None = None,
        follows: DiffStrideNd | None = None,
        norm: Norm = "forward",
    ) -> None:
        super().__init__()
        check_choice("norm", norm, NORMS)
        given = {"scale_factor": scale_factor, "output_size": output_size, "follows": follows}
        named = [name for name, value in given.items() if value is not None]
        if len(named) > 1:
            raise ValueError(f"give one of scale_factor, output_size and follows, or none, got {' and '.join(named)}")
        if follows is not None and getattr(follows, "spatial_dims", None) != self.spatial_dims:
            kind = f"DiffStride{self.spatial_dims}d"
            raise ValueError(f"follows must be a {kind}, got {type(follows).__name__}")
        factors = None if scale_factor is None else per_axis("scale_factor", scale_factor, self.spatial_dims)
        self.scale_factor = None if factors is None else check_strides(factors, "scale_factor")
        sizes = None if output_size is None else per_axis("output_size", output_size, self.spatial_dims)
        self.size = None if sizes is None else tuple([check_output_size(size) for size in sizes])
        self.follows = follows
        self.norm = norm if follows is None else follows.norm

    def forward(self, x: Tensor, like: Tensor | Sequence[int] | None = None) -> Tensor:
        """Enlarge.

        Args:
            x: (N, C, *spatial).
            like: where the layer itself has no size: a map (N, C, *size) whose size is meant, or that size.

        Returns:
            (N, C, *size).
        """
        if self.follows is None or self.follows.grid == "fixed":
            return self._enlarge(x, like)
        if exporting() and not torch.compiler.is_dynamo_compiling():
            raise RuntimeError(FOLLOW)
        return outside_graphs(SpectralUpsampleNd._enlarge)(self, x, like)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, x: Tensor, like: Tensor | Sequence[int] | None = None) -> Tensor: ...

    def _enlarge(self, x: Tensor, like: Any) -> Tensor:
        check_input(x, self.spatial_dims)
        size = spatial_size(x)
        axes = self.axes(size, self.target(size, like))
        return resample(x, axes, None if self.follows is None else self.follows.stride)

    @property
    def asks(self) -> bool:
        """Whether each call must say to which size."""
        return self.scale_factor is None and self.size is None

    def target(self, size: Sequence[int], like: Tensor | Sequence[int] | None = None) -> tuple[int, ...]:
        """Spatial size of the output for a spatial size of the input; `like` as in `forward`."""
        if not self.asks:
            if like is not None:
                what = "scale_factor" if self.size is None else "output_size"
                raise ValueError(f"like must not be given to a layer that has {what}={self.scale_factor or self.size}")
            if self.size is not None:
                return self.size
            assert self.scale_factor is not None
            return tuple([int(n * factor + 1e-6) for n, factor in zip(size, self.scale_factor, strict=True)])
        if like is None:
            raise ValueError("like must be given: the map, or the spatial size, that the output is to have the size of")
        wanted = spatial_size(like) if isinstance(like, Tensor) else tuple(like)
        if len(wanted) != self.spatial_dims:
            raise ValueError(f"like must have {self.spatial_dims} spatial axes, got the spatial size {wanted}")
        return tuple([check_output_size(n) for n in wanted])

    def axes(self, size: tuple[int, ...], target: tuple[int, ...]) -> tuple[Axis, ...]:
        """What is done to axes of `size` so that they get the `target` size."""
        if any(n < m for n, m in zip(target, size, strict=True)):
            raise ValueError(
                f"the output must be at least as large as the input of size {size}, got {target}; "
                "functional.spectral_resize goes either way"
            )
        pool = self.follows
        if pool is None:
            each_axis = zip(size, target, strict=True)
            return tuple([SpectralAxis(n, wanted, self.norm) for n, wanted in each_axis])
        if torch.compiler.is_compiling():
            down = tuple([LearnedAxis.of(at, pool.norm) for at in pool.bands(target)])
        else:
            down = pool.axes(target, torch.is_grad_enabled() and pool.stride.requires_grad)
        gives = tuple([axis.output_length for axis in down])
        if gives != size:
            raise ValueError(
                f"like must be of a size that the layer to follow turns into {size}; {target} becomes {gives}"
            )
        return tuple([TransposedAxis(axis) for axis in down])

    def extra_repr(self) -> str:
        what = "" if self.scale_factor is None else f"scale_factor={self.scale_factor}, "
        return f"{what if self.size is None else f'output_size={self.size}, '}norm={self.norm!r}"


class SpectralUpsample1d(SpectralUpsampleNd):
    """Enlarges (N, C, L) by its frequencies.

    All frequencies of the map pass and those that only the larger map can hold are zero: the way back from spectral
    pooling (section 2.3), whose adjoint this is up to the gain. With odd sizes, pooling it again gives the map back;
    with an even size all of it but half of its highest frequency.

    With `follows=pool` the way back goes through the window of a learned layer, at the stride that it has now: the
    adjoint of `pool` up to the gain, and with `norm="ortho"` exactly. (With "forward" the "cosine" ramp has a gain per
    sample, so that constants stay constants.) What the window attenuates on the way down it attenuates on the way up,
    and the stride receives its gradient from both.

    Args:
        scale_factor: the output has floor(scale_factor * L) samples per axis, a number of at least 1 or one per axis.
        output_size: the output's spatial size instead, a number or one per axis.
        follows: a learned layer instead. It stays a module of its own, and a child of this one.
        norm: gain, as of `SpectralPool2d`; with `follows`, that of the layer.

    Where no size is given, each call needs one: `up(x, skip)` enlarges to the size of the map `skip`.

    Shape:
        (N, C, L) to (N, C, *size).

    Raises:
        ValueError: more than one of `scale_factor`, `output_size` and `follows` is given, an argument is out of range,
            the call does not say to which size, or says another one than `follows` comes from.
        TypeError: the input is not floating point.

    Example:
        >>> SpectralUpsample1d(scale_factor=2.5)(torch.randn(4, 8, 40)).shape
        torch.Size([4, 8, 100])
    """

    spatial_dims = 1


class SpectralUpsample2d(SpectralUpsampleNd):
    """Enlarges (N, C, H, W) by its frequencies.

    All frequencies of the map pass and those that only the larger map can hold are zero: the way back from spectral
    pooling (section 2.3), whose adjoint this is up to the gain. With odd sizes, pooling it again gives the map back;
    with an even size all of it but half of its highest frequency.

    With `follows=pool` the way back goes through the window of a learned layer, at the stride that it has now: the
    adjoint of `pool` up to the gain, and with `norm="ortho"` exactly. (With "forward" the "cosine" ramp has a gain per
    sample, so that constants stay constants.) What the window attenuates on the way down it attenuates on the way up,
    and the stride receives its gradient from both.

    Args:
        scale_factor: the output has floor(scale_factor * L) samples per axis, a number of at least 1 or one per axis.
        output_size: the output's spatial size instead, a number or one per axis.
        follows: a learned layer instead. It stays a module of its own, and a child of this one.
        norm: gain, as of `SpectralPool2d`; with `follows`, that of the layer.

    Where no size is given, each call needs one: `up(x, skip)` enlarges to the size of the map `skip`.

    Shape:
        (N, C, H, W) to (N, C, *size).

    Raises:
        ValueError: more than one of `scale_factor`, `output_size` and `follows` is given, an argument is out of range,
            the call does not say to which size, or says another one than `follows` comes from.
        TypeError: the input is not floating point.

    Example:
        >>> from anystride import DiffStride2d
        >>> pool = DiffStride2d(stride=(2.0, 3.0), ramp="inner")
        >>> up = SpectralUpsample2d(follows=pool)
        >>> skip = torch.randn(8, 64, 32, 32)
        >>> up(pool(skip), skip).shape
        torch.Size([8, 64, 32, 32])
    """

    spatial_dims = 2


class SpectralUpsample3d(SpectralUpsampleNd):
    """Enlarges (N, C, D, H, W) by its frequencies.

    All frequencies of the map pass and those that only the larger map can hold are zero: the way back from spectral
    pooling (section 2.3), whose adjoint this is up to the gain. With odd sizes, pooling it again gives the map back;
    with an even size all of it but half of its highest frequency.

    With `follows=pool` the way back goes through the window of a learned layer, at the stride that it has now: the
    adjoint of `pool` up to the gain, and with `norm="ortho"` exactly. (With "forward" the "cosine" ramp has a gain per
    sample, so that constants stay constants.) What the window attenuates on the way down it attenuates on the way up,
    and the stride receives its gradient from both.

    Args:
        scale_factor: the output has floor(scale_factor * L) samples per axis, a number of at least 1 or one per axis.
        output_size: the output's spatial size instead, a number or one per axis.
        follows: a learned layer instead. It stays a module of its own, and a child of this one.
        norm: gain, as of `SpectralPool2d`; with `follows`, that of the layer.

    Where no size is given, each call needs one: `up(x, skip)` enlarges to the size of the map `skip`.

    Shape:
        (N, C, D, H, W) to (N, C, *size).

    Raises:
        ValueError: more than one of `scale_factor`, `output_size` and `follows` is given, an argument is out of range,
            the call does not say to which size, or says another one than `follows` comes from.
        TypeError: the input is not floating point.

    Example:
        >>> SpectralUpsample3d(scale_factor=(1.0, 2.0, 2.0))(torch.randn(2, 8, 8, 16, 16)).shape
        torch.Size([2, 8, 8, 32, 32])
    """

    spatial_dims = 3
