"""What the README shows is run as it stands there."""

import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("code", "shown"),
    list(
        zip(
            re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL),
            ("tied with layer2.0.conv1", "1.stride"),
            strict=True,
        )
    ),
    ids=["network", "layer"],
)
def test_code(code, shown, capsys):
    pytest.importorskip("timm")
    exec(compile(code, str(README), "exec"), {})
    assert shown in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_code_of_a_page(page, tmp_path, monkeypatch):
    """A page's blocks, one after the other."""
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_exist(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} names {target}"


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
