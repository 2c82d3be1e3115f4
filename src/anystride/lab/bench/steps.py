"""A network that takes training and inference steps on one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from anystride import param_groups
from anystride.lab.bench.moves import Moves
from anystride.lab.bench.oracle import FourierStride
from anystride.lab.bench.timing import Contestant

LR = 1e-6
"""Small, because the network must not diverge while it is timed."""

Loss = Callable[[Tensor], Tensor]


def mean_square(logits: Tensor) -> Tensor:
    """A loss that needs no labels."""
    return logits.square().mean()


def sgd(network: nn.Module, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """SGD with momentum that leaves strides where they are: sizes must not change while they are timed."""
    groups = param_groups(network, lr=LR, weight_decay=weight_decay, stride_lr=0.0)
    # The groups know the core's layers only.
    strides = {id(module.stride) for module in network.modules() if isinstance(module, FourierStride)}
    apart = [each for each in groups[0]["params"] if id(each) in strides]
    if apart:
        groups[0]["params"] = [each for each in groups[0]["params"] if id(each) not in strides]
        groups.append({"params": apart, "lr": 0.0, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=LR, momentum=0.9)


class Trainee:
    """A network, its batch and its optimiser.

    With an optimiser, `Moves` moves the strides before each step; the optimiser must leave them alone. Without one,
    strides stand still, and a training step is forward and backward.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        optimiser: torch.optim.Optimizer | None = None,
        loss: Loss = mean_square,
    ) -> None:
        self.network, self.images, self.optimiser, self.loss = network, images, optimiser, loss
        self.moves = Moves(network) if optimiser is not None else Moves(nn.Module())
        self.call: Callable[[Tensor], Tensor] = network

    def compile(self, fullgraph: bool = False, dynamic: bool | None = None) -> None:
        """Call the network through `torch.compile` from now on; the arguments are those of it."""
        self.call = torch.compile(self.network, fullgraph=fullgraph, dynamic=dynamic)

    @property
    def training(self) -> Contestant:
        """Forward, backward and, with an optimiser, its step."""

        def prepare() -> None:
            self.network.train()
            self.network.zero_grad(set_to_none=True)
            self.moves()

        def run() -> None:
            self.loss(self.call(self.images)).backward()
            if self.optimiser is not None:
                self.optimiser.step()

        return Contestant(run, prepare)

    @property
    def inference(self) -> Contestant:
        """Forward in evaluation mode, strides standing still."""

        def prepare() -> None:
            self.network.eval()
            self.network.zero_grad(set_to_none=True)

        def run() -> None:
            with torch.no_grad():
                self.call(self.images)

        return Contestant(run, prepare)

    @property
    def held(self) -> list[Tensor]:
        """All tensors that exist before a step: the network, its input and the state of the optimiser."""
        states = self.optimiser.state.values() if self.optimiser is not None else []
        kept = [each for state in states for each in state.values() if isinstance(each, Tensor)]
        return [*self.network.parameters(), *self.network.buffers(), self.images, *kept]
