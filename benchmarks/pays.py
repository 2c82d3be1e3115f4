"""The tables and the picture of docs/pays.md and of the README's head, and the real data's of other pages.

    python benchmarks/pays.py            # writes them
    python benchmarks/pays.py --check    # only says whether they are what the records say

Everything comes from the records in results/real, which are those of `anystride paper RECIPE --data cifar10-jpeg` and
`--data spoken-digits`. A run of the first that was made with `--precision 32-true` alone is marked: †.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.front import FITTED, Point, best_within, points
from anystride.lab.paper.grid import record_in
from anystride.lab.paper.pareto import BUDGETS, LEARNED
from anystride.lab.paper.recipe import MEAN, Cell, both
from anystride.lab.paper.values import measured
from anystride.lab.report.pareto import draw
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record

ROOT = Path(__file__).parents[1]
REAL = ROOT / "results" / "real"
PICTURE = REAL / "pareto-cifar10-jpeg.png"
PAGES = (ROOT / "docs" / "pays.md", ROOT / "README.md", ROOT / "docs" / "paper.md", ROOT / "docs" / "convert.md")
HEADING = "CIFAR-10 (JPEG), ResNet-18 of width 8, 6 epochs"
SHORT = ((3, 2, 3), (2, 2, 2), (1, 2, 2))
"""The budgets of the README's three lines."""
GRIDS = (
    ("table3", "cifar10-jpeg"),
    ("figure4", "cifar10-jpeg"),
    ("table-a3", "cifar10-jpeg"),
    ("table-a5", "cifar10-jpeg"),
    ("table1", "spoken-digits"),
    ("table2", "spoken-digits"),
    ("table-a7", "spoken-digits"),
)
"""Tables of the paper on real data."""
FLOAT32 = "32-true"
"""The precision of some runs, made on a processor without bfloat16: marked by †."""
RECOVERED = {"photographs": "EfficientNet-lite0, 250 photographs", "cifar10": "ResNet-20, CIFAR-10 (JPEG)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    found = points(RECIPES["pareto"].grid("cifar10-jpeg"), record_of)
    blocks = made(found)
    wrong = []
    for page in PAGES:
        before = page.read_text()
        after = filled(before, blocks)
        if after != before:
            wrong.append(page.name)
            if not options.check:
                page.write_text(after)
    if not options.check:
        draw(found, PICTURE, HEADING)
    print(f"changed: {', '.join(wrong)}" if wrong else "nothing changed")
    sys.exit(options.check and bool(wrong))


def record_of(run: RunConfig) -> Record | None:
    """The record of a run, else of the same run in float32."""
    return record_in(REAL)(run) or record_in(REAL)(replace(run, precision=FLOAT32))


def made(found: Sequence[Point]) -> dict[str, str]:
    """The text of each block."""
    return {
        "budgets": budgets(found, BUDGETS),
        "three": budgets(found, SHORT),
        "shifts": shifts(found),
        "search": search(found),
        "learning": learning(),
        **{f"recover {task}": recovered(task) for task in RECOVERED},
        **{f"{recipe} {dataset}": compared(recipe, dataset) for recipe, dataset in GRIDS},
    }


def filled(page: str, blocks: dict[str, str]) -> str:
    """A page with the text between its markers exchanged."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{blocks[match[1]]}\n<!-- end -->"

    names = "|".join(re.escape(name) for name in blocks)
    return re.sub(rf"<!-- ({names}) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def budgets(found: Sequence[Point], chosen: Sequence[tuple[int, ...]]) -> str:
    """Who is how good within which budget; the best of a line is bold."""
    lines = _head(found)
    for limit, row in _within(found, chosen):
        best = max((point.accuracy for point in row if point), default=0.0)
        lines.append(f"| {limit / 1e6:.1f} | {' | '.join(_text(point, best) for point in row)} |")
    return "\n".join(lines)


def shifts(found: Sequence[Point]) -> str:
    """How often the networks of `budgets` say the same class of two shifts of an image; the best of a line is bold."""
    measured = json.loads((REAL / "shifts.json").read_text())["consistency"]

    def shares(point: Point | None) -> list[float]:
        runs = [replace(point.config, seed=seed).key for seed in range(point.seeds)] if point else []
        return [100 * measured[run] for run in runs if run in measured]

    lines = _head(found)
    for limit, row in _within(found, BUDGETS):
        values = [shares(point) for point in row]
        best = max(map(statistics.fmean, filter(None, values)))
        marks = [_mark(point.config) if point else "" for point in row]
        texts = [_share(value, best) + mark for value, mark in zip(values, marks, strict=True)]
        lines.append(f"| {limit / 1e6:.1f} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _share(values: Sequence[float], best: float) -> str:
    if not values:
        return "-"
    mean = statistics.fmean(values)
    text = f"{mean:.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
    return f"**{text}**" if mean == best else text


def _head(found: Sequence[Point]) -> list[str]:
    count = sum(point.series == "strided" for point in found)
    names = f"best of {count} strided | spectral pooling | fitted, not learned | learned `cosine` | learned `inner`"
    return [f"| at most, MMAC | {names} |", "|---|---|---|---|---|---|"]


def _within(
    found: Sequence[Point], chosen: Sequence[tuple[int, ...]]
) -> Iterator[tuple[float, tuple[Point | None, ...]]]:
    """Each budget in multiply-accumulates and, by the columns of `_head`, the best network within it."""
    pairs = {(point.config.budget_strides, point.series): point for point in found if point.config.budget_macs}
    fixed = {series: [point for point in found if point.series == series] for series in ("strided", "spectral")}
    limits = {point.config.strides: point.macs for point in fixed["strided"]}
    for strides in map(both, chosen):
        if strides in limits:
            best = (best_within(fixed[series], limits[strides]) for series in fixed)
            yield limits[strides], (*best, *(pairs.get((strides, series)) for series in (FITTED, *LEARNED)))


def _text(point: Point | None, best: float) -> str:
    if point is None:
        return "-"
    spread = "" if point.sd is None else f" ± {point.sd:.1f}"
    number = f"{point.accuracy:.1f}{spread}"
    number = f"**{number}**" if point.accuracy == best else number
    where = "" if point.config.budget_macs else f", {point.name}"
    return f"{number} at {point.macs / 1e6:.1f}{where}{_mark(point.config)}"


def _mark(*configs: RunConfig) -> str:
    return " †" if any(config.precision == FLOAT32 for config in configs) else ""


def search(found: Sequence[Point]) -> str:
    """What the search takes, and what one learned run takes."""
    strided = [point for point in found if point.series == "strided"]
    lines = ["| | runs | hours on one core |", "|---|---|---|"]
    lines.append(f"| all strides of {{1, 2, 3}}³ by hand | {len(strided)} | {sum(p.hours for p in strided):.1f} |")
    names = {FITTED: "fitted, not learned"} | {method: f"learned, `{method}`" for method in LEARNED}
    for series, name in names.items():
        mine = [point for point in found if point.series == series and not _mark(point.config)]
        if mine:
            lines.append(f"| {name}, one budget | 1 | {sum(p.hours for p in mine) / len(mine):.2f} |")
    return "\n".join(lines)


def learning() -> str:
    """How strides learn best, as it was chosen on half of the training data."""
    grid = RECIPES["learning"].grid("cifar10-jpeg", seeds=1)
    cells = {(cell.row, cell.column): cell for cell in grid.cells if cell.value == "validation"}
    columns = list(dict.fromkeys(column for _, column in cells))
    lines = [f"| strides | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for row in dict.fromkeys(row for row, _ in cells):
        texts = []
        for column in columns:
            record = record_of(cells[row, column].runs[0]) if (row, column) in cells else None
            measured = record is not None and record.validation_accuracy is not None
            texts.append(
                f"{100 * record.validation_accuracy:.1f} at {record.multiply_accumulates / 1e6:.1f}"
                if measured
                else "-"
            )
        lines.append(f"| {row} | {' | '.join(texts)} |")
    return "\n".join(lines)


def compared(recipe: str, dataset: str) -> str:
    """What a recipe's table has of accuracies, each with its cost, or of strides; a table per panel."""
    cells = [
        cell
        for cell in RECIPES[recipe].grid(dataset).resolve(record_of).cells
        if (recipe == "table2" or cell.value.startswith("accurac")) and any(record_of(run) for run in cell.runs)
    ]
    tables = []
    for panel in dict.fromkeys(cell.panel for cell in cells):
        chosen = {(cell.row, cell.column): cell for cell in cells if cell.panel == panel}
        columns = list(dict.fromkeys(column for _, column in chosen))
        lines = [f"| {panel} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        for row in dict.fromkeys(row for row, _ in chosen):
            texts = [_measured(chosen.get((row, column)), row) for column in columns]
            lines.append(f"| {row} | {' | '.join(texts)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables) or "Not measured."


def _measured(cell: Cell | None, row: str) -> str:
    if cell is None:
        return ""
    starts = {replace(run, seed=0) for run in cell.runs}
    if starts != {replace(run, seed=0) for run in cell.runs if record_of(run) is not None}:
        return "-"
    found, rate = measured(cell, record_of), cell.value.startswith("accurac")
    digits = 1 if rate else 2
    spread = "" if found.sd is None else f" ± {found.sd:.{digits}f}"
    records = [(run, record) for run in cell.runs if (record := record_of(run)) is not None]
    costs = [record.multiply_accumulates / 1e6 for _, record in records]
    where = f" at {statistics.fmean(costs):.1f}" if rate and row != MEAN else ""
    mark = _mark(*(record.config for run, record in records if run.precision != FLOAT32))
    return f"{found.mean:.{digits}f}{spread}{where}{mark}"


def recovered(task: str) -> str:
    """Accuracies of a trained network after conversion."""
    path = REAL / f"recover-{task}.json"
    if not path.is_file():
        return "Not measured."
    record: dict[str, Any] = json.loads(path.read_text())
    found = record["accuracy"]
    before, unconverted = found.pop("before"), found.pop("unconverted", {})
    variants = list(found)
    lines = [
        f"| {RECOVERED[task]}: {100 * before:.1f} % before | {' | '.join(variants)} |",
        f"|---|{'---|' * len(variants)}",
    ]

    def line(name: str, values: Sequence[float]) -> None:
        lines.append(f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |")

    line("converted", [found[v]["converted"] for v in variants])
    for count in found[variants[0]]["recalibrated"]:
        line(f"recalibrated on {int(count):,} images", [found[v]["recalibrated"][count] for v in variants])
    for way in ("distilled", "fine-tuned"):
        for steps in found[variants[0]].get(way, {}):
            taught = [found[v][way][steps] for v in variants]
            name = f"{way} with {taught[0]['images']:,} images{'' if way == 'fine-tuned' else ' without labels'}"
            if way in unconverted:
                name += f" (the unconverted network: {100 * unconverted[way][steps]['accuracy']:.1f})"
            line(name, [each["accuracy"] for each in taught])
    return "\n".join(lines)


if __name__ == "__main__":
    main()
