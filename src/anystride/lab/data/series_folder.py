"""Which series a folder or a table holds: the examples of each part, with their classes, and what is no series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from anystride.lab.data.series_files import Array, UnreadableError, read_lines, read_series, read_table
from anystride.lab.data.tree import Bad, Files, read_tree, refuse, split_rows
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

TABLES = (".csv", ".npz")
PARTS = {"train": "train", "test": "test", "val": "validation"}
"""Parts by the names of their files and folders."""


@dataclass(frozen=True)
class Example:
    """One series (C, T) as a file has it, its class, and where it stands: a file, and a place in it."""

    values: Array
    label: str
    path: Path
    where: str = ""


@dataclass(frozen=True)
class Found:
    """What a folder or a table holds.

    Args:
        classes: names, sorted.
        parts: examples of "train", "test" and, where the data set some aside, "validation".
        left_out: how many series could not be read.
        unit: what holds one series: "file" or "row".
        note: ends the line that tells the counts.
    """

    classes: tuple[str, ...]
    parts: dict[str, list[Example]]
    left_out: int
    unit: str = "file"
    note: str = ""


def find(path: Path, config: RunConfig) -> Found:
    """Read all series of a folder, of a folder with tables named train, test and val, or of one table.

    Args:
        path: the folder or the table.
        config: says which column is the label, and whether unreadable series are left out.

    Raises:
        UsageError: there are none, or some cannot be read (one message names them all).
    """
    if path.is_file():
        rows, bad = _kept(*_table(path, config.label_column))
        refuse(bad, "series", config.skip_bad)
        classes = _classes(rows, path)
        labels = torch.tensor([classes.index(example.label) for example in rows])
        train, test = ([rows[row] for row in part] for part in split_rows(labels, classes, "series"))
        return Found(classes, {"train": train, "test": test}, len(bad), "row")
    tables = {name: _named(path, name) for name in PARTS}
    return _of_tables(path, tables, config) if tables["train"] else _of_files(path, config)


def row_of(path: Path, label_column: str) -> Array:
    """The series of one file for a network that learned from a table: a table of one row, or a file of its own.

    Raises:
        UnreadableError: it holds another number of series.
    """
    if path.suffix.lower() != ".csv" or not path.is_file():
        return read_series(path)
    try:
        table = read_table(path, label_column)
    except UsageError:  # it has no labels
        lines = read_lines(path)
        return lines if len(lines) == 1 else read_series(path)
    if len(table.rows) != 1 or table.bad:
        raise UnreadableError(table.bad[0] if table.bad else f"it holds {len(table.rows)} series, it must hold one")
    return table.rows[0].values


def channels_text(count: int) -> str:
    return "1 channel" if count == 1 else f"{count:,} channels"


def _table(path: Path, label_column: str) -> tuple[list[Example], Bad]:
    table = read_table(path, label_column)
    return [Example(row.values, row.label, path, row.where) for row in table.rows], [(path, bad) for bad in table.bad]


def _named(folder: Path, name: str) -> Path | None:
    """The table of a part."""
    return next((folder / f"{name}{ending}" for ending in TABLES if (folder / f"{name}{ending}").is_file()), None)


def _of_tables(folder: Path, tables: dict[str, Path | None], config: RunConfig) -> Found:
    if not tables["test"] and not tables["val"]:
        raise UsageError(f"--data {str(folder)!r} has a table train, and neither test nor val; add one of them")
    if not tables["test"]:
        tables = {"train": tables["train"], "test": tables["val"], "val": None}
    parts: dict[str, list[Example]] = {}
    bad: Bad = []
    for name, path in tables.items():
        if path:
            parts[PARTS[name]], unreadable = _table(path, config.label_column)
            bad += unreadable
    parts, bad = _all_kept(parts, bad)
    refuse(bad, "series", config.skip_bad)
    classes = _classes(parts["train"], folder)
    unknown = {example.label for part in parts.values() for example in part} - set(classes)
    if unknown:
        raise UsageError(f"--data tests on classes that train lacks: {', '.join(sorted(unknown))}")
    return Found(classes, parts, len(bad), "row")


def _of_files(folder: Path, config: RunConfig) -> Found:
    tree = read_tree(folder, "series", config.label_pattern)
    files: dict[str, Files] = {"train": tree.train, "test": tree.test}
    if tree.validation:
        files["validation"] = tree.validation
    bad = list(tree.bad)
    parts: dict[str, list[Example]] = {}
    for part, those in files.items():
        parts[part] = []
        for path, label in zip(those.paths, those.labels.tolist(), strict=True):
            try:
                parts[part].append(Example(read_series(path), tree.classes[label], path))
            except UnreadableError as error:
                bad.append((path, str(error)))
    parts, bad = _all_kept(parts, bad)
    refuse(bad, "series", config.skip_bad)
    return Found(tree.classes, parts, len(bad), note=tree.passed_over)


def _classes(examples: Sequence[Example], path: Path) -> tuple[str, ...]:
    classes = tuple(sorted({example.label for example in examples}))
    if len(classes) < 2:
        raise UsageError(f"--data needs at least two classes, and {str(path)!r} has {len(classes)}")
    return classes


def _kept(examples: list[Example], bad: Bad) -> tuple[list[Example], Bad]:
    parts, more = _all_kept({"": examples}, bad)
    return parts[""], more


def _all_kept(parts: dict[str, list[Example]], bad: Bad) -> tuple[dict[str, list[Example]], Bad]:
    """The examples with as many channels as most have; the others count as unreadable."""
    counts = Counter(len(example.values) for part in parts.values() for example in part)
    if len(counts) < 2:
        return parts, bad
    usual = counts.most_common(1)[0][0]
    others = [
        (
            each.path,
            f"{each.where}{': ' if each.where else ''}it has {channels_text(len(each.values))}, most have {usual}",
        )
        for part in parts.values()
        for each in part
        if len(each.values) != usual
    ]
    return {name: [each for each in part if len(each.values) == usual] for name, part in parts.items()}, [*bad, *others]
