"""Tables A.3 and A.4: CIFAR with a DenseNet-BC from five stride configurations."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from anystride.lab.data.names import CIFAR_JPEG
from anystride.lab.paper.protocols import SCENES, Protocol, cifar
from anystride.lab.paper.recipe import Recipe, Setting, comparison, transcribed

STARTS = ((2, 2), (1, 2), (1, 3), (2, 3), (3, 1))
"""One stride per transition block; the first row is Huang et al.'s."""

_METHODS = ("average", "spectral", "outer")
METHODS = (*_METHODS, "inner")
PUBLISHED = {
    "cifar10": transcribed(
        """
        (2, 2): 92.3 0.2, 91.5 0.2, 91.5 0.1
        (1, 2): 91.8 0.2, 90.5 0.5, 91.1 0.3
        (1, 3): 92.0 0.2, 91.0 0.1, 91.6 0.4
        (2, 3): 92.0 0.3, 92.1 0.2, 92.2 0.1
        (3, 1): 91.6 0.2, 91.5 0.4, 91.7 0.2
        Mean accuracy: 91.9 0.3, 91.3 0.6, 91.6 0.4
        """,
        _METHODS,
    ),
    "cifar100": transcribed(
        """
        (2, 2): 69.1 0.6, 68.6 0.6, 68.2 0.2
        (1, 2): 67.7 0.3, 67.2 0.3, 68.0 0.1
        (1, 3): 67.8 0.4, 67.3 0.2, 68.0 0.7
        (2, 3): 67.6 0.3, 69.0 0.8, 69.0 0.2
        (3, 1): 68.4 0.6, 69.1 0.4, 69.7 0.6
        Mean accuracy: 68.1 0.7, 68.2 1.0, 68.6 0.8
        """,
        _METHODS,
    ),
}

WIDTH = 32
"""The growth rate."""


def protocol_for(data: str) -> Protocol:
    """As for the ResNet: "a similar experiment as in 3.2" is all that the paper says about the training.

    121 layers are slow on a CPU however narrow they are: the stand-in has a growth rate of 4 and 5 epochs of 2,000
    scenes, for 60 runs in two to three hours of one core. On CIFAR-10 (JPEG) it takes 400 steps of 64 images.
    """
    protocol = cifar(data)
    if data == CIFAR_JPEG:
        short = replace(protocol.base, model="densenet-bc", width=4, epochs=4, epoch_steps=100, batch_size=64)
        return replace(protocol, base=short)
    if protocol.small:
        small = replace(protocol.base, model="densenet-bc", width=4, epochs=5, train_size=2000)
        return replace(protocol, base=small)
    return replace(protocol, base=replace(protocol.base, model="densenet-bc", width=WIDTH))


def settings(original: str, dataset: str) -> Setting:
    protocol = protocol_for(dataset)
    cells = comparison(protocol.base, STARTS, PUBLISHED[original], methods=METHODS)
    return Setting(cells, protocol.note, original if protocol.stands_in_for else "")


RECIPES = tuple(
    Recipe(name, f"{title} with a DenseNet-BC", source, (data, *more, SCENES), SCENES, partial(settings, data))
    for name, title, source, data, more in (
        ("table-a3", "CIFAR10", "Table A.3, appendix", "cifar10", (CIFAR_JPEG,)),
        ("table-a4", "CIFAR100", "Table A.4, appendix", "cifar100", ()),
    )
)
