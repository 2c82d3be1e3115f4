"""A page whose tables, between marker lines, are written from the records."""

from __future__ import annotations

import json
import re
from pathlib import Path

from anystride.lab.bench.catalogue import TABLES
from anystride.lab.bench.record import BenchRecord
from anystride.lab.errors import UsageError

DEVICES = ("cpu", "cuda")
START = re.compile(r"^<!-- bench: *(.*?) *-->$", re.MULTILINE)
BLOCK = re.compile(r"^(<!-- bench: *(.*?) *-->)\n(?:(?!<!-- bench:)[\s\S])*?^(<!-- end -->)$", re.MULTILINE)


def record_path(folder: Path, table: str, device: str) -> Path:
    """Where the record of a table on a type of device lies."""
    return folder / f"{table}-{device}.json"


def fill(text: str, folder: Path) -> str:
    """The text, with what is between `<!-- bench: TABLE-DEVICE -->` and `<!-- end -->` made from the records.

    Raises:
        UsageError: a marker that names no table, has no end or no record, or a record that cannot be read.
    """
    names = START.findall(text)
    blocks = [match[1] for match in BLOCK.findall(text)]
    if not names:
        raise UsageError("PAGE must have a line <!-- bench: TABLE-DEVICE --> and below it <!-- end -->, got neither")
    for name in names:
        if names.count(name) != blocks.count(name):
            raise UsageError(f"the marker <!-- bench: {name} --> has no end; put a line <!-- end --> below it")

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{_rendered(match[2], folder)}\n\n{match[3]}"

    return BLOCK.sub(block, text)


def update(page: Path, folder: Path) -> bool:
    """Fill a page in place, as `fill` does. Returns whether the file changed."""
    try:
        before = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"PAGE must be a readable text file, got {str(page)!r} ({error})") from None
    after = fill(before, folder)
    if after == before:
        return False
    unfinished = page.with_name(f".{page.name}.part")
    unfinished.write_text(after, encoding="utf-8")
    unfinished.replace(page)
    return True


def load(path: Path, table: str) -> BenchRecord:
    """The record of a table; a UsageError says what is wrong with the file."""
    device = path.stem.rpartition("-")[2]
    remedy = f"run: anystride bench {table} --device {device} --out {path.parent}"
    if not path.exists():
        raise UsageError(f"there is no record {str(path)!r}; {remedy}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} is not a readable record ({error}); {remedy}") from None
    try:
        return BenchRecord.from_json(values, table)
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is {error}; {remedy}") from None


def _rendered(name: str, folder: Path) -> str:
    table, _, device = name.rpartition("-")
    if table not in TABLES or device not in DEVICES:
        known = ", ".join(TABLES)
        raise UsageError(f"a marker must name one of {known}, a dash, and {' or '.join(DEVICES)}, got {name!r}")
    return TABLES[table].render(load(record_path(folder, table, device), table))
