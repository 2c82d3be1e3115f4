"""Table A.7: one learned stride per layer, or one for each axis, in the multi-task audio network."""

from __future__ import annotations

from dataclasses import replace

from anystride.lab.paper.protocols import AUDIO_ALL, NOTES, SPOKEN, audio
from anystride.lab.paper.recipe import TITLES, Recipe, Setting, transcribed
from anystride.lab.paper.table1 import multi_task

_SETTINGS = {"Shared stride": True, "Different strides": False}
PUBLISHED = transcribed(
    """
    Acoustic scenes: 97.4 0.3, 97.7 0.3
    Birdsong detection: 79.7 1.0, 78.6 0.5
    Music (instrument): 70.7 0.5, 73.0 0.8
    Music (pitch): 86.7 0.5, 89.9 0.3
    Speech commands: 86.8 0.1, 86.2 0.8
    Mean accuracy: 84.3 9.2, 85.0 8.9
    """,
    _SETTINGS,
)


def settings(dataset: str) -> Setting:
    protocol = audio(dataset)
    cells = []
    for method in ("outer", "inner"):
        for column, shared in _SETTINGS.items():
            published = {row: values[column] for row, values in PUBLISHED.items() if method == "outer"}
            run = replace(protocol.base, method=method, shared_stride=shared)
            cells += multi_task(run, protocol.tasks, column, published, TITLES[method])
    return Setting(tuple(cells), protocol.note, protocol.stands_in_for)


RECIPE = Recipe(
    "table-a7",
    "One stride per layer or one per axis",
    "Table A.7, appendix",
    (AUDIO_ALL, SPOKEN, NOTES),
    NOTES,
    settings,
)
