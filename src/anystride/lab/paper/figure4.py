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
from anystride.lab.paper.recipe import TITLES, Cell, Published, Recipe, Setting, both, point, start_text
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


def _printed() -> dict[tuple[str, str], Published]:
    """The accuracies that the paper prints, by row and column."""
    outer, strided = TITLES["outer"], TITLES["strided"]
    return {
        (_weight(max(WEIGHTS)), outer): Published(LEARNED, digits=2),
        (_nearest(outer), strided): Published(ROUNDED, digits=2),
        **{(row, strided): values["strided"] for row, values in PUBLISHED[TOP_1].items()},
    }


def _weight(weight: float) -> str:
    return f"lambda = {weight:g}"


def _nearest(title: str) -> str:
    return f"nearest whole strides of {title}, {_weight(max(WEIGHTS))}"


def settings(dataset: str) -> Setting:
    real = dataset == CIFAR_JPEG
    protocol = cifar(dataset) if real else imagenet(dataset)
    starts: tuple[tuple[int, ...], ...] = table3.STARTS if real else STARTS

    cells: list[Cell] = []
    for method in ("outer", "inner", "cosine") if real else ("outer", "inner"):
        title, runs = TITLES[method], [replace(protocol.base, method=method, lam=weight) for weight in WEIGHTS]
        cells += [Cell(_weight(run.lam), title, (run,)) for run in runs]
        cells.append(Cell(_nearest(title), TITLES["strided"], (), follows=(runs[-1],)))
    if real:
        cells += [Cell(f"budget {name}", TITLES[run.method], (run,)) for name, run in limited(protocol.base)]
    for start in starts:
        run = replace(protocol.base, method="strided", strides=both(start))
        cells.append(Cell(start_text(start), TITLES["strided"], (run,)))
    if not real:
        printed = _printed()
        cells = [replace(cell, published=printed.get((cell.row, cell.column))) for cell in cells]
    points = tuple(part for cell in cells for part in point(cell, "complexity", X, Y))
    return Setting(points, protocol.note, protocol.stands_in_for)


RECIPE = Recipe(
    "figure4",
    "Accuracy against complexity",
    "Figure 4, sections 2.4.2 and 3.2",
    ("imagenet", CIFAR_JPEG, SCENES),
    SCENES,
    settings,
)
