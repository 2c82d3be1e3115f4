"""Figures 3, A.1 and A.2: the strides that DiffStride learns, epoch by epoch and at the end.

Their runs are the DiffStride runs of Tables 3 and 4. A record has the strides after every epoch, for Figure 3a, and
those at the end, for 3b; the cells' value is the global striding factor of 3c, and the paper prints none of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from anystride.lab.paper import table3, table4
from anystride.lab.paper.protocols import SCENES, cifar, imagenet
from anystride.lab.paper.recipe import TITLES, Cell, Recipe, Setting, both, start_text

VALUE = "striding"
PANEL = "Global striding factor, the product of all strides"


def settings(original: str, dataset: str) -> Setting:
    large = original == "imagenet"
    protocol = imagenet(dataset) if large else cifar(dataset)
    starts: tuple[tuple[int, ...], ...] = table4.STARTS if large else table3.STARTS
    cells = tuple(
        Cell(
            start_text(start),
            TITLES[method],
            (replace(protocol.base, method=method, strides=both(start)),),
            VALUE,
            panel=PANEL,
        )
        for start in starts
        for method in ("outer", "inner")
    )
    return Setting(cells, protocol.note, original if protocol.stands_in_for else "")


RECIPES = tuple(
    Recipe(name, f"Strides learned on {title}", source, (data, SCENES), SCENES, partial(settings, data))
    for name, title, source, data in (
        ("figure3", "CIFAR10", "Figure 3, section 3.2", "cifar10"),
        ("figure-a1", "CIFAR100", "Figure A.1, appendix", "cifar100"),
        ("figure-a2", "ImageNet", "Figure A.2, appendix", "imagenet"),
    )
)
