"""What the README shows is run as it stands there."""

import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from anystride import convert_

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("code", "shown"),
    list(
        zip(
            re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL),
            ("layer2.0.downsample.0", "1/height"),
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
@pytest.mark.slow
def test_code_of_a_page(page, tmp_path, monkeypatch):
    """A page's blocks, one after the other."""
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(code, str(page), "exec"), names)


def test_readme_is_short():
    assert len(README.read_text().split()) <= 900


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "docs" / "tutorials").glob("*.md"))], ids=lambda page: page.name
)
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
    text = (ROOT / "docs" / "demo.md").read_text()
    names = {"strided": "strided convolution", "spectral": "spectral pooling", "outer": "`outer`", "inner": "`inner`"}
    for (start, method), records in runs.items():
        accuracies = [100 * record["accuracy"] for record in records]
        cost = statistics.fmean(record["multiply_accumulates"] for record in records) / 1e6
        accuracy = f"{statistics.fmean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f}"
        row = rf"\| \({start}\) \|[^\n]*{names[method]}[^\n]*\| {accuracy} \| {cost:.1f} \|"
        assert re.search(row, text), f"docs/demo.md lacks the row {row}"


def record(name):
    return json.loads((ROOT / "results" / name).read_text())


def test_budget_figures_are_what_the_record_says():
    text = (ROOT / "docs" / "convert.md").read_text()
    rows = record("budget.json")["rows"]
    for name in ("strided", "learned"):
        accuracy, cost = 100 * rows[name]["accuracy"], rows[name]["multiply_accumulates"] / 1e6
        assert f"{accuracy:.1f} % at {cost:.2f} MMAC" in text
    assert f"{record('budget.json')['converted_multiply_accumulates'] / 1e6:.2f} MMAC" in text


def test_shipping_table_is_what_the_record_says():
    text = (ROOT / "docs" / "convert.md").read_text()
    names = ("freeze_error", "compile_error", "export_error", "onnx_error")
    for network, row in record("ship.json")["rows"].items():
        errors = " | ".join(f"{row[name]:.0e}" for name in names)
        int8 = f"{row['int8_error_plain']:.3f} | {row['int8_error_converted']:.3f}"
        assert f"| {network}, {'x'.join(map(str, row['input']))} | {errors} | {int8} |" in text
        assert max(row[name] for name in names) <= 1e-4
        assert not row["transforms_in_graph"]


def test_compatibility_figures_are_those_of_the_page():
    page = (ROOT / "docs" / "compatibility.md").read_text().replace("\n", " ")
    passing, counted = re.search(r"(\d+) of these (\d+) pass", page).groups()
    assert f"the {counted} model modules of timm" in README.read_text().replace("\n", " ")
    assert f"{passing} convert and learn" in README.read_text().replace("\n", " ")


def test_speed_figures_are_what_the_records_say():
    text = (ROOT / "docs" / "performance.md").read_text()
    network = {(r["model"], r["mode"], r["method"]): r for r in record("performance/network-cpu.json")["rows"]}

    def ratio(method, step, key):
        mine, strided = (network["resnet18", "eager", name][step] for name in (method, "strided"))
        return mine[key] / strided[key]

    assert f"takes {ratio('inner', 'training', 'seconds'):.2f} times as long as" in text
    assert f"and {ratio('inner', 'training', 'bytes'):.2f} times their memory" in text
    assert f"inference {ratio('inner', 'inference', 'seconds'):.2f} times as long" in text
    assert f"takes {ratio('outer', 'training', 'seconds'):.1f} times as" in text
    means = {
        (r["layout"], r["contestant"]): r["mean_speed"]
        for r in record("performance/operator-cpu.json")["summary"]
        if (r["dtype"], r["pass"]) == ("float32", "both")
    }
    for layout in ("contiguous", "channels last"):
        cells = " | ".join(f"{means[layout, name]:.1f}x" for name in ("outer", "inner", "spectral"))
        assert f"| {layout} | {cells} |" in text


COST = ("macs", "onnx_1", "onnx_8", "training", "memory", "held")


def test_what_a_network_costs_is_what_the_record_says():
    found = record("performance/cost-cpu.json")
    text = (ROOT / "docs" / "performance.md").read_text()
    means = {kind: found["means"]["cosine"][kind]["mean"] for kind in COST}
    rows = {row["name"]: row["ramps"]["cosine"] for row in found["networks"]}
    for name, ratios in {**rows, "**geometric mean**": means}.items():
        assert f"| {name} | {' | '.join(f'{ratios[kind]:.2f}' for kind in COST)} |" in text
    assert max(ratios["error"] for ratios in rows.values()) < 1e-4
    limits = (ROOT / "docs" / "limits.md").read_text()
    assert all(f"{means[kind]:.2f}" in limits for kind in ("macs", "onnx_1", "training"))
    assert f"{means['onnx_1']:.2f} times" in README.read_text().replace("\n", " ")
    assert f"{means['training']:.2f} times" in README.read_text().replace("\n", " ")


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "regnety_002"])
@pytest.mark.slow
def test_what_a_conversion_adds(name):
    timm = pytest.importorskip("timm")
    row = next(row for row in record("performance/cost-cpu.json")["networks"] if row["name"] == name)
    for ramp in ("cosine", "inner"):
        before, after = convert_(timm.create_model(name), torch.empty(1, 3, 224, 224), ramp=ramp, dry_run=True).macs
        assert before == row["macs"]
        assert f"{after / before:.3f}" == f"{row['ramps'][ramp]['macs']:.3f}"


def test_accuracy_by_window_is_what_the_record_says():
    found = record("ramps.json")
    text = (ROOT / "docs" / "convert.md").read_text()
    for method, mean in found["means"].items():
        cell = f"{100 * mean['accuracy']:.1f} ± {100 * mean['deviation']:.1f}"
        assert f"| {method} | {cell} | {mean['runs']} | {mean['macs'] / 1e6:.1f} |" in text


@pytest.mark.parametrize("page", ["docs/paper.md", "docs/performance.md", "README.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page):
    """As they are named there: below the package, the project, or in `benchmarks/`."""
    for name in re.findall(r"`([a-z_/]+\.py)`", (ROOT / page).read_text()):
        assert any((root / name).exists() for root in (ROOT / "src" / "anystride", ROOT, ROOT / "benchmarks")), name


@pytest.mark.parametrize("name", ["spoken-digits", "cifar10-jpeg"])
def test_accuracies_on_real_data_are_what_the_records_say(name):
    found = record(f"own/{name}.json")
    text = (ROOT / "docs" / "data.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    start, end = found["start_multiply_accumulates"] / 1e6, found["multiply_accumulates"] / 1e6
    assert cells[2:] == [
        str(len(found["epochs"])),
        f"{100 * found['accuracy']:.1f} %",
        f"{start:.1f} to {end:.1f}",
        f"{found['seconds']['train'] / 60:.0f}",
    ]
    assert found["uncommitted_changes"] is False


def test_frequency_table_is_what_the_record_says():
    text = (ROOT / "docs" / "frequency.md").read_text()
    for row in record("performance/kept-bins-cpu.json")["rows"]:
        seconds = row["seconds"]
        after, *others = seconds.values()
        cells = " | ".join([f"{1e3 * after:.1f}", *(f"{each / after:.2f}" for each in others)])
        assert re.search(rf"\| {row['channels']}, {row['length']} to {row['size']} \|.*{re.escape(cells)} \|", text)
