"""The demonstration says what its numbers mean: nothing after --quick, little from one seed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from anystride.lab.paper import demo
from anystride.lab.paper.demo import Demo, demonstrate
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import save

from ..records import fabricated


@pytest.mark.parametrize(
    ("quick", "seeds", "expected", "count"),
    [
        (True, 1, "too small and train too briefly to learn, and which method comes first here is noise", 2),
        (True, 2, "the same command without --quick compares them", 2),
        (False, 1, "One seed: differences of a few points may be chance; --seeds 3 shows the spread.", 1),
        (False, 2, "2 seeds: differences that are not much larger than the deviations (±) may be chance.", 1),
    ],
)
def test_what_the_numbers_mean(
    quick: bool, seeds: int, expected: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Demo(RunConfig(width=2), seeds, tmp_path, fresh=False, quick=quick)
    for config in asked.configurations():
        save(fabricated(config, accuracy=0.5 + 0.1 * config.seed), tmp_path / config.name / "record.json")
    monkeypatch.setattr(demo, "draw_demo", lambda *_: [])
    screen = Console(width=80, record=True, file=io.StringIO())
    assert demonstrate(asked, screen) == 0
    text = " ".join(screen.export_text().split())
    assert text.count(expected) == count
    assert ("changes the accuracy by" in text) is not quick
    assert ("One seed" in text) is (seeds == 1 and not quick)
    if quick:
        assert text.startswith("With --quick")
