"""Branches at scales of their own: what the paper's conclusion names first among adaptive architectures."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from anystride.checks import check_choice
from anystride.functional import Ramp
from anystride.layers import DiffStride1d, DiffStride2d, DiffStride3d, DiffStrideNd
from anystride.upsample import SpectralUpsample1d, SpectralUpsample2d, SpectralUpsample3d, SpectralUpsampleNd

COMBINE = ("sum", "concatenate")


class ParallelScalesNd(nn.Module):
    """What `ParallelScales1d`, `ParallelScales2d` and `ParallelScales3d` share."""

    spatial_dims: ClassVar[int]
    _pool: ClassVar[type[DiffStrideNd]]
    _up: ClassVar[type[SpectralUpsampleNd]]

    def __init__(
        self,
        branches: Iterable[nn.Module],
        strides: Sequence[float | Sequence[float]],
        combine: Literal["sum", "concatenate"] = "sum",
        ramp: Ramp = "inner",
        **pool: Any,
    ) -> None:
        super().__init__()
        check_choice("combine", combine, COMBINE)
        self.branches = nn.ModuleList(branches)
        if len(self.branches) != len(strides) or not strides:
            raise ValueError(
                f"strides must have one entry per branch, got {len(strides)} for {len(self.branches)} branches"
            )
        pools = [self._pool(stride, ramp=ramp, **pool) for stride in strides]
        self.pools = nn.ModuleList(pools)
        self.ups = nn.ModuleList(self._up(follows=each) for each in pools)
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        """Run all branches and combine what they give."""
        found: list[Tensor] = []
        for branch, pool, up in zip(self.branches, self.pools, self.ups):  # noqa: B905 - TorchScript knows no strict
            small = pool(x)
            y = branch(small)
            before, after = list(small.shape[2:]), list(y.shape[2:])
            if before != after:
                raise ValueError(
                    f"branch {len(found)} must keep the spatial size of its map, and turns {before} into {after}"
                )
            found.append(up(y, x))
        return torch.stack(found).sum(0) if self.combine == "sum" else torch.cat(found, dim=1)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, x: Tensor) -> Tensor: ...

    def extra_repr(self) -> str:
        return f"combine={self.combine!r}"


class ParallelScales1d(ParallelScalesNd):
    """Branches that each work on (N, C, L) at a learned stride.

    Each branch is given the map at a stride of its own, and what it makes of it goes back up through the same window
    (`SpectralUpsample2d(follows=...)`) to the size that the map had. A branch at stride 2 sees twice as far with the
    same kernel, at a quarter of the multiply-accumulates in two dimensions. Each stride receives its gradient, is
    counted by `macs` and bounded by `Budget`, like that of any other layer.

    Args:
        branches: modules that keep the spatial size, one per scale; for a sum, all with as many channels.
        strides: where the stride of each branch starts, at least 1: a number, or one per spatial axis.
        combine: "sum", or "concatenate" along the channels.
        ramp: as of `DiffStride2d`.
        pool: further arguments of `DiffStride2d` and its like, for all branches.

    Shape:
        (N, C, L) to (N, C', L).

    Raises:
        ValueError: an argument is out of range, there is not one stride per branch, or a branch changes the size.

    Attributes:
        branches, pools, ups: of each branch, the module, its learned stride, and its way back up.

    Example:
        >>> scales = ParallelScales1d([nn.Conv1d(8, 8, 3, padding=1) for _ in range(2)], strides=(1.0, 4.0))
        >>> scales(torch.randn(4, 8, 100)).shape
        torch.Size([4, 8, 100])
    """

    spatial_dims = 1
    _pool, _up = DiffStride1d, SpectralUpsample1d


class ParallelScales2d(ParallelScalesNd):
    """Branches that each work on (N, C, H, W) at a learned stride.

    Each branch is given the map at a stride of its own, and what it makes of it goes back up through the same window
    (`SpectralUpsample2d(follows=...)`) to the size that the map had. A branch at stride 2 sees twice as far with the
    same kernel, at a quarter of the multiply-accumulates in two dimensions. Each stride receives its gradient, is
    counted by `macs` and bounded by `Budget`, like that of any other layer.

    Args:
        branches: modules that keep the spatial size, one per scale; for a sum, all with as many channels.
        strides: where the stride of each branch starts, at least 1: a number, or one per spatial axis.
        combine: "sum", or "concatenate" along the channels.
        ramp: as of `DiffStride2d`.
        pool: further arguments of `DiffStride2d` and its like, for all branches.

    Shape:
        (N, C, H, W) to (N, C', H, W).

    Raises:
        ValueError: an argument is out of range, there is not one stride per branch, or a branch changes the size.

    Attributes:
        branches, pools, ups: of each branch, the module, its learned stride, and its way back up.

    Example:
        >>> branches = [nn.Conv2d(16, 8, 3, padding=1) for _ in range(3)]
        >>> scales = ParallelScales2d(branches, strides=(1.0, 2.0, 4.0), combine="concatenate")
        >>> scales(torch.randn(4, 16, 32, 32)).shape
        torch.Size([4, 24, 32, 32])
    """

    spatial_dims = 2
    _pool, _up = DiffStride2d, SpectralUpsample2d


class ParallelScales3d(ParallelScalesNd):
    """Branches that each work on (N, C, D, H, W) at a learned stride.

    Each branch is given the map at a stride of its own, and what it makes of it goes back up through the same window
    (`SpectralUpsample2d(follows=...)`) to the size that the map had. A branch at stride 2 sees twice as far with the
    same kernel, at a quarter of the multiply-accumulates in two dimensions. Each stride receives its gradient, is
    counted by `macs` and bounded by `Budget`, like that of any other layer.

    Args:
        branches: modules that keep the spatial size, one per scale; for a sum, all with as many channels.
        strides: where the stride of each branch starts, at least 1: a number, or one per spatial axis.
        combine: "sum", or "concatenate" along the channels.
        ramp: as of `DiffStride2d`.
        pool: further arguments of `DiffStride2d` and its like, for all branches.

    Shape:
        (N, C, D, H, W) to (N, C', D, H, W).

    Raises:
        ValueError: an argument is out of range, there is not one stride per branch, or a branch changes the size.

    Attributes:
        branches, pools, ups: of each branch, the module, its learned stride, and its way back up.

    Example:
        >>> scales = ParallelScales3d([nn.Conv3d(4, 4, 3, padding=1) for _ in range(2)], strides=(1.5, (1.0, 2.0, 2.0)))
        >>> scales(torch.randn(2, 4, 8, 16, 16)).shape
        torch.Size([2, 4, 8, 16, 16])
    """

    spatial_dims = 3
    _pool, _up = DiffStride3d, SpectralUpsample3d
