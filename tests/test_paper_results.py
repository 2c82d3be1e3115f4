"""What docs/paper.md says came out is what the records in results/paper say."""

from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.paper.grid import record_in, saved_requests
from anystride.lab.paper.show import DIGITS, value_text
from anystride.lab.paper.values import measured

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "paper"
REQUESTS = saved_requests(RESULTS)


def rows(order):
    """The lines of the page's tables: a row of the recipe and its columns."""
    grid = order.grid().resolve(record_in(RESULTS))
    for panel in dict.fromkeys(cell.panel for cell in grid.cells):
        cells = [cell for cell in grid.cells if cell.panel == panel]
        columns = list(dict.fromkeys(cell.column for cell in cells))
        for row in dict.fromkeys(cell.row for cell in cells):
            line = {cell.column: cell for cell in cells if cell.row == row}
            texts = []
            for column in columns:
                cell = line.get(column)
                digits = DIGITS.get(cell.value.partition(":")[0], 1) if cell else 0
                texts.append(value_text(measured(cell, record_in(RESULTS)), digits) if cell else "")
            yield panel, columns, f"| {row} | {' | '.join(texts)} |"


@pytest.mark.parametrize("order", REQUESTS, ids=lambda order: order.name)
def test_the_page_says_what_the_records_say(order):
    text = (ROOT / "docs" / "paper.md").read_text()
    found = list(rows(order))
    assert found
    for _, _, line in found:
        assert line in text, f"docs/paper.md lacks {line}"


def test_what_was_run():
    assert {order.recipe for order in REQUESTS} >= {"table1", "table3", "table-a7", "figure4"}


if __name__ == "__main__":
    for each in REQUESTS:
        print(f"\n{each.name}\n")
        last = None
        for panel, columns, line in rows(each):
            if panel != last:
                print(f"\n| {panel} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
                last = panel
            print(line)
