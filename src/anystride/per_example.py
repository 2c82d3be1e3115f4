"""A stride for each example, predicted from the example: what the paper's conclusion names last as future work."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from anystride.checks import check_input, check_smoothness, check_strides, spatial_size
from anystride.ops.costs import is_long
from anystride.ops.tables import make_tables, tables

ROUNDING = 1e-6
"""Sizes forgive strides, which are float32, that much, relatively."""


class PerExampleStrideNd(nn.Module):
    """What `PerExampleStride1d`, `PerExampleStride2d` and `PerExampleStride3d` share."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        head: nn.Module,
        least: float = 1.0,
        most: float = 4.0,
        smoothness: float = 2.0,
        body: nn.Module | None = None,
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.least, self.most = check_strides((least, most), "least and most")
        if not self.least < self.most:
            raise ValueError(f"most must be above least, got least={least} and most={most}")
        check_smoothness((smoothness,))
        if not isinstance(multiple, int) or isinstance(multiple, bool) or multiple < 1:
            raise ValueError(f"multiple must be a whole number of at least 1, got {multiple!r}")
        self.head, self.body = head, body
        self.smoothness, self.multiple = float(smoothness), multiple

    def strides(self, x: Tensor) -> Tensor:
        """The stride of each example, (N, 1) or (N, axes), float32, from the head."""
        check_input(x, self.spatial_dims)
        found: Tensor = self.head(x)
        if found.shape not in ((len(x), 1), (len(x), self.spatial_dims)):
            wanted = f"({len(x)}, 1)" if self.spatial_dims == 1 else f"({len(x)}, 1) or ({len(x)}, {self.spatial_dims})"
            raise ValueError(f"head must give a tensor of shape {wanted}, got {tuple(found.shape)}")
        return self.least * (self.most / self.least) ** found.float().sigmoid()

    def share(self, strides: Tensor) -> Tensor:
        """The share of the map's positions that is left, on average: a differentiable scalar in (0, 1].

        The work of a convolutional network is proportional to it, so that `Budget(limit=0.3)(layer.share(strides))`
        holds the mean costs of a batch, and each example may take what it needs.

        Args:
            strides: of `strides`.
        """
        return strides.reciprocal().expand(-1, self.spatial_dims).prod(dim=1).mean()

    def sizes(self, strides: Tensor, input_size: Sequence[int]) -> Tensor:
        """The own grid of each example, (N, axes), int64, for strides of `strides` and a spatial size of the input."""
        length = torch.tensor(tuple(input_size), device=strides.device)
        kept = (length / strides.detach().expand(-1, self.spatial_dims) * (1 - ROUNDING)).ceil().long()
        up = -(-kept // self.multiple) * self.multiple
        return torch.minimum(up.clamp_min(1), length)

    def forward(self, x: Tensor, strides: Tensor | None = None) -> Tensor:
        """Downsample, and run the body if there is one.

        Args:
            x: (N, C, *spatial).
            strides: of `strides`, where the caller needs them as well; None to ask the head.
        """
        if strides is None:
            strides = self.strides(x)
        check_input(x, self.spatial_dims)
        strides = strides.expand(len(x), self.spatial_dims)
        size = spatial_size(x)
        if self.body is None:
            return self._downsample(x, strides, [-int(-n * (1 - ROUNDING) // self.least) for n in size])
        own = self.sizes(strides, size)
        if not bool(torch.isfinite(strides).all()):
            raise ValueError("head must give finite numbers, got NaN or infinity")
        found, order = [], []
        for each in own.unique(dim=0):
            chosen = (own == each).all(dim=1).nonzero().flatten()
            order.append(chosen)
            found.append(self.body(self._downsample(x[chosen], strides[chosen], each.tolist())))
        back = torch.cat(order).argsort() if order else torch.empty(0, dtype=torch.long)
        result: Tensor = torch.cat(found)[back] if found else self.body(x)
        return result

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, x: Tensor, strides: Tensor | None = None) -> Tensor: ...

    def _downsample(self, x: Tensor, strides: Tensor, sizes: Sequence[int]) -> Tensor:
        """Each example at its own stride, on one grid of so many samples per axis."""
        for axis, h in enumerate(sizes):
            length = x.shape[2 + axis]
            along = _long if is_long(h, x.device) else _dense
            x = along(x, 2 + axis, h, length / (2 * strides[:, axis : axis + 1]), self.smoothness)
        return x

    def extra_repr(self) -> str:
        multiple = "" if self.multiple == 1 else f", multiple={self.multiple}"
        return f"least={self.least}, most={self.most}, smoothness={self.smoothness}{multiple}"


def _gains(frequency: Tensor, edge: Tensor, smoothness: float) -> Tensor:
    """Eq. 3 at frequency indices (k,), with a ramp that ends at each example's edge (N, 1): (N, k)."""
    return ((edge - frequency) / (edge * (2 / 3)).clamp_max(smoothness)).clamp(0, 1)


def _dense(x: Tensor, axis: int, h: int, edge: Tensor, smoothness: float) -> Tensor:
    """One axis by a matrix per example."""
    length = x.shape[axis]
    table = (
        make_tables(length, h, x.device) if torch.compiler.is_compiling() else tables(length, h, str(x.device))
    ).float()
    gains = _gains(table[:, -2], edge, smoothness)
    matrix = (table[:, :h] @ (table[:, h:-2] * gains.unsqueeze(2))).to(x.dtype)
    lines = x.movedim(axis, -1)
    y = torch.bmm(lines.reshape(len(x), -1, length), matrix.transpose(1, 2))
    return y.reshape(*lines.shape[:-1], h).movedim(-1, axis)


def _long(x: Tensor, axis: int, h: int, edge: Tensor, smoothness: float) -> Tensor:
    """One axis by real Fourier transforms."""
    length, bins = x.shape[axis], h // 2 + 1
    gains = _gains(torch.arange(bins, device=x.device), edge, smoothness)
    gains = gains.reshape(len(x), *[bins if d == axis else 1 for d in range(1, x.dim())])
    spectrum = torch.fft.rfft(x.float() / length, dim=axis).narrow(axis, 0, bins)
    y: Tensor = torch.fft.irfft(spectrum * gains, n=h, dim=axis, norm="forward")
    return y.to(x.dtype)


class PerExampleStride1d(PerExampleStrideNd):
    """Downsampling of (N, C, L) whose stride follows from the example.

    A small network, the head, looks at the map and gives one number per example, or one per spatial axis, which a
    sigmoid brings between `least` and `most`, in equal ratios. The window of Eq. 3, with its ramp within the band
    (`ramp="inner"`), then stands at each example's own stride, on one common grid: that of the stride `least`. So a
    batch stays a batch, sizes stand still, and the network compiles to one static graph. The head receives its gradient
    through the ramp.

    An example's spectrum ends where its window does, so that its map also fits, without loss, on a grid of its own of
    ceil(L / S) samples. There is the saving: `body`, the network that comes next, runs on small maps where an example
    allows it, and on large ones where it needs them. Examples of one size run together, and what comes out has their
    order. What a body makes of an example does not depend on the others of its batch, but in training mode by batch
    normalisation, whose statistics are then those of the examples of one size.

    Args:
        head: a module that turns (N, C, L) into (N, 1) or (N, axes), any real numbers.
        least, most: the range of strides, 1 <= least < most.
        smoothness: R, width of the window's ramp in bins; at most a third of L / S counts.
        body: what runs on each example's own grid: a module that turns (n, C, *size) of any size into tensors of one
            shape but for the first dimension, such as a network that ends in global pooling. None for maps on the
            common grid.
        multiple: own grids are rounded up to a multiple of this, so that fewer sizes occur.

    Shape:
        (N, C, L) to (N, C, *grid), with ceil(L / least) samples per axis; or to what `body` gives.

    Raises:
        ValueError: an argument is out of range, the head gives another shape or no finite numbers, or the input has
            another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> head = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 1))
        >>> PerExampleStride1d(head, least=2.0, most=8.0)(torch.randn(4, 8, 100)).shape
        torch.Size([4, 8, 50])
    """

    spatial_dims = 1


class PerExampleStride2d(PerExampleStrideNd):
    """Downsampling of (N, C, H, W) whose stride follows from the example.

    A small network, the head, looks at the map and gives one number per example, or one per spatial axis, which a
    sigmoid brings between `least` and `most`, in equal ratios. The window of Eq. 3, with its ramp within the band
    (`ramp="inner"`), then stands at each example's own stride, on one common grid: that of the stride `least`. So a
    batch stays a batch, sizes stand still, and the network compiles to one static graph. The head receives its gradient
    through the ramp.

    An example's spectrum ends where its window does, so that its map also fits, without loss, on a grid of its own of
    ceil(L / S) samples. There is the saving: `body`, the network that comes next, runs on small maps where an example
    allows it, and on large ones where it needs them. Examples of one size run together, and what comes out has their
    order. What a body makes of an example does not depend on the others of its batch, but in training mode by batch
    normalisation, whose statistics are then those of the examples of one size.

    Args:
        head: a module that turns (N, C, H, W) into (N, 1) or (N, axes), any real numbers.
        least, most: the range of strides, 1 <= least < most.
        smoothness: R, width of the window's ramp in bins; at most a third of L / S counts.
        body: what runs on each example's own grid: a module that turns (n, C, *size) of any size into tensors of one
            shape but for the first dimension, such as a network that ends in global pooling. None for maps on the
            common grid.
        multiple: own grids are rounded up to a multiple of this, so that fewer sizes occur.

    Shape:
        (N, C, H, W) to (N, C, *grid), with ceil(L / least) samples per axis; or to what `body` gives.

    Raises:
        ValueError: an argument is out of range, the head gives another shape or no finite numbers, or the input has
            another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
        >>> body = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> layer = PerExampleStride2d(head, most=3.0, body=body)
        >>> x = torch.randn(4, 16, 32, 32)
        >>> strides = layer.strides(x)
        >>> layer(x, strides).shape, strides.shape, layer.sizes(strides, (32, 32)).shape
        (torch.Size([4, 8]), torch.Size([4, 2]), torch.Size([4, 2]))
    """

    spatial_dims = 2


class PerExampleStride3d(PerExampleStrideNd):
    """Downsampling of (N, C, D, H, W) whose stride follows from the example.

    A small network, the head, looks at the map and gives one number per example, or one per spatial axis, which a
    sigmoid brings between `least` and `most`, in equal ratios. The window of Eq. 3, with its ramp within the band
    (`ramp="inner"`), then stands at each example's own stride, on one common grid: that of the stride `least`. So a
    batch stays a batch, sizes stand still, and the network compiles to one static graph. The head receives its gradient
    through the ramp.

    An example's spectrum ends where its window does, so that its map also fits, without loss, on a grid of its own of
    ceil(L / S) samples. There is the saving: `body`, the network that comes next, runs on small maps where an example
    allows it, and on large ones where it needs them. Examples of one size run together, and what comes out has their
    order. What a body makes of an example does not depend on the others of its batch, but in training mode by batch
    normalisation, whose statistics are then those of the examples of one size.

    Args:
        head: a module that turns (N, C, D, H, W) into (N, 1) or (N, axes), any real numbers.
        least, most: the range of strides, 1 <= least < most.
        smoothness: R, width of the window's ramp in bins; at most a third of L / S counts.
        body: what runs on each example's own grid: a module that turns (n, C, *size) of any size into tensors of one
            shape but for the first dimension, such as a network that ends in global pooling. None for maps on the
            common grid.
        multiple: own grids are rounded up to a multiple of this, so that fewer sizes occur.

    Shape:
        (N, C, D, H, W) to (N, C, *grid), with ceil(L / least) samples per axis; or to what `body` gives.

    Raises:
        ValueError: an argument is out of range, the head gives another shape or no finite numbers, or the input has
            another number of axes.
        TypeError: the input is not floating point.

    Example:
        >>> head = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 1))
        >>> PerExampleStride3d(head, least=2.0)(torch.randn(2, 4, 8, 16, 16)).shape
        torch.Size([2, 4, 4, 8, 8])
    """

    spatial_dims = 3
