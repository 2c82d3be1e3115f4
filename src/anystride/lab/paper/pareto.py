"""The Pareto front: accuracy against multiply-accumulates, of a search by hand and of strides that are learned.

The paper does not have it. It asks what a user asks: at the same costs, is a learned stride better than the best
hand-picked one, and is it cheaper than to look for that one? The search trains strided convolutions at each of
27 combinations of strides. A learned run starts at the usual strides, and its budget is what one of them costs. To
tell what learning adds, the same budgets are also met by costs alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from anystride.lab.data.names import CIFAR_JPEG
from anystride.lab.paper.protocols import SCENES, cifar
from anystride.lab.paper.recipe import TITLES, Cell, Recipe, Setting, both, point, start_text
from anystride.lab.run.config import RunConfig

PARETO = "pareto"
"""Name of the recipe."""
SEARCH = tuple(product((1, 2, 3), repeat=3))
"""Every combination of whole strides up to 3."""
USUAL = (2, 2, 2)
BUDGETS = ((3, 2, 3), (2, 3, 2), (2, 2, 2), (2, 2, 1), (2, 1, 2), (1, 2, 2))
"""What learned runs may cost: as strided convolutions at these strides."""
LEARNED: dict[str, dict[str, Any]] = {
    "cosine": {"stride_until": 0.5},
    "inner": {"stride_until": 0.5, "smoothness": 1.0, "stride_lr": 0.003},
}
"""How each ramp learns here, by a small search on half of the training data. Strides rest in the second half."""
UNLEARNED: dict[str, Any] = {"stride_until": 0.0, "smoothness": 0.25}
"""The best that does not learn, by the same search: a sharp low-pass at the strides that `fit_macs_` gives."""
SPECTRAL = ((3, 2, 3), (2, 3, 2), (2, 2, 2), (2, 2, 1), (1, 2, 2))
X, Y = "MMAC per image", "Accuracy"


def settings(dataset: str) -> Setting:
    protocol = cifar(dataset)
    cells: list[Cell] = []
    for method, starts in (("strided", SEARCH), ("spectral", SPECTRAL)):
        for start in starts:
            run = replace(protocol.base, method=method, strides=both(start))
            cells += point(Cell(start_text(start), TITLES[method], (run,)), "mmacs", X, Y)
    for name, run in (*limited(protocol.base), *fitted(protocol.base)):
        cells += point(Cell(name, TITLES[run.method], (run,)), "mmacs", X, Y)
    return Setting(tuple(cells), protocol.note, protocol.stands_in_for)


def limited(base: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """The learned runs under all budgets, with their names."""
    for method, training in LEARNED.items():
        for budget in BUDGETS:
            yield f"as {start_text(budget)}", replace(_within(base, budget), method=method, **training)


def fitted(base: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """The runs whose strides fit all budgets and never learn, with their names."""
    for budget in BUDGETS:
        yield f"fitted, as {start_text(budget)}", replace(_within(base, budget), method="inner", **UNLEARNED)


def _within(base: RunConfig, budget: tuple[int, ...]) -> RunConfig:
    return replace(base, strides=both(USUAL), budget_macs=f"strided:{','.join(map(str, budget))}")


RECIPE = Recipe(
    PARETO,
    "Accuracy against multiply-accumulates",
    "Not in the paper",
    (CIFAR_JPEG, "cifar10", "cifar100", SCENES),
    SCENES,
    settings,
    compares=("stride_until", "smoothness", "stride_lr"),
)
