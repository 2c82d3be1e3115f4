"""The section about all runs: a table, accuracy against cost, and how strides moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.report.collect import Results, Run
from anystride.lab.report.html import figures
from anystride.lab.report.html.tables import html_table
from anystride.lab.report.text import printable, strides_text

OPEN, MOST = 8, 60
"""Figures of strides that are seen at once, and all of them."""
HEADS = (
    "run", "data", "network", "downsampler", "strides at the start", "strides at the end", "test accuracy %",
    "validation accuracy %", "MMAC per example", "seconds", "commit",
)  # fmt: skip


def section(results: Results, link: Callable[[Run], str], is_short: bool) -> str:
    """The section.

    Args:
        results: everything in the folder.
        link: the address of a run's record.
        is_short: whether the table is folded, and runs that belong to a table of the paper have no figures here.
    """
    ended = list(results.runs.values())
    if not ended:
        return ""
    table = html_table(
        [escape(head) for head in HEADS], [_row(run, link) for run in ended], "A name leads to the record"
    )
    if is_short:
        table = f"<details><summary>{len(ended)} runs</summary>{table}</details>"
    others = [run for run in ended if not _is_of_a_table(run, results)]
    shown = [figures.Shown(run.record.config, run.record, link(run), _name(run)) for run in others]
    return f'<section><h2 id="runs">All runs</h2>{table}{_figures(shown)}</section>'


def _is_of_a_table(run: Run, results: Results) -> bool:
    """Whether a run lies where a table of the paper finds it."""
    homes = {table.home for table in results.tables}
    return any(results.run_of(home, run.record.config) is run for home in homes)


def _row(run: Run, link: Callable[[Run], str]) -> list[str]:
    record, config = run.record, run.record.config
    validation = "" if record.validation_accuracy is None else f"{100 * record.validation_accuracy:.1f}"
    return [
        f'<a href="{escape(link(run))}">{escape(_name(run))}</a>',
        escape(_data(config.data)),
        escape(f"{config.model}, width {config.width}"),
        escape(DOWNSAMPLERS[config.method].title),
        escape(strides_text(record.start_strides)),
        escape(strides_text(record.strides)),
        f"{100 * record.accuracy:.1f}",
        validation,
        f"{record.multiply_accumulates / 1e6:.1f}",
        f"{record.seconds['train']:.0f}",
        escape(printable(str(record.commit)[:10])),
    ]


def _name(run: Run) -> str:
    return printable(str(run.folder)) if run.folder.parts else "this folder"


def _data(data: str) -> str:
    return printable(Path(data).name or data)


def _figures(shown: Sequence[figures.Shown]) -> str:
    """Accuracies of one data set and number of epochs compare; others do not stand in one figure."""
    parts = []
    by_data: dict[str, list[figures.Shown]] = {}
    for each in shown:
        by_data.setdefault(each.config.data, []).append(each)
    if by_data:
        drawn = [figures.accuracy_against(runs, "cost", f" on {_data(data)}") for data, runs in by_data.items()]
        parts.append(f'<h3>Accuracy against cost</h3><div class="figures">{"".join(drawn)}</div>')
    learned = [each for each in shown if DOWNSAMPLERS[each.config.method].learns]
    if learned:
        drawn = [figures.trajectories(each) for each in learned[:MOST]]
        parts.append(f'<h3>How strides moved</h3><div class="figures">{"".join(drawn[:OPEN])}</div>')
        if len(drawn) > OPEN:
            more = "".join(drawn[OPEN:])
            parts.append(
                f'<details><summary>{len(drawn) - OPEN} more</summary><div class="figures">{more}</div></details>'
            )
        if len(learned) > MOST:
            parts.append(f"<p>The first {MOST} of {len(learned)} learned runs are shown.</p>")
    return "".join(parts)
