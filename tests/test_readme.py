"""What the README shows is run as it stands there."""

import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
def test_code(code, capsys):
    exec(compile(code, str(README), "exec"), {})
    assert "1.stride" in capsys.readouterr().out


def test_files_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), f"README.md names {target}"


def test_results_table_is_what_the_records_say():
    """Every row of the table: accuracy over the seeds, cost, and the ways to downsample that were compared."""
    runs = defaultdict(list)
    for path in (README.parent / "results" / "demo").glob("*/record.json"):
        record = json.loads(path.read_text())
        start = ", ".join(f"{vertical:g}" for vertical, _ in record["configuration"]["strides"])
        runs[start, record["configuration"]["method"]].append(record)
    assert len(runs) == 8
    text = README.read_text()
    names = {"strided": "strided convolution", "spectral": "spectral pooling", "outer": "`outer`", "inner": "`inner`"}
    for (start, method), records in runs.items():
        accuracies = [100 * record["accuracy"] for record in records]
        cost = statistics.fmean(record["multiply_accumulates"] for record in records) / 1e6
        accuracy = f"{statistics.fmean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f}"
        row = rf"\| \({start}\) \|[^\n]*{names[method]}[^\n]*\| {accuracy} \| {cost:.1f} \|"
        assert re.search(row, text), f"README.md lacks the row {row}"
