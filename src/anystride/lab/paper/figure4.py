"""Figure 4: accuracy against the complexity J of Eq. 6, for regularised DiffStride and for strided convolutions.

The paper takes weights between 0.1 and 10 and does not list them: here they are spaced evenly on a logarithmic scale,
and 0 is the unregularised run. Of the regularised models it reports one, for the weight 10, and what strided
convolutions reach at the whole strides nearest to those that it learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from anystride.lab.data.names import CIFAR_JPEG
from anystride.lab.paper import table3
from anystride.lab.paper.pareto import limited
from anystride.lab.paper.protocols import SCENES, cifar, imagenet
from anystride.lab.paper.recipe import TITLES, Cell, Published, Recipe, Setting, both, start_text
from anystride.lab.paper.table4 import PUBLISHED, STARTS, TOP_1

WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
"""lambda of Eq. 6."""

EXTREME = ((10.51, 32.23), (1.20, 2.68), (1.20, 2.04), (1.96, 4.53))
"""The strides that a model of the paper learned with lambda = 10."""
WHOLE = ((11.0, 32.0), (1.0, 3.0), (1.0, 2.0), (2.0, 5.0))
"""The nearest whole strides, with which strided convolutions reach less."""

LEARNED, ROUNDED = 58.57, 24.54
"""What they reach (%)."""

X, Y = "J", TOP_1


@dataclass(frozen=True)
class Known:
    """A point of the paper's figure: strides that it prints, and the accuracy (%) that it prints for them."""

    name: str
    method: str
    strides: Sequence[Sequence[float]]
    accuracy: float


def known() -> tuple[Known, ...]:
    """What the paper prints of this figure. It prints no J; that follows from the strides."""
    strided = (
        Known(start_text(start), "strided", both(start), PUBLISHED[TOP_1][start_text(start)]["strided"].mean)
        for start in STARTS
    )
    return (
        Known(f"lambda = {max(WEIGHTS):g}", "outer", EXTREME, LEARNED),
        Known(f"nearest whole strides, lambda = {max(WEIGHTS):g}", "strided", WHOLE, ROUNDED),
        *strided,
    )


def settings(dataset: str) -> Setting:
    real = dataset == CIFAR_JPEG
    protocol = cifar(dataset) if real else imagenet(dataset)
    starts: tuple[tuple[int, ...], ...] = table3.STARTS if real else STARTS

    cells: list[Cell] = []
    for method in ("outer", "inner", "cosine") if real else ("outer", "inner"):
        runs = {weight: replace(protocol.base, method=method, lam=weight) for weight in WEIGHTS}
        for weight, run in runs.items():
            printed = method == "outer" and weight == max(WEIGHTS) and not real
            published = Published(LEARNED, digits=2) if printed else None
            cells += _point(Cell(f"lambda = {weight:g}", TITLES[method], (run,), published=published))
        cells += _point(
            Cell(
                f"nearest whole strides of {TITLES[method]}, lambda = {max(WEIGHTS):g}",
                TITLES["strided"],
                (),
                published=Published(ROUNDED, digits=2) if method == "outer" and not real else None,
                follows=(runs[max(WEIGHTS)],),
            )
        )
    for name, run in limited(protocol.base) if real else ():
        cells += _point(Cell(f"budget {name}", TITLES[run.method], (run,)))
    for start in starts:
        run = replace(protocol.base, method="strided", strides=both(start))
        row = start_text(start)
        published = None if real else PUBLISHED[TOP_1][row]["strided"]
        cells += _point(Cell(row, TITLES["strided"], (run,), published=published))
    return Setting(tuple(cells), protocol.note, protocol.stands_in_for)


def _point(cell: Cell) -> list[Cell]:
    """Both coordinates of a point: two cells with the same runs."""
    return [replace(cell, value="complexity", published=None, panel=X), replace(cell, panel=Y)]


RECIPE = Recipe(
    "figure4",
    "Accuracy against complexity",
    "Figure 4, sections 2.4.2 and 3.2",
    ("imagenet", CIFAR_JPEG, SCENES),
    SCENES,
    settings,
)
