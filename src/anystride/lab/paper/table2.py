"""Table 2: the strides that the first layer of the audio networks learns, and the cut-off frequencies they stand for.

Its runs are the DiffStride runs of Table 1.
"""

from __future__ import annotations

from dataclasses import replace

from anystride.lab.paper.protocols import AUDIO_ALL, AUDIO_TASKS, NOTES, audio
from anystride.lab.paper.recipe import TITLES, Cell, Recipe, Setting, transcribed
from anystride.lab.paper.table1 import DATASETS, joined

MULTI_ROW = "Multi-task model"
COLUMNS = {
    "Learned stride, time": "stride:0:0",
    "Learned stride, frequency": "stride:0:1",
    "Cut-off, time (Hz)": "cutoff:0:0",
    "Cut-off, frequency (cyc/mel)": "cutoff:0:1",
}
"""Columns and their values. The caption's "%" is a slip: strides have no unit."""

PUBLISHED = transcribed(
    """
    Acoustic scenes: 1.89 0.05, 1.99 0.03, 26.25 0.63, 0.2448 0.009
    Birdsong detection: 1.91 0.02, 1.96 0.01, 25.83 0.36, 0.2500 0.000
    Music (instrument): 1.29 0.06, 2.12 0.01, 38.33 1.57, 0.2292 0.009
    Music (pitch): 1.32 0.10, 1.61 0.07, 37.50 2.72, 0.3021 0.018
    Speech commands: 1.97 0.00, 1.95 0.01, 25.00 0.00, 0.2500 0.000
    Multi-task model: 1.46 0.01, 1.79 0.03, 34.17 0.30, 0.2708 0.0074
    """,
    COLUMNS,
)


def settings(dataset: str) -> Setting:
    protocol = audio(dataset)
    rows = dict(protocol.tasks)
    if len(rows) > 1:
        rows[joined(protocol.tasks)] = MULTI_ROW
    same = dataset in (AUDIO_ALL, NOTES)
    cells = [
        Cell(
            row,
            column,
            (replace(protocol.base, method=method, data=data),),
            value,
            PUBLISHED.get(row, {}).get(column) if method == "outer" and (same or row != MULTI_ROW) else None,
            TITLES[method],
        )
        for method in ("outer", "inner")
        for data, row in rows.items()
        for column, value in COLUMNS.items()
    ]
    return Setting(tuple(cells), protocol.note, protocol.stands_in_for)


RECIPE = Recipe(
    "table2",
    "Strides and cut-offs of the first audio layer",
    "Table 2, section 3.1",
    DATASETS,
    NOTES,
    settings,
    joins=frozenset(AUDIO_TASKS),
)
