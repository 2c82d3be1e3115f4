"""The networks of the lab by name: what they take, and how to build them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from anystride.lab.models import audio, densenet, efficientnet, preact, resnet, series
from anystride.lab.models.downsample import METHODS
from anystride.lab.models.network import Network
from anystride.lab.models.spec import NetworkSpec

IMAGE_AXES = ("vertical", "horizontal")
SOUND_AXES = ("time", "frequency")
SERIES_AXES = ("time",)


@dataclass(frozen=True)
class Architecture:
    """One network: the possible numbers of `strides`, the `methods` it can downsample by, the names of its axes."""

    title: str
    strides: tuple[int, ...]
    build: Callable[[NetworkSpec], Network]
    methods: tuple[str, ...] = METHODS
    axes: tuple[str, ...] = IMAGE_AXES


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture("ResNet-18 for small images", (3, 4), resnet.resnet18),
    "resnet18-imagenet": Architecture("ResNet-18", (4,), resnet.resnet18_imagenet),
    "resnet18-release": Architecture(
        "ResNet-18 of the authors' release", (4,), preact.resnet18_release, methods=preact.METHODS
    ),
    "densenet-bc": Architecture("DenseNet-BC", (2,), densenet.densenet_bc, methods=densenet.METHODS),
    "efficientnet-b0": Architecture("EfficientNet-B0", (7,), efficientnet.efficientnet_b0),
    "audio": Architecture("2D-CNN for log-mel spectrograms", (6,), audio.audio, axes=SOUND_AXES),
    "series": Architecture("1-D ResNet for series", (3,), series.series, methods=series.METHODS, axes=SERIES_AXES),
}


def build(name: str, spec: NetworkSpec) -> Network:
    """Build a network by its name.

    Args:
        name: one of `ARCHITECTURES`.
        spec: what the network is to be.

    Raises:
        ValueError: the name is unknown, or the network refuses the specification, as its own function documents.

    Example:
        >>> import torch
        >>> spec = NetworkSpec([10], width=4, method="inner", strides=(2, 2, 2))
        >>> build("resnet18", spec)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"model must be one of {', '.join(ARCHITECTURES)}, got {name!r}")
    return ARCHITECTURES[name].build(spec)
