"""The command that measures a trained network on labelled examples."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sklearn.metrics import accuracy_score, confusion_matrix
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from anystride.lab.data.tree import printable
from anystride.lab.errors import UsageError
from anystride.lab.files import check_place, is_file
from anystride.lab.record import finite_or_none, provenance, write
from anystride.lab.report.confusion import draw
from anystride.lab.run.config import LONGEST
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.labelled import Labelled, is_own, labelled
from anystride.lab.run.training import TOP
from anystride.lab.trained import Trained, open_run

ROWS = 30
"""Classes that the table on the screen shows: the least accurate ones; all of them are in the file."""


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Args:
        run: the folder of the run.
        data: a folder or a data set; None for the test examples of the run.
        out: the JSON file; None for one in the run's folder.
        overwrite: whether `out` may hold something else than an evaluation.
        label_pattern: as of `RunConfig`; None for that of the run.
        environment: where data sets lie.
    """

    run: Path
    data: str | None = None
    out: Path | None = None
    overwrite: bool = False
    label_pattern: str | None = None
    environment: RunEnvironment = field(default_factory=RunEnvironment)


@dataclass(frozen=True)
class Measures:
    """What came out.

    Args:
        accuracy: a fraction; the mean over tasks where there are several.
        by_task: the accuracy of each task.
        top5: the share of examples whose class is among the five best guesses, where there are more than five classes.
        confusion: (classes, classes), a row for each class of the examples and a column for each guess.
    """

    accuracy: float
    by_task: dict[str, float]
    top5: float | None
    confusion: npt.NDArray[np.int64]

    @property
    def by_class(self) -> list[float]:
        """The share of each class's examples that are right; not a number where there is none."""
        return [row[number] / row.sum() if row.sum() else math.nan for number, row in enumerate(self.confusion)]


def evaluate(request: Request, console: Console) -> int:
    """Measure a network, show the numbers, and write them with a picture of the confusion matrix.

    Returns:
        The exit code: 1 if some files could not be read.

    Raises:
        UsageError: there is no run, the data are not there or do not fit it, or `out` cannot be written to.
    """
    trained = open_run(request.run)
    data = request.data or trained.config.data
    out = request.out or trained.checkpoint.parent / f"evaluation-{_file_name(data)}.json"
    if out.suffix.lower() != ".json":
        raise UsageError(f"--out must end in .json, got {str(out)!r}; the picture beside it ends in .png")
    picture = out.with_suffix(".png")
    check_place(out, _is_ours, request.overwrite)
    check_place(picture, lambda _: is_file(out), request.overwrite)
    pattern = trained.config.label_pattern if request.label_pattern is None else request.label_pattern
    found = labelled(trained, data, pattern, request.environment)
    measures = measure(found, trained.heads)
    write(finite_or_none(_json(found, measures, trained, data)), out)
    title = f"{100 * measures.accuracy:.1f} % of {len(found.labels):,} examples are right"
    draw(measures.confusion, trained.classes, title, picture)
    _show(found, measures, trained, data, console)
    console.print(f"All numbers: {printable(str(out))}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Confusion matrix: {printable(str(picture))}", highlight=False, markup=False, soft_wrap=True)
    return 1 if found.problems else 0


def measure(found: Labelled, heads: Any) -> Measures:
    """Compare logits with labels. An example of several tasks is compared with the classes of its own task only."""
    sizes = [len(names) for names in heads.values()]
    count = sum(sizes)
    task_of_class = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    task = task_of_class[found.labels]
    logits: Tensor = found.logits.masked_fill(task_of_class != task[:, None], -math.inf)
    guesses = logits.argmax(dim=1)
    by_task = {
        name: float(accuracy_score(found.labels[task == number], guesses[task == number]))
        for number, name in enumerate(heads)
        if bool((task == number).any())
    }
    top5 = None
    if len(sizes) == 1 and count > TOP:
        top5 = float(multiclass_accuracy(logits, found.labels, num_classes=count, top_k=TOP, average="micro"))
    confusion = confusion_matrix(found.labels, guesses, labels=np.arange(count))
    return Measures(sum(by_task.values()) / len(by_task), by_task, top5, confusion)


def _show(found: Labelled, measures: Measures, trained: Trained, data: str, console: Console) -> None:
    def say(text: str) -> None:
        console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    for note in trained.notes:
        say(note)
    counts = measures.confusion.sum(axis=1)
    order = [number for number in np.argsort(measures.by_class, kind="stable") if counts[number]]
    chosen = sorted(order) if len(order) <= ROWS else order[:ROWS]
    extent = "" if len(order) <= ROWS else f", the {ROWS} least accurate of {len(order):,}"
    table = Table(title=f"Accuracy by class{extent}", title_justify="left", title_style="bold")
    table.add_column("class", overflow="fold")
    table.add_column("examples", justify="right")
    table.add_column("right %", justify="right")
    table.add_column("most often taken for", overflow="fold")
    for number in chosen:
        cells = (
            trained.classes[number],
            f"{counts[number]:,}",
            f"{100 * measures.by_class[number]:.1f}",
            _taken_for(measures.confusion[number], number, trained.classes),
        )
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    held = ", the test examples of the training" if is_own(trained, data) else ""
    top5 = "" if measures.top5 is None else f", among the {TOP} best guesses {100 * measures.top5:.1f} %"
    say(f"{data}: {100 * measures.accuracy:.1f} % of {len(found.labels):,} examples right{held}{top5} ({trained.kept})")
    if len(measures.by_task) > 1:
        say("; ".join(f"{name} {100 * value:.1f} %" for name, value in measures.by_task.items()))
    if found.left_out:
        names = ", ".join(f"{name} ({count:,})" for name, count in sorted(found.left_out.items()))
        say(f"Classes that the run does not know, whose examples are left out: {names}")
    if found.missing:
        say(f"Classes of the run without an example: {', '.join(found.missing)}")
    if found.problems:
        say(f"{len(found.problems):,} files could not be read:")
    for problem in found.problems:
        say(f"  {problem}")


def _taken_for(row: npt.NDArray[np.int64], number: int, classes: Sequence[str]) -> str:
    others = row.copy()
    others[number] = 0
    worst = int(others.argmax())
    return f"{classes[worst]} ({others[worst]:,})" if others[worst] else ""


def _file_name(data: str) -> str:
    return (re.sub(r"[^\w+-]+", "-", Path(data).resolve().name).strip("-") or "data")[:LONGEST]


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(20)
    return not head or head.startswith(b'{\n "evaluation"')


def _json(found: Labelled, measures: Measures, trained: Trained, data: str) -> dict[str, Any]:
    counts = measures.confusion.sum(axis=1)
    by_class = zip(trained.classes, counts.tolist(), measures.by_class, strict=True)
    return {
        "evaluation": printable(data),
        "run": trained.config.key,
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
        "examples": len(found.labels),
        "accuracy": measures.accuracy,
        "accuracies": measures.by_task,
        "top5": measures.top5,
        "classes": [{"name": name, "examples": count, "accuracy": value} for name, count, value in by_class],
        "confusion_matrix": measures.confusion.tolist(),
        "left_out": found.left_out,
        "missing": list(found.missing),
        "problems": [printable(problem) for problem in found.problems],
        **provenance(),
    }
