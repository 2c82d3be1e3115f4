"""How strides should learn within a budget: their rate, how long, and the window. Chosen on half of the training data.

The paper does not have it. The other half are validation examples, and the cells show the accuracy on them, so that the
test examples say nothing about what is chosen here for `pareto`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from anystride.lab.data.names import CIFAR_JPEG
from anystride.lab.paper.protocols import SCENES, cifar
from anystride.lab.paper.recipe import TITLES, Cell, Recipe, Setting, point
from anystride.lab.run.config import RunConfig

HALF = 0.5
BUDGET = "strided:2,2,2"
RAMPS: dict[str, dict[str, Any]] = {
    "cosine": {"method": "cosine"},
    "inner, R = 1": {"method": "inner", "smoothness": 1.0},
    "inner, R = 1/4": {"method": "inner", "smoothness": 0.25},
    "inner, R = 4": {"method": "inner", "smoothness": 4.0},
}
RATES = {"as fast as the weights": 1.0, "a tenth as fast": 0.1, "3 % as fast": 0.03}
X, Y = "MMAC per image", "Accuracy on the other half of the training data"


def settings(dataset: str) -> Setting:
    protocol = cifar(dataset)
    base = replace(protocol.base, validation=HALF)
    cells = []
    for method in ("strided", "spectral"):
        cells += _point("fixed at (2, 2, 2), no budget", TITLES[method], replace(base, method=method))
    for column, ramp in RAMPS.items():
        limited = replace(base, budget_macs=BUDGET, stride_until=HALF, **ramp)
        cells += _point("fixed where they fit the budget", column, replace(limited, stride_until=0.0))
        for row, rate in RATES.items():
            cells += _point(f"{row}, for half of the epochs", column, replace(limited, stride_lr=rate * base.lr))
        cells += _point(
            "as fast as the weights, to the end", column, replace(limited, stride_until=1.0, stride_lr=base.lr)
        )
    return Setting(tuple(cells), protocol.note, protocol.stands_in_for)


def _point(row: str, column: str, run: RunConfig) -> list[Cell]:
    return point(Cell(row, column, (run,), "validation"), "mmacs", X, Y)


RECIPE = Recipe(
    "learning",
    "How strides learn within a budget",
    "Not in the paper",
    (CIFAR_JPEG, "cifar10", "cifar100", SCENES),
    SCENES,
    settings,
    compares=("smoothness", "stride_lr", "stride_until", "validation"),
)
