"""Everything that decides the result of one run, as plain values."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anystride.lab.models.spec import NetworkSpec

SCENES = "scenes"
"""The value of `RunConfig.data` that means scikit-learn's digits."""

LONGEST = 60
"""Characters of a data folder's name that the name of a run repeats."""

STRIDED = "strided:"
"""What stands before strides in a limit of multiply-accumulates."""

Strides = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class RunConfig:
    """One run. Two runs with equal configurations on the same machine give the same result.

    Args:
        model: a network of `models.registry`.
        method: a downsampler of `models.downsample`.
        strides: a pair per downsampler, (vertical, horizontal), for sound (time, frequency).
        smoothness: R of Eq. 3, in frequency bins.
        shared_stride: whether both axes share one stride.
        lam: weight of the complexity term, Eq. 6.
        lam_over: what has a term there, as in `anystride.complexity`: "strides" or "convolutions".
        width: channels of the first stage.
        epochs: how often the data are passed, or how often `epoch_steps` steps are taken.
        epoch_steps: optimiser steps that count as one epoch; 0 for one pass over the training data.
        batch_size: examples of one optimiser step, over all devices and all `accumulate` parts.
        optimizer: "sgd", with a momentum of 0.9, or "adam".
        lr: the peak learning rate.
        stride_lr: the learning rate of the strides; None for that of the weights.
        stride_until: share of the epochs after which strides stay as they are, and only weights learn; 0 for strides
            that never learn. With a budget strides are then moved to just below it again.
        weight_decay: of the weights; strides have none.
        decay: "all" for weights, norms and biases, or "weights" alone, as in the authors' release.
        schedule: how the learning rate follows the training, see `optimiser.SCHEDULES`.
        mixup: alpha of Mixup's Beta distribution; 0 for none.
        mixup_by: what has one share: "batch", whose examples are mixed with each other, or "pair", as in the authors'
            release: two examples make one, and a step takes twice as many.
        label_smoothing: share of a label that is spread over all classes.
        seed: of weights, synthetic data and order.
        data: a data set or a folder; several tasks are joined by "+".
        image_size: side of the images; not used for sound.
        train_size: training examples of a stand-in; ignored elsewhere.
        test_size: test examples of a stand-in; ignored elsewhere.
        precision: as `lightning.pytorch.Trainer` names it.
        accumulate: parts of a step that are computed one after the other.
        compile: whether the network is compiled.
        grid: how map sizes follow learned strides, as in `anystride.DiffStride2d`; with "fixed", at the start of each
            epoch.
        validation: share of the training examples, of each class, that is set aside. The epoch that is best on them is
            kept, and the test examples are used once, at the end. With 0 the last epoch is kept, and the test examples
            are used after every epoch, as in the paper.
        patience: epochs without a better validation accuracy after which the training ends; 0 for no such end.
        threads: of one process on a CPU. Sums, and with them the digits of a result, depend on it.
        init: the folder of a run whose weights the network starts from, where names and shapes agree; "" for none.
        budget_macs: a limit of the multiply-accumulates per example: `anystride.fit_macs_` moves the strides to just
            below it before the training, and `anystride.Budget` holds them there while they learn. A number; a multiple
            of what `strides` cost such as "0.5x"; what the same network costs with strided convolutions at some
            strides such as "strided:2,2,2"; "" for none.
        augment: what is done to training examples: "auto" for what is usual for the data, "crop" for images that must
            not be mirrored, "release" for what the authors' release has for CIFAR, "none".
        skip_bad: whether files that cannot be read are left out; otherwise they are an error.
        label_pattern: for a folder without class folders, a regular expression for file names, whose group "label", or
            only group, is the class.
        label_column: for tables of series, the column that names the class.
    """

    model: str = "resnet18"
    method: str = "outer"
    strides: Strides = ((2.0, 2.0), (2.0, 2.0), (2.0, 2.0))
    smoothness: float = 4.0
    shared_stride: bool = False
    lam: float = 0.0
    lam_over: str = "strides"
    width: int = 8
    epochs: int = 8
    epoch_steps: int = 0
    batch_size: int = 32
    optimizer: str = "sgd"
    lr: float = 0.05
    stride_lr: float | None = None
    stride_until: float = 1.0
    weight_decay: float = 5e-4
    decay: str = "all"
    schedule: str = "cosine"
    mixup: float = 0.0
    mixup_by: str = "batch"
    label_smoothing: float = 0.0
    seed: int = 0
    data: str = SCENES
    image_size: int = 32
    train_size: int = 4000
    test_size: int = 1000
    precision: str = "32-true"
    accumulate: int = 1
    compile: bool = False
    grid: int | str = "free"
    validation: float = 0.0
    patience: int = 0
    threads: int = 1
    init: str = ""
    budget_macs: str = ""
    augment: str = "auto"
    skip_bad: bool = False
    label_pattern: str = ""
    label_column: str = "label"

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values: tuples become lists."""
        return {**dataclasses.asdict(self), "strides": [list(pair) for pair in self.strides]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of `to_json`; a TypeError for names that are not known here.

        A name that is absent has its default: records stay valid when a field is added whose default changes nothing.
        """
        return cls(**{**values, "strides": tuple((float(v), float(h)) for v, h in values["strides"])})

    def network(self, heads: int | Sequence[int], in_channels: int) -> NetworkSpec:
        """The network of this run for data with `heads` classes per task and `in_channels` channels."""
        return NetworkSpec(
            heads=heads,
            in_channels=in_channels,
            width=self.width,
            method=self.method,
            strides=self.strides,
            smoothness=self.smoothness,
            shared=self.shared_stride,
            grid=self.grid,
        )

    @property
    def budget_strides(self) -> Strides | None:
        """The strides whose strided convolutions cost what the budget allows; None for another budget, or none."""
        kind, _, text = self.budget_macs.rpartition(":")
        if f"{kind}:" != STRIDED:
            return None
        pairs = [[float(value) for value in stage.split("x")] for stage in text.split(",")]
        return tuple((pair[0], pair[-1]) for pair in pairs)

    @property
    def name(self) -> str:
        """The method, the strides and the seed, as in `outer-3x2x3-seed0`."""
        stages = ["_".join(f"{value:g}" for value in dict.fromkeys(pair)) for pair in self.strides]
        return f"{self.method}-{'x'.join(stages)}-seed{self.seed}"

    @property
    def title(self) -> str:
        """Data, network and `key`, as in `scenes-resnet18-w8-outer-3x2x3-seed0-1f0c9a2e`: a folder's name."""
        data = re.sub(r"[^\w+-]+", "-", Path(self.data).name).strip("-") or "data"
        return f"{data[:LONGEST]}-{self.model}-w{self.width}-{self.key}"

    @property
    def key(self) -> str:
        """`name` with a digest of everything else, as in `outer-3x2x3-seed0-1f0c9a2e`: unique among all runs."""
        default = RunConfig().to_json()
        changed = {name: value for name, value in self.to_json().items() if value != default[name]}
        return f"{self.name}-{hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]}"


def difference(one: RunConfig, other: RunConfig) -> str:
    """What differs between two configurations, in words; empty when they are equal."""
    a, b = one.to_json(), other.to_json()
    return ", ".join(f"{name} {a[name]} instead of {b[name]}" for name in a if a[name] != b[name])
