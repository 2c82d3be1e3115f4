"""The page: a head, what cannot be read, a section per table of the paper that was asked for, and all runs."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from anystride.lab.errors import UsageError
from anystride.lab.files import replacing
from anystride.lab.models.measure import COUNTER
from anystride.lab.report.collect import Results, Run, collect
from anystride.lab.report.html import grids, runs
from anystride.lab.report.html.assets import SCRIPT, STYLE
from anystride.lab.report.text import counted, printable
from anystride.lab.run.folder import RECORD
from anystride.lab.run.record import Record


@dataclass(frozen=True)
class Page:
    """What came out.

    Args:
        path: the file of the page.
        runs: how many have ended.
        unfinished: how many have not.
        problems: one line for each file that could not be read.
    """

    path: Path
    runs: int
    unfinished: int
    problems: tuple[str, ...]


def report(folder: Path, out: Path) -> Page:
    """Write one page of all runs and tables in a folder. What cannot be read is listed on it.

    Args:
        folder: runs lie in it or up to three levels below, beside what `anystride paper` leaves.
        out: the file of the page.

    Raises:
        UsageError: the folder has no results, or the page cannot be written.
    """
    results = collect(folder)
    text = _page(results, out)
    try:
        with replacing(out) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"--out must be a file in a folder that exists, got {str(out)!r} ({error.strerror})") from None
    return Page(out, len(results.runs), len(results.unfinished), tuple(results.problems))


def _page(results: Results, out: Path) -> str:
    link = _links(results.root, out)
    sections = grids.sections(results, link)
    ended = list(results.runs.values())
    told = (
        "<p>Tables and figures of <cite>Learning Strides in Convolutional Neural Networks</cite> (Riad et al., ICLR "
        "2022), made of this project's records. Small numbers behind a value lead to the record of that seed.</p>"
    )
    body = f"{''.join(section.html for section in sections)}{runs.section(results, link, is_short=bool(sections))}"
    older = sum(run.record.counter != COUNTER for run in ended)
    costs = f" The costs of {counted(older, 'run')} are as an older version counted them." if older else ""
    told_ended = f"{counted(len(ended), 'run')} {'has' if len(ended) == 1 else 'have'} ended."
    unfinished = f" {len(results.unfinished)} have not." if results.unfinished else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>anystride: results</title><style>{STYLE}</style></head><body>"
        f"<h1>Learning strides: what was measured</h1>{told if sections else ''}"
        f"<p>{told_ended}{unfinished}{costs} {escape(_where([run.record for run in ended]))}</p>"
        f"{_problems(results.problems)}{_contents(sections)}{_numbered(body)}"
        f'<div id="tip" role="status"></div><script>{SCRIPT}</script></body></html>\n'
    )


def _numbered(body: str) -> str:
    """Figures with their numbers, in the order of the page."""
    numbers = itertools.count(1)
    return re.sub("<figcaption>", lambda _: f"<figcaption>Figure {next(numbers)}. ", body)


def _links(root: Path, out: Path) -> Callable[[Run], str]:
    """The address of a run's record, as the page sees it."""
    base = os.path.relpath(root, out.parent)

    def link(run: Run) -> str:
        return quote(os.fsencode(Path(base) / run.folder / RECORD))

    return link


def _where(records: list[Record]) -> str:
    def each(values: list[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    commits = each([str(record.commit)[:10] for record in records])
    machines = each(
        [f"{_fact(record.hardware, 'processor')}, GPU {_fact(record.hardware, 'gpu')}" for record in records]
    )
    torches = each([_fact(record.versions, "torch") for record in records])
    return printable(f"Commits {commits}; {machines}; torch {torches}.") if records else ""


def _fact(facts: dict[str, str], name: str) -> str:
    return str(facts.get(name, "unknown"))


def _problems(problems: list[str]) -> str:
    if not problems:
        return ""
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f'<div class="note" id="problems">Left out, as it could not be read:<ul>{items}</ul></div>'


def _contents(sections: list[grids.Section]) -> str:
    if not sections:
        return ""
    items = "".join(f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections)
    return f'<nav><ul>{items}<li><a href="#runs">All runs</a></li></ul></nav>'
