"""How the table of operators is shown: the limits of the device, a summary, and each size."""

from __future__ import annotations

from typing import Any

from anystride.lab.bench import limits
from anystride.lab.bench.contestants import SHORT, TITLES
from anystride.lab.bench.limits import MIB
from anystride.lab.bench.record import BenchRecord
from anystride.lab.bench.sheet import Sheet, factor, millions, milliseconds

PASSES = ("forward", "both")
LARGE = 8 * MIB
"""Input bytes from which a map counts as large."""


def sheets(record: BenchRecord) -> list[Sheet]:
    """The limits, a summary, and for each type and layout times the floor and speed against the FFT."""
    kinds = dict.fromkeys((row["dtype"], row["layout"]) for row in record.rows)
    found = [*limits.sheets(record.found["limits"]), _summary_sheet(record, list(kinds))]
    for dtype, layout in kinds:
        rows = [row for row in record.rows if (row["dtype"], row["layout"]) == (dtype, layout)]
        found += [_floor_sheet(rows, f"{dtype}, {layout}"), _speed_sheet(rows, f"{dtype}, {layout}")]
    return found


def _pair(first: float | None, second: float | None) -> str:
    return "-" if first is None and second is None else f"{factor(first)} / {factor(second)}"


def _summary_sheet(record: BenchRecord, kinds: list[tuple[str, str]]) -> Sheet:
    by_key = {(row["dtype"], row["layout"], row["contestant"], row["pass"]): row for row in record.found["summary"]}
    rows = []
    for dtype, layout in kinds:
        for name, title in TITLES.items():
            forward, both = (by_key[dtype, layout, name, way] for way in PASSES)
            lowest = "x".join(map(str, both["lowest_at"] or ()))
            rows.append(
                (
                    dtype,
                    layout,
                    title,
                    _pair(forward["mean_speed"], both["mean_speed"]),
                    _pair(forward["lowest_speed"], both["lowest_speed"]) + (f" ({lowest})" if lowest else ""),
                    _pair(forward["of_floor_large"], both["of_floor_large"]),
                )
            )
    columns = ("type", "layout", "operator", "speed, mean", "speed, lowest (at)", "times the floor, large maps")
    note = (
        "Forward / forward and backward. Speed is relative to DiffStride by FFT, means are geometric; large maps have "
        f"{LARGE // MIB} MiB or more. The FFT transforms half precision in float32 and converts back, as it must."
    )
    return Sheet("All sizes", columns, tuple(rows), 3, (note,))


def _floor_sheet(rows: list[dict[str, Any]], kind: str) -> Sheet:
    cells = []
    for row in rows:
        entries = row["contestants"]
        outer = entries["outer"]
        measured = (
            (f"{outer['bytes'] / MIB:.1f}", millions(outer["macs"]), milliseconds(outer["forward_floor"]))
            if outer["forward"]
            else ("-", "-", "-")
        )
        cells.append((_place(row), *measured, *(_both(entries[name], "of_floor") for name in TITLES)))
    columns = ("map", "MiB moved", "MMAC", "floor, ms", *SHORT.values())
    note = (
        "Forward / forward and backward, each as a multiple of its own floor. Bytes, MMAC and floor: DiffStride outer."
    )
    refused = [
        f"{TITLES[name]} at {_place(row)}: {entry['reason']}"
        for row in rows
        for name, entry in row["contestants"].items()
        if entry.get("reason")
    ]
    notes = (note, *([f"Not measured: {'; '.join(refused)}."] if refused else []))
    return Sheet(f"Times the floor: {kind}", columns, tuple(cells), notes=notes)


def _speed_sheet(rows: list[dict[str, Any]], kind: str) -> Sheet:
    cells = [
        (
            _place(row),
            _both(row["contestants"]["fft"], "seconds", 1e3),
            *(_both(row["contestants"][name], "speed") for name in TITLES if name != "fft"),
        )
        for row in rows
    ]
    others = [title for name, title in SHORT.items() if name != "fft"]
    columns = ("map", "FFT, ms", *others)
    return Sheet(f"Speed relative to DiffStride by FFT: {kind}", columns, tuple(cells))


def _place(row: dict[str, Any]) -> str:
    return f"{row['group']} {'x'.join(map(str, row['shape']))}"


def _both(entry: dict[str, Any], key: str, scale: float = 1.0) -> str:
    values = [scale * entry[way][key] if entry[way] and entry[way][key] else None for way in PASSES]
    return _pair(*values)
