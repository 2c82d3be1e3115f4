"""docs/pays.md and the README say what the records in results/real say."""

from dataclasses import replace

import pytest

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from benchmarks import pays

from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.front import points, rivals

FOUND = points(RECIPES["pareto"].grid("cifar10-jpeg"), pays.record_of)


@pytest.mark.parametrize("page", pays.PAGES, ids=lambda page: page.name)
def test_the_pages_say_what_the_records_say(page):
    text = page.read_text()
    assert pays.filled(text, pays.made(FOUND)) == text, "run python benchmarks/pays.py"


def test_learned_networks_keep_their_budgets():
    made = rivals(FOUND)
    assert made
    for each in made:
        assert 0.97 * each.limit < each.learned.macs <= each.limit


def test_markers_are_filled_once():
    assert pays.filled("a\n<!-- three -->\nold\n<!-- end -->\nb", {"three": "new"}) == (
        "a\n<!-- three -->\nnew\n<!-- end -->\nb"
    )


def test_runs_in_float32_fill_gaps_and_are_marked(monkeypatch):
    point = FOUND[0]
    asked = RECIPES["pareto"].grid("cifar10-jpeg", seeds=1).cells[0]
    there = pays.record_of(asked.runs[0])
    twin = replace(there, configuration={**there.configuration, "precision": pays.FLOAT32})
    assert not pays._text(point, 0.0).endswith("†")
    assert pays._text(replace(point, config=replace(point.config, precision=pays.FLOAT32)), 0.0).endswith(" †")
    assert not pays._measured(asked, "row").endswith("†")
    monkeypatch.setattr(pays, "record_in", lambda _: lambda run: twin if run.precision == pays.FLOAT32 else None)
    assert pays._measured(asked, "row").endswith(" †")
