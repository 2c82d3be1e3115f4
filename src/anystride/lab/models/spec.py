"""What a network is to be: the one argument of all builders. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NetworkSpec:
    """The choices that all networks of the lab have in common.

    Args:
        heads: the number of classes, or one number per task.
        in_channels: channels of the input.
        width: channels of the first stage, or what a network documents instead; the paper's is 64.
        method: the downsampler, a name of `downsample.DOWNSAMPLERS`. It is the only difference between two networks
            of one kind: their convolutions have the same names and shapes, and the same initial values under the same
            seed.
        strides: one entry per downsampler, a number or a (vertical, horizontal) pair, for sound (time, frequency), for
            series a number or twice the same; None means the usual strides of the network.
        smoothness: R of Eq. 3, in frequency bins; for methods that learn.
        shared: whether both axes share one stride; for methods that learn.
        grid: how map sizes follow learned strides, as in `anystride.DiffStride2d`.
        norm: the gain of methods that work on frequencies, as in `anystride.DiffStride2d`. A builder sets it.
    """

    heads: int | Sequence[int]
    in_channels: int = 3
    width: int = 64
    method: str = "outer"
    strides: Sequence[float | Sequence[float]] | None = None
    smoothness: float = 4.0
    shared: bool = False
    grid: int | str = "free"
    norm: Literal["forward", "ortho", "backward"] = "forward"
