"""Series out of files: what a `.npy`, `.npz` or `.csv` holds, and why one holds none. Nothing is unpickled."""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from anystride.lab.errors import UsageError

Array = npt.NDArray[Any]

DELIMITERS = ("\t", ";", ",")
"""Between the cells of a `.csv`: the first of these that its first line has."""
LARGEST = 2**31
"""Bytes of one array in a compressed `.npz`, at most: a small file may well unpack to more than the memory."""
STRANGERS = {"O": "Python objects", "U": "strings", "S": "strings", "c": "complex numbers", "V": "records"}
"""What an array may hold instead of numbers, by numpy's kind."""
SHOWN = 60
"""Characters of a value or of another program's message."""


class UnreadableError(Exception):
    """A file, or a part of it, is no series; the message says why."""


@dataclass(frozen=True)
class Row:
    """A series of a table: `values` (C, T), its `label`, and `where` it stands, as in `line 7`."""

    values: Array
    label: str
    where: str


@dataclass(frozen=True)
class Table:
    """The `rows` of a file that can be read, and for each of the others where it stands and why."""

    rows: list[Row]
    bad: list[str]


def read_series(path: Path) -> Array:
    """The one series of a file, (C, T), of finite numbers.

    `.npy` and `.npz` hold one array, (T,) or (C, T). `.csv` has a sample per line and a column per channel; its first
    line may name the columns.

    Raises:
        UnreadableError: it holds none, or something else.
    """
    try:
        if path.suffix.lower() == ".csv":
            return checked(read_lines(path).T)
        if path.suffix.lower() == ".npz":
            arrays = _arrays(path)
            if len(arrays) != 1:
                raise UnreadableError(f"it must hold one array and holds {len(arrays)}: {', '.join(arrays) or 'none'}")
            return checked(next(iter(arrays.values())))
        with path.open("rb") as file:
            return checked(_array(file, path.stat().st_size))
    except UnreadableError:
        raise
    except Exception as error:  # damaged files make the readers fail in many ways
        raise UnreadableError(_reason(error)) from error


def read_table(path: Path, label_column: str) -> Table:
    """The series of a table: a `.csv` with one per line, or an `.npz` with `x` (N, T) or (N, C, T) and labels (N,).

    Args:
        path: the file.
        label_column: the column with the labels, or the array; an `.npz` without it may call them `y`.

    Raises:
        UsageError: the file is no such table, or has no such column.
    """
    try:
        if path.suffix.lower() == ".csv":
            return _csv_table(path, label_column)
        if path.suffix.lower() == ".npz":
            return _npz_table(path, label_column)
        raise UnreadableError("one file with all series is a .csv or an .npz; for others, give their folder")
    except UsageError:
        raise
    except UnreadableError as error:
        raise UsageError(f"--data {str(path)!r} is not a readable table of series ({error})") from None
    except Exception as error:  # as above
        raise UsageError(f"--data {str(path)!r} is not a readable table of series ({_reason(error)})") from error


def checked(values: Array) -> Array:
    """An array as a series (C, T) of float32, or of float64 where its own numbers need them.

    Raises:
        UnreadableError: it has another shape, or holds anything but finite numbers.
    """
    _check_numbers(values)
    if values.ndim not in (1, 2):
        raise UnreadableError(f"it has the shape {values.shape}, it must be (samples,) or (channels, samples)")
    values = np.atleast_2d(values)
    channels, samples = values.shape
    if not values.size:
        raise UnreadableError("it is empty")
    if channels > samples:
        raise UnreadableError(
            f"it has {channels:,} channels of {samples:,} samples: fewer samples than channels; exchange its axes"
        )
    values = values.astype(np.result_type(values.dtype, np.float32))
    if not np.isfinite(values).all():
        raise UnreadableError("it holds NaN or infinite values")
    if np.abs(values).max() > np.finfo(np.float32).max:
        raise UnreadableError("it holds numbers that are too large for float32")
    return values


def read_lines(path: Path) -> Array:
    """All numbers of a `.csv`, (lines, columns), without the line that names the columns.

    The first line names the columns if it has anything but numbers.

    Raises:
        UnreadableError: a cell holds no number, or a line has another number of cells than the first one.
    """
    found: list[Array] = []
    width = 0
    for line, cells in _lines(path):
        width = width or len(cells)
        if len(cells) != width:
            raise UnreadableError(f"line {line} has {len(cells)} cells, the first one has {width}")
        if not found and line == 1 and any(cell.strip() and not _is_number(cell) for cell in cells):
            continue
        found.append(_numbers(cells, line))
    if not found:
        raise UnreadableError("it has no line of numbers")
    return np.stack(found)


