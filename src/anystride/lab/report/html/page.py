"""The page: a head, a section per table or figure that was asked for, and a list of all records."""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anystride.lab.errors import UsageError
from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.paper.catalogue import MEASUREMENTS, RECIPES
from anystride.lab.paper.grid import GRIDS, MEASURED, GridRequest, record_in, run_folder, saved_requests
from anystride.lab.paper.recipe import METHODS, TITLES, Grid
from anystride.lab.report.html import figures
from anystride.lab.report.html.assets import SCRIPT, STYLE
from anystride.lab.report.html.tables import accuracies_and_costs, cost_tables, html_table, value_tables
from anystride.lab.report.text import strides_text
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record


def report(results: Path, out: Path) -> Path:
    """Write one page of all tables whose runs lie in a folder. Missing runs are shown as missing.

    Args:
        results: the folder.
        out: the file of the page.

    Returns:
        The file of the page.

    Raises:
        UsageError: the folder has no results, a record cannot be read, or the page cannot be written.
    """
    recipes = list(RECIPES)
    asked = sorted(
        saved_requests(results) if results.is_dir() else [], key=lambda request: recipes.index(request.recipe)
    )
    measurements = sorted((results / MEASURED).glob("*.json"))
    if not asked and not measurements:
        raise UsageError(f"RESULTS_DIR must hold {GRIDS}/, which 'anystride paper' leaves, got {str(results)!r}")
    text = _page(asked, measurements, results, out)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(out)
    except OSError as error:
        raise UsageError(f"--out must be a file in a folder that exists, got {str(out)!r} ({error.strerror})") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return out


def _page(asked: list[GridRequest], measurements: list[Path], results: Path, out: Path) -> str:
    record_of = record_in(results)
    base = os.path.relpath(results, out.parent)

    def link(run: RunConfig) -> str:
        return quote(f"{base}/{run_folder(Path(), run)}/record.json")

    grids = [(request, request.grid().resolve(record_of)) for request in asked]
    everything = {run: record_of(run) for _, grid in grids for run in grid.runs}
    made = {run: record for run, record in everything.items() if record is not None}
    sections = [_section(request, grid, made, link) for request, grid in grids]
    sections += [_measurement(path) for path in measurements]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>anystride: results</title><style>{STYLE}</style></head><body>"
        "<h1>Learning strides: what was measured</h1>"
        "<p>Tables and figures of <cite>Learning Strides in Convolutional Neural Networks</cite> (Riad et al., ICLR "
        "2022), made of this project's records. Small numbers behind a value lead to the record of that seed.</p>"
        f"<p>{len(made)} of {len(everything)} runs are finished. {escape(_where(list(made.values())))}</p>"
        f"{_contents(grids)}{''.join(sections)}{_records(made, link)}"
        f'<div id="tip" role="status"></div><script>{SCRIPT}</script></body></html>\n'
    )


def _where(records: list[Record]) -> str:
    def each(values: list[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    commits = each([str(record.commit)[:10] for record in records])
    machines = each([f"{record.hardware['processor']}, GPU {record.hardware['gpu']}" for record in records])
    torches = each([str(record.versions["torch"]) for record in records])
    return f"Commits {commits}; {machines}; torch {torches}." if records else ""


def _name(request: GridRequest) -> str:
    short = "" if request.budget == 1 else f", {100 * request.budget:g} % of the epochs"
    changed = "".join(f", {name} {value}" for name, value in request.changes.items())
    return f"{RECIPES[request.recipe].title}: {request.dataset}{short}{changed}"


def _contents(grids: list[tuple[GridRequest, Grid]]) -> str:
    items = "".join(f'<li><a href="#{escape(request.name)}">{escape(_name(request))}</a></li>' for request, _ in grids)
    return f"<nav><ul>{items}</ul></nav>"


def _section(request: GridRequest, grid: Grid, made: dict[RunConfig, Record], link: figures.Link) -> str:
    runs = [(run, made[run]) for run in grid.runs if run in made]
    learned = [(run, record) for run, record in runs if DOWNSAMPLERS[run.method].learns]
    parts = [
        f'<section><h2 id="{escape(request.name)}">{escape(_name(request))}</h2>',
        f"<p>{escape(RECIPES[request.recipe].source)}. {len(runs)} of {len(grid.runs)} runs.</p>",
    ]
    if grid.stands_in_for:
        warning = grid.note
        if any(cell.published for cell in grid.cells):
            warning += f" Published values are those of {grid.stands_in_for}, for orientation only."
        parts.append(f'<p class="note">{escape(warning)}</p>')
    elif grid.note:
        parts.append(f"<p>{escape(grid.note)}</p>")
    protocol = "the stand-in's" if grid.dataset == RECIPES[request.recipe].stand_in else "the paper's"
    parts += [f"<h3>At {protocol} protocol</h3>", value_tables(grid, made.get, link)]
    found = accuracies_and_costs(grid, made.get)
    if len(found) > 1:
        parts += [
            "<h3>At equal multiply-accumulates</h3>",
            cost_tables(found, TITLES["strided"], len({run.data for run in grid.runs}) == 1),
        ]
    if runs:
        parts.append(f'<div class="figures">{_figures(request, runs, learned, link)}</div>')
    return "".join([*parts, "</section>"])


def _figures(request: GridRequest, runs: figures.Runs, learned: figures.Runs, link: figures.Link) -> str:
    drawn = [figures.accuracy_against(runs, link, "cost")]
    if request.recipe == "figure4":
        drawn.append(figures.accuracy_against(runs, link, "J"))
    if learned:
        drawn += [figures.final_strides(learned, link), figures.striding(learned, link)]
    for method in ("outer", "inner", "cosine"):
        mine = [each for each in learned if each[0].method == method]
        if mine:
            drawn += [figures.trajectories(*mine[0]), figures.windows(*mine[0])]
    return "".join(drawn)


def _measurement(path: Path) -> str:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        measurement, settings = MEASUREMENTS[values["recipe"]], values["settings"]
        body = [
            [
                escape(row),
                *(
                    f"{ratios[method]:.2f}"
                    + (f'<span class="known">published {known[method]:.2f}</span>' if method in known else "")
                    for method in METHODS
                ),
            ]
            for row, ratios in values["ratios"].items()
            for known in (values["published"].get(row, {}),)
        ]
        caption = f"Relative to the strided convolution; {settings['device']}, width {settings['width']}, "
        caption += f"batch {settings['batch_size']}; memory: {settings['memory']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is not a readable measurement ({error}); remove it and run again") from error
    heads = ["", *(escape(TITLES[method]) for method in METHODS)]
    title = f"{measurement.title} ({measurement.source})"
    return f"<section><h2>{escape(title)}</h2>{html_table(heads, body, escape(caption))}</section>"


def _records(made: dict[RunConfig, Record], link: figures.Link) -> str:
    body = [
        [
            f'<a href="{escape(link(run), quote=True)}">{escape(run.key)}</a>',
            escape(run.data),
            f"{100 * record.accuracy:.1f}",
            f"{record.multiply_accumulates / 1e6:.1f}",
            escape(strides_text(record.strides)),
            f"{record.seconds['train']:.0f}",
            escape(str(record.commit)[:10]),
        ]
        for run, record in made.items()
    ]
    heads = ["run", "data", "accuracy %", "MMAC", "strides at the end", "s", "commit"]
    table = html_table(heads, body, "Every record on this page")
    return f"<section><h2>Records</h2><details><summary>{len(made)} runs</summary>{table}</details></section>"
