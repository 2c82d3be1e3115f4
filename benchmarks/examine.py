"""What `convert_` must do to a network, checked; benchmarks/zoo.py and benchmarks/field.py share it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn


class Network(NamedTuple):
    """A network to convert.

    Attributes:
        name: unique; the row's name.
        family: library or kind of network.
        build: the network with random weights; it uses torch's global random state.
        example: the arguments at the first input size, `example(0)`, or at the second, `example(1)`: a tensor, a tuple
            of positional or a dict of keyword arguments (a list of images is `([image, ...],)`). Batches have two
            examples. Where the network refuses the second size, the harness finds that out and writes down why.
        trains: False where training mode needs what the example does not have; gradients are then those of evaluation.
        watch: names of modules whose outputs stand for the network's own in comparisons, where those are a selection
            (boxes that are left after suppression).
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    example: Callable[[int], Any]
    trains: bool = True
    watch: tuple[str, ...] = ()
