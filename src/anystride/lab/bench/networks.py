"""The program that measures steps of whole networks, for Table A.2 and for `anystride bench network`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from anystride import DiffStride2d
from anystride.lab.bench.oracle import FourierStride
from anystride.lab.bench.steps import Trainee, sgd
from anystride.lab.bench.timing import Contestant, in_turn, peak_bytes
from anystride.lab.models import registry
from anystride.lab.models.spec import NetworkSpec

STEPS = ("training", "inference")


@dataclass(frozen=True)
class Method:
    """A downsampler of the lab.

    Args:
        title: its name for people.
        downsampler: its name in the lab.
        smoothness: R of Eq. 3.
        by_fft: whether the layer is `FourierStride`, the same function by Fourier transforms.
        grid: how map sizes follow strides.
    """

    title: str
    downsampler: str
    smoothness: float = 4.0
    by_fft: bool = False
    grid: str = "free"


@dataclass(frozen=True)
class Case:
    """A network of the registry, its input (C, H, W), its batch and its strides."""

    model: str
    shape: tuple[int, int, int]
    heads: tuple[int, ...]
    width: int
    batch: int
    strides: tuple[tuple[float, float], ...]

    def build(self, method: Method) -> nn.Module:
        """The network with one downsampler; all methods start from the same weights."""
        torch.manual_seed(0)
        spec = NetworkSpec(
            heads=self.heads,
            in_channels=self.shape[0],
            width=self.width,
            method=method.downsampler,
            strides=self.strides,
            smoothness=method.smoothness,
            grid=method.grid,
        )
        network = registry.build(self.model, spec)
        if method.by_fft:
            for module in network.modules():
                pool = getattr(module, "pool", None)
                if isinstance(pool, DiffStride2d):
                    module.pool = FourierStride(pool.stride, pool.smoothness[0])
        return network

    def trainee(self, method: Method, device: torch.device, *, optimised: bool = True) -> Trainee:
        """The network and one batch on a device; a training step of it includes the optimiser where `optimised`."""
        network = self.build(method).to(device)
        torch.manual_seed(0)
        images = torch.randn(self.batch, *self.shape, device=device)
        return Trainee(network, images, sgd(network) if optimised else None)


def steps_of(trainee: Trainee) -> dict[str, Contestant]:
    """The steps of a network by their names."""
    return {"training": trainee.training, "inference": trainee.inference}


def peaks(trainee: Trainee, device: torch.device) -> dict[str, dict[str, Any]]:
    """Peak bytes of each step."""
    return {name: {"bytes": peak_bytes(step, device, trainee.held)} for name, step in steps_of(trainee).items()}


def times(trainees: Mapping[str, Trainee], repeats: int, device: torch.device) -> dict[str, dict[str, dict[str, Any]]]:
    """Seconds of each step, of all networks in turn: by the name of the network, then by the name of the step."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in trainees}
    for step in STEPS:
        spreads = in_turn({name: steps_of(each)[step] for name, each in trainees.items()}, repeats, device)
        for name, spread in spreads.items():
            found[name][step] = spread.to_json()
    return found
