"""Table 3: CIFAR with a ResNet-18 from six stride configurations."""

from __future__ import annotations

from anystride.lab.data.names import CIFAR_JPEG
from anystride.lab.paper.protocols import SCENES, cifar
from anystride.lab.paper.recipe import METHODS, REAL_METHODS, Recipe, Setting, comparison, transcribed

STARTS = ((2, 2, 2), (2, 2, 3), (1, 3, 1), (3, 1, 3), (3, 1, 2), (3, 2, 3))
"""One stride per shortcut block, the same for both axes; the first row is He et al.'s."""

_METHODS = ("strided", "spectral", "outer")
PUBLISHED = {
    "cifar10": transcribed(
        """
        (2, 2, 2): 91.4 0.2, 92.4 0.1, 92.5 0.1
        (2, 2, 3): 90.5 0.1, 92.2 0.2, 92.8 0.1
        (1, 3, 1): 90.0 0.4, 91.1 0.1, 92.4 0.1
        (3, 1, 3): 85.7 0.1, 90.9 0.2, 92.4 0.1
        (3, 1, 2): 86.4 0.1, 90.9 0.2, 92.3 0.1
        (3, 2, 3): 82.0 0.6, 89.2 0.2, 92.3 0.1
        Mean accuracy: 87.7 3.4, 91.1 1.1, 92.4 0.2
        """,
        _METHODS,
    ),
    "cifar100": transcribed(
        """
        (2, 2, 2): 66.8 0.2, 73.7 0.1, 73.4 0.5
        (2, 2, 3): 63.4 0.5, 73.7 0.2, 73.5 0.0
        (1, 3, 1): 64.9 0.5, 70.3 0.3, 73.4 0.2
        (3, 1, 3): 55.3 0.8, 69.4 0.4, 73.7 0.4
        (3, 1, 2): 56.2 0.3, 69.9 0.2, 73.4 0.3
        (3, 2, 3): 48.2 0.2, 66.6 0.5, 73.6 0.4
        Mean accuracy: 59.1 6.7, 70.6 2.6, 73.5 0.3
        """,
        _METHODS,
    ),
}


def settings(dataset: str) -> Setting:
    protocol = cifar(dataset)
    methods = REAL_METHODS if dataset == CIFAR_JPEG else METHODS
    cells = comparison(protocol.base, STARTS, PUBLISHED[protocol.stands_in_for or dataset], methods=methods)
    return Setting(cells, protocol.note, protocol.stands_in_for)


RECIPE = Recipe(
    "table3",
    "CIFAR from six stride configurations",
    "Table 3, section 3.2",
    ("cifar10", "cifar100", CIFAR_JPEG, SCENES),
    SCENES,
    settings,
)
