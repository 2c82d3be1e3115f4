"""docs/pays.md and the README say what the records in results/real say."""

import pytest

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from benchmarks import pays

from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.front import points, rivals
from anystride.lab.paper.grid import record_in

FOUND = points(RECIPES["pareto"].grid("cifar10-jpeg"), record_in(pays.REAL))


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
