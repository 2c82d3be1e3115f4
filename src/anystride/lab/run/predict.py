"""The command that classifies files by a trained network."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anystride.lab.data.inputs import kind
from anystride.lab.data.meter import progress
from anystride.lab.data.names import is_there
from anystride.lab.data.tree import list_files, printable
from anystride.lab.errors import UsageError
from anystride.lab.files import check_place, is_folder, replacing
from anystride.lab.record import finite_or_none, write
from anystride.lab.trained import Prediction, Trained, open_run

OUT = "predictions.csv"
ENDINGS = (".csv", ".json")
COLUMNS = ("file", "class", "probability", "second", "second_probability", "problem")
"""The first columns of a table in a file; a column for each class follows, with its probability."""
ROWS = 50
"""Files that the table on the screen shows; all of them are in the file."""


@dataclass(frozen=True)
class Row:
    """One file: its prediction, or the problem with it."""

    path: Path
    outcome: Prediction | UsageError

    @property
    def name(self) -> str:
        """The file's name for people."""
        return printable(str(self.path))


def predict(
    run: Path, files: Iterable[Path], out: Path | None, console: Console, *, task: str = "", overwrite: bool = False
) -> int:
    """Classify files, show a table, and write it with all probabilities.

    Args:
        run: the folder of the run.
        files: files, and folders of files.
        out: where the table is written, by its ending in CSV or JSON; None for the run's folder.
        console: where it is shown.
        task: of a run on several tasks, the one whose classes are meant.
        overwrite: whether `out` may hold something else than predictions.

    Returns:
        The exit code: 1 if some files could not be read.

    Raises:
        UsageError: there is no run, its data were not files, there is no file, or `out` cannot be written to.
    """
    trained = open_run(run)
    trained = trained.of_task(task) if task else trained
    place = out or trained.checkpoint.parent / OUT
    if place.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out must end in {' or '.join(ENDINGS)}, got {str(place)!r}")
    check_place(place, _is_ours, overwrite)
    rows = classify(trained, files)
    problems = sum(isinstance(row.outcome, UsageError) for row in rows)
    if problems < len(rows):
        _save(rows, trained, place)
    _show(rows, trained, console)
    last = f"All probabilities: {printable(str(place))}" if problems < len(rows) else "Nothing was written."
    console.print(last, highlight=False, markup=False, soft_wrap=True)
    return 1 if problems else 0


def classify(trained: Trained, files: Iterable[Path]) -> list[Row]:
    """Classify files and the files in folders.

    Raises:
        UsageError: a folder has no file of the run's kind, or the run's data were not files.
    """
    name = kind(trained.preprocessing)
    paths: list[Path] = []
    bad: list[Row] = []
    for path in files:
        if not is_folder(path):
            if is_there(str(path)):
                paths.append(path)
            else:
                bad.append(Row(path, UsageError(f"{str(path)!r} does not exist")))
            continue
        found, strange = list_files(path, name)
        if not found and not strange:
            raise UsageError(f"FILE {str(path)!r} is a folder without {name} files; name others")
        paths += found
        bad += [Row(each, UsageError(f"{str(each)!r} is {reason}")) for each, reason in strange]
    rows = []
    with progress("classifying", len(paths)) as advance:
        for path, outcome in zip(paths, trained.attempts(paths), strict=True):
            rows.append(Row(path, outcome))
            advance(1)
    return [*rows, *bad]


def second(prediction: Prediction, classes: Sequence[str]) -> tuple[str, float]:
    """The second best class and its probability; an empty name where there is a single class."""
    order = sorted(range(len(classes)), key=lambda number: -prediction.probabilities[number])
    others = [number for number in order if classes[number] != prediction.label]
    return (classes[others[0]], prediction.probabilities[others[0]]) if others else ("", 0.0)


def _show(rows: Sequence[Row], trained: Trained, console: Console) -> None:
    for note in trained.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    read = [(row.name, row.outcome) for row in rows if isinstance(row.outcome, Prediction)]
    table = Table(title=f"Classes by the {trained.kept}", title_justify="left", title_style="bold")
    table.add_column("file", overflow="fold")
    for name in ("class", "second best"):
        table.add_column(name, overflow="fold")
        table.add_column("%", justify="right")
    for name, outcome in read[:ROWS]:
        other, probability = second(outcome, trained.classes)
        cells = (name, outcome.label, f"{100 * outcome.probability:.1f}", other, f"{100 * probability:.1f}")
        table.add_row(*(Text(cell) for cell in cells))
    if read:
        console.print(table)
    if len(read) > ROWS:
        console.print(f"and {len(read) - ROWS:,} more files", highlight=False)
    problems = [row.outcome for row in rows if isinstance(row.outcome, UsageError)]
    if problems:
        console.print(f"{len(problems):,} of {len(rows):,} files could not be read:", highlight=False)
    for problem in problems:
        console.print(f"  {printable(str(problem))}", highlight=False, markup=False, soft_wrap=True)


def _is_ours(path: Path) -> bool:
    """Whether a file holds predictions, or nothing."""
    with path.open("rb") as file:
        head = file.read(200).decode("utf-8", "replace").lstrip()
    return not head or head.startswith((",".join(COLUMNS), '{\n "predictions"'))


def _save(rows: Sequence[Row], trained: Trained, path: Path) -> None:
    if path.suffix.lower() == ".json":
        write(finite_or_none(_json(rows, trained)), path)
        return
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS, *(f"p({name})" for name in trained.classes)])
        for row in rows:
            if isinstance(row.outcome, UsageError):
                table.writerow([row.name, "", "", "", "", printable(str(row.outcome)), *("" for _ in trained.classes)])
                continue
            label, probability, probabilities = row.outcome
            other = second(row.outcome, trained.classes)
            table.writerow([row.name, label, probability, *other, "", *probabilities])


def _json(rows: Sequence[Row], trained: Trained) -> dict[str, Any]:
    predictions, problems = [], []
    for row in rows:
        if isinstance(row.outcome, UsageError):
            problems.append({"file": row.name, "problem": printable(str(row.outcome))})
            continue
        label, probability, probabilities = row.outcome
        other, its_probability = second(row.outcome, trained.classes)
        predictions.append(
            {
                "file": row.name,
                "class": label,
                "probability": probability,
                "second": other,
                "second_probability": its_probability,
                "probabilities": dict(zip(trained.classes, probabilities, strict=True)),
            }
        )
    return {
        "predictions": predictions,
        "problems": problems,
        "run": trained.config.key,
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
        "classes": list(trained.classes),
    }
