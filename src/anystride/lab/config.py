"""Everything that decides the result of one run, as plain values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

SCENES = "scenes"
"""The value of ``RunConfig.data`` that means scikit-learn's digits; anything else is a folder."""

Strides = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class RunConfig:
    """One run. Two runs with equal configurations on the same machine give the same result.

    ``strides`` holds a (vertical, horizontal) pair per shortcut block; ``lam`` weighs Eq. 6; ``stride_lr`` is the
    learning rate of the strides, None for that of the weights; ``train_size`` and ``test_size`` count scenes and are
    ignored for a folder.
    """

    method: str = "outer"
    strides: Strides = ((2.0, 2.0), (2.0, 2.0), (2.0, 2.0))
    smoothness: float = 4.0
    shared_stride: bool = False
    lam: float = 0.0
    width: int = 8
    epochs: int = 8
    batch_size: int = 32
    lr: float = 0.05
    stride_lr: float | None = None
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    seed: int = 0
    data: str = SCENES
    image_size: int = 32
    train_size: int = 4000
    test_size: int = 1000

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values: tuples become lists, so that it equals itself after a round trip."""
        return {**dataclasses.asdict(self), "strides": [list(pair) for pair in self.strides]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of `to_json`; a TypeError for names that are not known here."""
        return cls(**{**values, "strides": tuple((float(v), float(h)) for v, h in values["strides"])})

    @property
    def name(self) -> str:
        """The method, the strides and the seed, as in ``outer-3x2x3-seed0``: a folder's name."""
        stages = ["_".join(f"{value:g}" for value in dict.fromkeys(pair)) for pair in self.strides]
        return f"{self.method}-{'x'.join(stages)}-seed{self.seed}"


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """What differs between two configurations in JSON form, in words; empty when they are equal."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name)} instead of {other.get(name)}" for name in names)
