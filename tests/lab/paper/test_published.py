"""The transcribed tables agree with themselves: mean rows with their rows, deviations with the reading of them."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest

from anystride.lab.paper import release, table1, table2, table3, table4, table_a2, table_a3, table_a5, table_a7
from anystride.lab.paper.cutoff import LENGTHS, RATES, cutoff, exact
from anystride.lab.paper.recipe import MEAN, Published, transcribed

Table = dict[str, dict[str, Published]]

COMPARISONS: dict[str, tuple[Table, str, int, int]] = {
    # the table, its row of means, its decimals, the number of its rows
    "table 1, single-task": (table1.PUBLISHED[table1.SINGLE], table1.MEAN, 1, 5),
    "table 1, multi-task": (table1.PUBLISHED[table1.MULTI], table1.MEAN, 1, 5),
    "table 3, cifar10": (table3.PUBLISHED["cifar10"], MEAN, 1, 6),
    "table 3, cifar100": (table3.PUBLISHED["cifar100"], MEAN, 1, 6),
    "table 4, top-1": (table4.PUBLISHED[table4.TOP_1], MEAN, 2, 6),
    "table 4, top-5": (table4.PUBLISHED[table4.TOP_5], MEAN, 2, 6),
    "table A.3": (table_a3.PUBLISHED["cifar10"], MEAN, 1, 5),
    "table A.4": (table_a3.PUBLISHED["cifar100"], MEAN, 1, 5),
    "table A.5": (table_a5.PUBLISHED["cifar10"], MEAN, 1, 4),
    "table A.6": (table_a5.PUBLISHED["cifar100"], MEAN, 1, 4),
    "table A.7": (table_a7.PUBLISHED, table1.MEAN, 1, 5),
}
COLUMNS = [
    pytest.param(name, column, id=f"{name}: {column}")
    for name, (table, mean, *_) in COMPARISONS.items()
    for column in table[mean]
]
PAPERS_OWN = {("table 1, single-task", "strided"): 85.92, ("table 1, single-task", "outer"): 87.60}
"""Columns whose printed mean is not that of their printed rows, and what the rows give."""


def rows_of(name: str, column: str) -> list[Published]:
    table, mean, *_ = COMPARISONS[name]
    return [values[column] for row, values in table.items() if row != mean]


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_row_is_there(name):
    table, mean, _, count = COMPARISONS[name]
    assert len(table) == count + 1
    assert all(set(values) == set(table[mean]) for values in table.values())


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_the_mean_row_is_the_mean_of_its_rows(name, column):
    table, mean, decimals, _ = COMPARISONS[name]
    of_rows = statistics.fmean(row.mean for row in rows_of(name, column))
    # The rows and their mean are both rounded: each by half a unit of the last decimal.
    agrees = abs(of_rows - table[mean][column].mean) <= 10**-decimals + 1e-9
    if (name, column) in PAPERS_OWN:
        assert not agrees
        assert of_rows == pytest.approx(PAPERS_OWN[name, column])
    else:
        assert agrees


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_the_deviation_of_the_mean_row_is_that_of_all_runs(name, column):
    if (name, column) in PAPERS_OWN:
        pytest.skip("this column's mean row is not from the printed rows")
    table, mean, decimals, _ = COMPARISONS[name]
    rows = rows_of(name, column)
    centre = statistics.fmean(row.mean for row in rows)
    published = table[mean][column].sd

    def over_all_runs(rounding: float) -> float:
        sds = [max(0.0, (row.sd or 0.0) + rounding) for row in rows]
        squares = sum(3 * (row.mean - centre) ** 2 + 2 * sd**2 for row, sd in zip(rows, sds, strict=True))
        return math.sqrt(squares / (3 * len(rows) - 1))

    half = 0.5 * 10**-decimals
    # Besides the deviations, the means and the result are rounded: each moves the result by half a unit at most.
    assert over_all_runs(-half) - 2.1 * half <= published <= over_all_runs(half) + 2.1 * half


def test_the_multi_task_column_is_the_same_in_two_tables():
    assert {row: values["outer"] for row, values in table1.PUBLISHED[table1.MULTI].items()} == {
        row: values["Different strides"] for row, values in table_a7.PUBLISHED.items()
    }


def test_ratios_are_to_strided_convolutions():
    assert all(values["strided"].mean == 1 for values in table_a2.PUBLISHED.values())


def test_the_release_reports_two_starts():
    assert all(set(table) == set(release.STARTS) for table in release.PUBLISHED.values())


def test_a_table_needs_a_value_per_column():
    with pytest.raises(ValueError, match="shorter"):
        transcribed("(2, 2): 1.0 0.1", ["strided", "spectral"])


AXES = [
    ("Cut-off, time (Hz)", "Learned stride, time", 0),
    ("Cut-off, frequency (cyc/mel)", "Learned stride, frequency", 1),
]


@pytest.mark.parametrize("row", table2.PUBLISHED)
@pytest.mark.parametrize(("frequency", "stride", "axis"), AXES, ids=["time", "frequency"])
def test_cut_offs_follow_from_the_strides(row, frequency, stride, axis):
    values = table2.PUBLISHED[row]
    one_bin = RATES[axis] / LENGTHS[axis]
    # The rounding down takes at most a bin, and the stride's own last digit moves the result by half a per cent.
    assert cutoff(values[stride].mean, axis) == pytest.approx(values[frequency].mean, abs=one_bin)
    # What is published is rounded down to bins, run by run: it is not above the exact frequency of the mean stride.
    slack = 0.01 * values[frequency].mean + values[stride].sd / values[stride].mean * values[frequency].mean
    assert exact(values[stride].mean, axis) >= values[frequency].mean - slack


def three_bins(published: Published, length: int, rate: float, digit: float) -> bool:
    """Whether three whole bins have this mean and this deviation, to within one unit `digit` of the last digit."""
    centre = round(published.mean / rate * length)
    near = [bin_ * rate / length for bin_ in range(max(0, centre - 8), centre + 9)]
    return any(
        abs(statistics.fmean(triple) - published.mean) <= 0.51 * digit
        and min(abs(sd(triple) - published.sd) for sd in (statistics.stdev, statistics.pstdev)) <= digit
        for triple in itertools.combinations_with_replacement(near, 3)
    )


@pytest.mark.parametrize("row", table2.PUBLISHED)
def test_published_cut_offs_are_three_whole_bins(row):
    values = table2.PUBLISHED[row]
    assert three_bins(values["Cut-off, time (Hz)"], LENGTHS[0], RATES[0], 0.01)
    # Frequencies have four decimals, most of their deviations three.
    assert three_bins(values["Cut-off, frequency (cyc/mel)"], LENGTHS[1], RATES[1], 0.0005)


@pytest.mark.parametrize("length", [80, 98, 100])
def test_other_numbers_of_frames_do_not_explain_the_cut_offs(length):
    found = [three_bins(values["Cut-off, time (Hz)"], length, RATES[0], 0.01) for values in table2.PUBLISHED.values()]
    assert sum(found) <= 1  # 25.00 +- 0.00 is a bin of many lengths
