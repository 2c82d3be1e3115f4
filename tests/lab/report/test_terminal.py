"""Records become groups, groups a sentence: computed, for good and for bad news."""

import io
import re
from argparse import Namespace

import pytest
from rich.console import Console

from anystride.lab.commands import paper
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.report.terminal import group, results_table, summary
from anystride.lab.report.text import counted, duration_text, sizes_text, strides_text
from anystride.lab.run.config import RunConfig
from anystride.lab.run.defaults import STRIDES
from anystride.lab.run.record import Record

from ..records import fabricated


def record(method: str, start: float, accuracy: float, seed: int = 0) -> Record:
    strides = ((start, start), (2.0, 2.0), (start, start))
    return fabricated(
        RunConfig(method=method, strides=strides, seed=seed),
        accuracy=accuracy,
        multiply_accumulates=2_500_000,
        map_sizes=[[32, 32], [16, 12], [8, 8], [4, 4]],
    )


def test_the_sentence_follows_the_numbers() -> None:
    records = [record("strided", 2, 0.9), record("inner", 2, 0.8), record("strided", 3, 0.5), record("inner", 3, 0.85)]
    assert summary(group(records)) == (
        "Starting from (3, 2, 3) instead of (2, 2, 2) changes the accuracy by "
        "-40.0 points with strided convolution and +5.0 points with DiffStride inner."
    )


def test_seeds_are_averaged() -> None:
    (only,) = group([record("outer", 2, 0.90, seed=0), record("outer", 2, 0.94, seed=1)])
    assert only.accuracy_text == "92.0 ± 2.8"
    assert only.mega_macs == 2.5


def test_one_seed_has_no_deviation() -> None:
    (only,) = group([record("outer", 2, 0.9)])
    assert only.deviation is None
    assert only.accuracy_text == "90.0"


def test_the_table_shows_strides_and_sizes() -> None:
    console = Console(record=True, width=140, file=None)
    console.print(results_table(group([record("outer", 3, 0.9)])))
    text = console.export_text()
    assert "(3, 2, 3)" in text
    assert "32, 16x12, 8, 4" in text


@pytest.mark.parametrize("model", ["resnet18", "efficientnet-b0", "audio"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_eighty_columns_lose_nothing(model: str, seeds: int) -> None:
    sizes = [[224, 224], [112, 112], [56, 56], [28, 28], [14, 14]]
    records = [
        fabricated(
            RunConfig(model=model, method=method, strides=STRIDES[model], seed=seed),
            accuracy=0.5 + 0.3 * seed / seeds,
            multiply_accumulates=123_456_789_000,
            map_sizes=sizes,
        )
        for seed in range(seeds)
        for method in ("strided", "spectral", "average", "outer", "inner", "cosine")
    ]
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(results_table(group(records)))
    text = console.export_text()
    assert "…" not in text
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert {line.rstrip()[-1] for line in lines[1:]} <= set("┓┃┩│┤┘")
    assert len(re.findall(r"123,456\.8", text)) == 6
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert re.sub(r"\s", "", "".join(row[5] for row in rows)) == "224,112,56,28,14" * 6
    shown = re.sub(r"\s", "", "".join(row[4] for row in rows))
    assert shown == "".join(strides_text(record.strides).replace(" ", "") for record in records[:6])


def test_the_list_of_recipes_loses_nothing_in_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(record=True, width=80, file=io.StringIO())
    monkeypatch.setattr(paper, "console", lambda: screen)
    paper.execute(Namespace(recipe="list"))
    text = screen.export_text()
    assert "…" not in text
    for recipe in RECIPES.values():
        assert all(name in text for name in (recipe.name, *recipe.datasets))


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (0.01, "36 s"),
        (0.5, "30 minutes"),
        (3.31, "about 3.3 hours"),
        (300, "about 12 days"),
        (1400057.7, "about 160 years"),
    ],
)
def test_durations_for_people(hours: float, expected: str) -> None:
    assert duration_text(3600 * hours) == expected


def test_numbers_for_people() -> None:
    assert [counted(number, "run") for number in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]
    assert strides_text([[2.0, 2.0], [2.351, 1.0]]) == "2, 2.35x1"
    assert strides_text([[1.9985, 2.0]]) == "2.00x2"  # its map is a sample longer than that of 2
    assert strides_text([[10.0, 20.0]], digits=0) == "10x20"
    assert sizes_text([[32, 32], [13, 12]]) == "32, 13x12"
