"""What `freeze_` puts in the place of `SpectralUpsample2d` and its like."""

from typing import Any

import torch
from torch import Tensor

from anystride.checks import spatial_size
from anystride.constants import key_of, refusal
from anystride.frozen import Constants


class FrozenUpsample(Constants):
    """A frozen `SpectralUpsample2d` and its like.

    Args:
        asks: whether each call says to which size.
        name, constants, dtype, device: as of `Frozen`; the sizes that maps get are the lengths of the keys.

    Shape:
        (N, C, *spatial) to (N, C, *size), for the sizes that it was made for.

    Raises:
        ValueError: the map has another size, or is to get another one.
    """

    def __init__(self, asks: bool, *about: Any) -> None:
        super().__init__(*about)
        self.asks = asks

    def forward(self, x: Tensor, like: Tensor | list[int] | None = None) -> Tensor:
        """Enlarge, to the size of `like` where the layer asked for it."""
        axes = x.dim() - 2
        wanted: list[int] | None = None
        if isinstance(like, Tensor):
            wanted = list(like.shape[like.dim() - axes :])
        elif like is not None:
            wanted = list(like)
        elif not self.asks:
            for known, lengths in zip(self._sizes, self._lengths):  # noqa: B905 - TorchScript knows no strict
                if known == list(x.shape[2:]):
                    wanted = lengths
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._scripted(x, wanted)
        return self._resampled(x, wanted)

    @torch.jit.unused
    def _resampled(self, x: Tensor, wanted: Any) -> Tensor:
        key = key_of(spatial_size(x), wanted, None)
        if key not in self.outputs:
            raise ValueError(refusal(self.name, key, self.outputs))
        y = self._run(x, self.before, key)
        return y.clone() if y is x else y
