"""`anystride bench`."""

from __future__ import annotations

import argparse
from pathlib import Path

from anystride.lab.commands.common import Commands, console, writable
from anystride.lab.commands.parsing import Parser, whole
from anystride.lab.errors import UsageError

OUT = Path("results/performance")
TABLES = {
    "operator": "operators that halve a map: times the device's limits, and against the FFT (three minutes on a CPU)",
    "network": "Table A.2 again: time, memory and multiply-accumulates of two networks",
    "growth": "a training step against resolution, batch, width and number of learned layers",
    "throughput": "images per second of Table 3's training step, and the hours that its runs take",
    "unit": "a convolution and the operator: one after the other, and as one unit",
    "crossover": "one long axis: a dense matrix against the real FFT",
    "grid": "sizes that follow strides at once, in steps or by epochs: accuracy, compilations (20 minutes on a CPU)",
}
"""Repeats what lies behind slow imports; a test holds them equal."""


def add(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure what the operator costs on this machine",
        description="Measure a table: everything that it compares runs in turn, within one process, in random order. "
        "It is printed, and kept as a record with commit, versions and hardware.",
    )
    tables = parser.add_subparsers(title="tables", metavar="TABLE", required=True, parser_class=Parser)
    for name, text in TABLES.items():
        _add_table(tables, name, text)
    page = tables.add_parser(
        "page",
        help="write the records' tables into a page",
        description="Between marker lines "
        "<!-- bench: TABLE-DEVICE --> and <!-- end -->, put the tables of the records.",
    )
    page.add_argument("page", type=Path, metavar="PAGE", help="a Markdown file, such as docs/performance.md")
    _add_out(page)
    page.set_defaults(command=write_page, prog=page.prog, go_on="the page is as it was")


def _add_table(tables: Commands[Parser], name: str, text: str) -> None:
    parser = tables.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument("--repeats", type=whole(1), metavar="N", help="rounds of each comparison (default: as usual)")
    parser.add_argument("--quick", action="store_true", help="a few tiny cases, to see that it works")
    if name == "network":
        parser.add_argument("--compiled", action="store_true", help="torch.compile, too: minutes of compilation")
    _add_out(parser)
    parser.set_defaults(
        command=execute, table=name, compiled=False, prog=parser.prog, go_on="nothing was written; run it again"
    )


def _add_out(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"folder of the records (default {OUT})")


def execute(options: argparse.Namespace) -> None:
    import torch

    from anystride.lab.bench.base import Setup
    from anystride.lab.bench.catalogue import TABLES
    from anystride.lab.bench.page import record_path
    from anystride.lab.bench.progress import showing_progress
    from anystride.lab.record import write

    present = torch.cuda.is_available()
    if options.device == "cuda" and not present:
        raise UsageError("--device must be cpu where PyTorch sees no GPU, got 'cuda'; leave it out")
    device = torch.device(options.device or ("cuda" if present else "cpu"))
    bench, folder, screen = TABLES[options.table], writable(options.out), console()
    repeats = bench.rounds(device, options.quick, options.repeats)
    with showing_progress(screen) as announce:
        record = bench.record(Setup(device, repeats, options.quick, options.compiled, announce))
    path = record_path(folder, bench.name, device.type)
    write(record.to_json(), path)
    for sheet in bench.sheets(record):
        screen.print(sheet.table())
        for note in sheet.notes:
            screen.print(note, highlight=False, markup=False)
    screen.print(f"In {path}", highlight=False, soft_wrap=True)


def write_page(options: argparse.Namespace) -> None:
    from anystride.lab.bench.page import update

    changed = update(options.page, options.out)
    console().print(f"{options.page} {'was written' if changed else 'is as its records say'}.", highlight=False)
