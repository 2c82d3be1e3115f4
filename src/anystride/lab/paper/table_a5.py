"""Tables A.5 and A.6: CIFAR with an EfficientNet-B0 from four stride configurations.

Both tables head the baseline's column "Average Pooling", as those of the DenseNet do. The text speaks of "seven strided
convolutions", and that spectral pooling is "much more robust to poor strides than strided convolutions": the baseline
here is the strided convolution.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from anystride.lab.data.names import CIFAR_JPEG
from anystride.lab.paper.protocols import SCENES, Protocol, cifar
from anystride.lab.paper.recipe import Recipe, Setting, comparison, transcribed

STARTS = ((1, 2, 2, 2, 1, 2, 1), (1, 1, 2, 2, 2, 1, 1), (1, 2, 2, 2, 2, 2, 1), (2, 1, 2, 1, 2, 1, 1))
"""One stride per stage; the first row is Tan & Le's."""

_METHODS = ("strided", "spectral", "outer")
PUBLISHED = {
    "cifar10": transcribed(
        """
        (1, 2, 2, 2, 1, 2, 1): 87.2 0.1, 90.4 0.2, 91.1 0.0
        (1, 1, 2, 2, 2, 1, 1): 89.7 0.1, 90.9 0.3, 90.9 0.1
        (1, 2, 2, 2, 2, 2, 1): 83.7 0.2, 90.0 1.0, 90.8 0.1
        (2, 1, 2, 1, 2, 1, 1): 89.2 0.2, 90.4 0.4, 91.1 0.1
        Mean accuracy: 87.5 2.5, 90.4 0.6, 90.9 0.1
        """,
        _METHODS,
    ),
    "cifar100": transcribed(
        """
        (1, 2, 2, 2, 1, 2, 1): 55.2 0.3, 66.0 0.6, 66.6 0.5
        (1, 1, 2, 2, 2, 1, 1): 62.0 0.7, 66.4 0.6, 66.6 0.3
        (1, 2, 2, 2, 2, 2, 1): 46.8 2.0, 65.9 0.5, 66.3 0.7
        (2, 1, 2, 1, 2, 1, 1): 60.4 0.1, 65.5 0.1, 67.0 0.1
        Mean accuracy: 56.1 6.3, 65.9 0.5, 66.6 0.5
        """,
        _METHODS,
    ),
}

WIDTH = 64
"""Channels as 64ths of B0's."""
IMAGE_SIZE, STAND_IN_IMAGE_SIZE = 128, 64
"""Seven strides need maps larger than 32 x 32: the images are scaled up."""


def protocol_for(data: str) -> Protocol:
    """As for the ResNet, "a similar experiment as in 3.2", on images of 128 x 128.

    The stand-in has a quarter of the channels, 8 epochs of 4,000 scenes of 64 x 64, and Adam: with SGD this network
    stays near chance in so few steps. Its 48 runs take about two hours of one CPU core. CIFAR-10 (JPEG) has the same
    network and 800 steps of 64 images.
    """
    protocol = cifar(data)
    base = replace(protocol.base, model="efficientnet-b0", width=WIDTH, image_size=IMAGE_SIZE)
    if protocol.small:
        base = replace(base, width=16, image_size=STAND_IN_IMAGE_SIZE, epochs=8, train_size=4000)
        base = replace(base, optimizer="adam", lr=3e-3)
    if data == CIFAR_JPEG:
        base = replace(base, epochs=4, epoch_steps=200, batch_size=64)
    return replace(protocol, base=base)


def settings(original: str, dataset: str) -> Setting:
    protocol = protocol_for(dataset)
    cells = comparison(protocol.base, STARTS, PUBLISHED[original])
    return Setting(cells, protocol.note, original if protocol.stands_in_for else "")


RECIPES = tuple(
    Recipe(name, f"{title} with an EfficientNet-B0", source, (data, *more, SCENES), SCENES, partial(settings, data))
    for name, title, source, data, more in (
        ("table-a5", "CIFAR10", "Table A.5, appendix", "cifar10", (CIFAR_JPEG,)),
        ("table-a6", "CIFAR100", "Table A.6, appendix", "cifar100", ()),
    )
)