def _csv_table(path: Path, label_column: str) -> Table:
    lines = _lines(path)
    columns = [cell.strip() for cell in next(lines, (0, []))[1]]
    if columns.count(label_column) != 1:
        shown = ", ".join(column[:SHOWN] for column in columns[:5]) + (", ..." if len(columns) > 5 else "")
        raise UsageError(
            f"--label-column must be one of the columns that the first line of {str(path)!r} names, "
            f"got {label_column!r}; it has {shown or 'none'}"
        )
    at, rows, bad = columns.index(label_column), [], []
    for line, cells in lines:
        try:
            if len(cells) != len(columns):
                raise UnreadableError(f"line {line} has {len(cells)} cells, the first one has {len(columns)}")
            label = cells.pop(at).strip()
            if not label:
                raise UnreadableError(f"line {line} has no label")
            rows.append(Row(checked(_numbers(cells, line)), label, f"line {line}"))
        except UnreadableError as error:
            reason = str(error)
            bad.append(reason if reason.startswith("line") else f"line {line}: {reason}")
    return Table(rows, bad)


def _npz_table(path: Path, label_column: str) -> Table:
    arrays = _arrays(path, limited=False)
    names = (label_column, "y")
    label_name = next((name for name in names if name in arrays), None)
    if "x" not in arrays or label_name is None or label_name == "x":
        wanted = " or ".join(map(repr, dict.fromkeys(names)))
        raise UnreadableError(f"it must hold the arrays 'x' and {wanted}, and holds {', '.join(arrays) or 'none'}")
    x, y = arrays["x"], arrays[label_name]
    _check_numbers(x)
    if x.ndim not in (2, 3):
        raise UnreadableError(
            f"'x' has the shape {x.shape}, it must be (series, samples) or (series, channels, samples)"
        )
    if y.shape != x.shape[:1]:
        raise UnreadableError(
            f"{label_name!r} has the shape {y.shape}, it must have a label for each of {len(x):,} series"
        )
    rows, bad = [], []
    for number, (values, label) in enumerate(zip(x, _labels(y, label_name), strict=True)):
        try:
            rows.append(Row(checked(values), label, f"series {number}"))
        except UnreadableError as error:
            bad.append(f"series {number}: {error}")
    return Table(rows, bad)


def _labels(y: Array, name: str) -> list[str]:
    if y.dtype.kind == "f" and np.array_equal(y, np.rint(y)):
        y = y.astype(np.int64)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind not in "biuU":
        raise UnreadableError(f"{name!r} must hold whole numbers or strings, the labels")
    return [str(label) for label in y.tolist()]


def _arrays(path: Path, limited: bool = True) -> dict[str, Array]:
    """All arrays of an `.npz` by name, without running anything that it may hold."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if limited and info.file_size > LARGEST:
                raise UnreadableError(f"{info.filename!r} unpacks to more than {LARGEST // 2**30} GiB")
            with archive.open(info) as stream:
                found[info.filename.removesuffix(".npy")] = _array(stream, info.file_size)
    return found


def _array(stream: IO[bytes], size: int) -> Array:
    """The array in a stream of `size` bytes. Its header is read first: it may announce anything."""
    versions = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in versions:
        raise UnreadableError("it holds records, not numbers")  # only names of fields need version 3
    shape, _, dtype = versions[version](stream)
    if dtype.hasobject:
        raise UnreadableError("it holds Python objects, which are not unpickled")
    # A length that is below zero would make numpy read on.
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize > size - stream.tell():
        raise UnreadableError(f"its header announces the shape {shape}, for which the file is too short")
    stream.seek(0)
    values: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return values


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line of a `.csv` that is not empty, with its number, which counts from 1."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next((line for line in file if line.strip()), "")
        file.seek(0)
        delimiter = next((mark for mark in DELIMITERS if mark in first), DELIMITERS[-1])
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        for cells in reader:
            if len(cells) > 1 or "".join(cells).strip():
                yield reader.line_num, cells


def _numbers(cells: Sequence[str], line: int) -> Array:
    try:
        return np.array([float(cell) for cell in cells])
    except ValueError:
        wrong = next(cell for cell in cells if not _is_number(cell)).strip()
        reason = f"{wrong[:SHOWN]!r} is not a number" if wrong else "a cell is empty"
        raise UnreadableError(f"line {line}: {reason}") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _check_numbers(values: Array) -> None:
    if values.dtype.kind not in "biuf":
        raise UnreadableError(f"it holds {STRANGERS.get(values.dtype.kind, 'dates')}, not numbers")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, MemoryError):
        return "it is larger than the memory"
    return (str(error).splitlines() or [type(error).__name__])[0][:SHOWN]
