"""The smoothness R of the window: the paper says that it has no significant impact, and takes 4 (section 3)."""

from __future__ import annotations

from dataclasses import replace

from anystride.lab.data.names import CIFAR_JPEG
from anystride.lab.paper.protocols import SCENES, cifar
from anystride.lab.paper.recipe import TITLES, Cell, Recipe, Setting, point

SMOOTHNESS = (0.5, 1.0, 2.0, 4.0, 8.0)
METHODS = ("outer", "inner")
COST, ACCURACY = "MMAC per image", "Accuracy"


def settings(dataset: str) -> Setting:
    protocol = cifar(dataset)
    cells: list[Cell] = []
    for smoothness in SMOOTHNESS:
        for method in METHODS:
            run = replace(protocol.base, method=method, smoothness=smoothness)
            cells += point(Cell(f"R = {smoothness:g}", TITLES[method], (run,)), "mmacs", COST, ACCURACY)
    return Setting(tuple(cells), protocol.note, protocol.stands_in_for)


RECIPE = Recipe(
    "smoothness",
    "CIFAR by the smoothness of the window",
    "section 3, the choice of R",
    ("cifar10", "cifar100", CIFAR_JPEG, SCENES),
    SCENES,
    settings,
    compares=("smoothness",),
)
