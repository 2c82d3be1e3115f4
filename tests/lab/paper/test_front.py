"""Points of accuracy against costs: means over seeds, fronts, and who wins within a budget."""

import pytest

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from dataclasses import replace

from PIL import Image

from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.front import Point, best_within, front, points, rivals
from anystride.lab.report.html.pareto import figure, tables
from anystride.lab.report.pareto import draw
from anystride.lab.run.config import RunConfig

from ..records import fabricated

GRID = RECIPES["pareto"].grid("scenes", seeds=2)


def point(macs, accuracy, method="strided", name=""):
    return Point(method, name, macs, accuracy, None, 1, 1.0, RunConfig(method=method))


def cost_of(run):
    """More for smaller strides; a learned run spends its budget."""
    strides = run.strides
    if run.budget_macs:
        strides = [(float(s), float(s)) for s in run.budget_macs.removeprefix("strided:").split(",")]
    return round(10**8 / (strides[0][0] ** 2 * strides[1][0] * strides[2][0])) - bool(run.budget_macs)


def record_of(run):
    accuracy = 0.6 + 0.1 * (run.method != "strided") + 0.001 * cost_of(run) / 10**6 + 0.01 * run.seed
    return fabricated(
        run, accuracy=accuracy, multiply_accumulates=cost_of(run), seconds={"train": 360.0, "total": 400.0}
    )


def test_points_are_means_over_seeds():
    found = points(GRID, record_of)
    assert len(found) == 27 + 5 + 18
    usual = next(each for each in found if each.series == "strided" and each.name == "(2, 2, 2)")
    one, two = (100 * record_of(replace(usual.config, seed=seed)).accuracy for seed in (0, 1))
    assert usual.accuracy == pytest.approx((one + two) / 2)
    assert usual.sd == pytest.approx(abs(one - two) / 2**0.5)
    assert (usual.seeds, usual.hours) == (2, pytest.approx(0.1))


def test_runs_that_are_not_finished_are_left_out():
    assert points(GRID, lambda run: None) == []
    found = points(GRID, lambda run: record_of(run) if run.seed == 0 and run.method == "strided" else None)
    assert [each.seeds for each in found] == [1] * 27
    assert all(each.sd is None for each in found)
    assert rivals(found) == []


def test_a_front_has_what_nothing_beats():
    cheap, good, beaten, same, best = point(1, 50), point(2, 60), point(3, 55), point(4, 60), point(5, 61)
    assert front([best, beaten, same, good, cheap]) == [cheap, good, best]
    assert front([point(1, 40), point(1, 50)]) == [point(1, 50)]
    assert front([]) == []


def test_the_best_within_a_limit():
    found = [point(1, 50), point(2, 60), point(3, 70)]
    assert best_within(found, 2) == found[1]
    assert best_within(found, 0.5) is None


def test_rivals_cost_no_more_than_the_budget():
    made = rivals(points(GRID, record_of))
    assert len(made) == 12
    for each in made:
        assert each.learned.macs <= each.limit
        assert each.strided.macs <= each.limit
        assert each.gain == pytest.approx(each.learned.accuracy - each.strided.accuracy)
        assert each.gain > 0
        assert each.spectral is None or each.spectral.macs <= each.limit
        assert each.fitted.config.budget_macs == each.learned.config.budget_macs


def test_the_page_says_who_wins(tmp_path):
    text = tables(GRID, record_of)
    assert text.count("as (2, 2, 2)") == 4
    assert "+10." in text
    assert "27</td>" in text
    assert "6 minutes" in text
    drawn = figure(GRID, record_of)
    assert drawn.count("<circle") == 27 + 5 + 18
    assert drawn.count("<polyline") == 5


def test_the_picture(tmp_path):
    draw(points(GRID, record_of), tmp_path / "front.png", "a heading")
    with Image.open(tmp_path / "front.png") as image:
        assert min(image.size) > 400
