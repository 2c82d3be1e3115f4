"""Table 4: ImageNet with a ResNet-18 from six stride configurations."""

from __future__ import annotations

from anystride.lab.paper.protocols import SCENES, imagenet
from anystride.lab.paper.recipe import Recipe, Setting, comparison, transcribed

STARTS = ((1, 2, 2, 2), (1, 1, 3, 1), (1, 3, 1, 3), (2, 2, 2, 3), (2, 3, 1, 2), (3, 3, 2, 3))
"""The first identity block's stride, then one per shortcut block; the first row is He et al.'s."""

TOP_1, TOP_5 = "Top-1", "Top-5"

_METHODS = ("strided", "spectral", "outer")
PUBLISHED = {
    TOP_1: transcribed(
        """
        (1, 2, 2, 2): 68.65 0.26, 69.01 0.19, 69.66 0.06
        (1, 1, 3, 1): 69.79 0.15, 69.88 0.05, 68.22 0.07
        (1, 3, 1, 3): 68.86 0.28, 68.63 0.08, 69.41 0.16
        (2, 2, 2, 3): 63.45 0.09, 67.16 0.17, 69.53 0.08
        (2, 3, 1, 2): 65.35 0.03, 66.35 0.24, 69.42 0.06
        (3, 3, 2, 3): 57.11 0.11, 64.44 0.01, 69.43 0.11
        Mean accuracy: 65.53 4.49, 67.58 1.88, 69.28 0.50
        """,
        _METHODS,
    ),
    TOP_5: transcribed(
        """
        (1, 2, 2, 2): 88.5 0.15, 88.48 0.02, 89.07 0.03
        (1, 1, 3, 1): 89.43 0.18, 89.15 0.07, 88.10 0.08
        (1, 3, 1, 3): 88.64 0.15, 88.42 0.01, 88.98 0.04
        (2, 2, 2, 3): 85.09 0.04, 87.25 0.06, 89.05 0.05
        (2, 3, 1, 2): 86.27 0.05, 86.67 0.15, 88.91 0.05
        (3, 3, 2, 3): 80.42 0.11, 85.22 0.09, 89.03 0.02
        Mean accuracy: 86.39 3.15, 87.53 1.36, 88.85 0.35
        """,
        _METHODS,
    ),
}


def settings(dataset: str) -> Setting:
    protocol = imagenet(dataset)

    first = comparison(protocol.base, STARTS, PUBLISHED[TOP_1], panel=TOP_1)
    fifth = comparison(protocol.base, STARTS, PUBLISHED[TOP_5], value="top5", panel=TOP_5)
    return Setting((*first, *fifth), protocol.note, protocol.stands_in_for)


RECIPE = Recipe(
    "table4", "ImageNet from six stride configurations", "Table 4, section 3.2", ("imagenet", SCENES), SCENES, settings
)
