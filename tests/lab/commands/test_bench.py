"""`anystride bench`: every table end to end, as small as it can be, its record, and the page."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab import cli
from anystride.lab.bench.base import Setup, source
from anystride.lab.bench.catalogue import TABLES
from anystride.lab.bench.page import DEVICES, fill, load
from anystride.lab.bench.record import BenchRecord
from anystride.lab.commands import bench as command
from anystride.lab.errors import UsageError

pytestmark = pytest.mark.slow  # most tests look at records that take half a minute to make

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "performance.md"
RECORDS = ROOT / "results" / "performance"
FIELDS = ("schema", "table", "device", "command", "settings", "rows", "commit", "versions", "hardware")


def bench(*arguments: str) -> int:
    try:
        return cli.main(["bench", *arguments])
    except SystemExit as done:
        return int(done.code or 0)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of all tables. Nothing is compiled: that takes minutes."""
    folder = tmp_path_factory.mktemp("performance")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda network, **_: network)
        for name in TABLES:
            assert bench(name, "--quick", "--device", "cpu", "--repeats", "1", "--out", str(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def records(out: Path) -> dict[str, BenchRecord]:
    return {name: load(out / f"{name}-cpu.json", name) for name in TABLES}


def test_the_command_knows_every_table():
    assert list(command.TABLES) == list(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_record_says_what_was_measured_where(name, records):
    record = records[name]
    values = record.to_json()
    assert set(FIELDS) <= set(values)
    assert BenchRecord.from_json(values, name) == record
    assert (record.table, record.device) == (name, "cpu")
    assert record.command[0] == "anystride"
    assert record.rows
    assert record.settings["quick"] is True
    assert record.settings["repeats"] == 1
    assert "quick look" in source(record)


def test_operator(records):
    record = records["operator"]
    assert all(row["existing"] > 0 and row["fresh"] > 0 for row in record.found["limits"]["bandwidth"])
    assert {row["dtype"] for row in record.found["limits"]["rates"]} == {"float32", "float16"}
    for row in record.rows:
        for name, entry in row["contestants"].items():
            if entry.get("reason"):
                assert (entry["forward"], entry["both"]) == (None, None)
                continue
            assert entry["forward_floor"] > 0
            assert entry["both_floor"] == pytest.approx(2 * entry["forward_floor"]) or name == "strided"
            for way in ("forward", "both"):
                assert entry[way]["of_floor"] == entry[way]["seconds"] / entry[f"{way}_floor"]
                assert entry[way]["speed"] > 0
    assert all(row["mean_speed"] == pytest.approx(1) for row in record.found["summary"] if row["contestant"] == "fft")


def test_what_a_type_cannot_do_is_a_row_with_a_reason(records, monkeypatch):
    from anystride.lab.bench import operator
    from anystride.lab.bench.contestants import BlurPool

    def refuse(self, x):
        raise NotImplementedError("not for this type\nat all")

    monkeypatch.setattr(BlurPool, "forward", refuse)
    monkeypatch.setattr(operator, "cases", lambda on_cpu, quick: [operator.Case("quick", (1, 2, 8))])
    record = operator.BENCH.record(Setup(torch.device("cpu"), 1, quick=True))
    assert record.rows[0]["contestants"]["blur"] == {"reason": "not for this type", "forward": None, "both": None}
    assert "Not measured: blur pooling at quick 1x2x8: not for this type." in operator.BENCH.render(record)


def test_network(records):
    rows = {(row["model"], row["method"]): row for row in records["network"].rows}
    assert {model for model, _ in rows} == {"audio", "resnet18"}
    assert len(rows) == 12
    for row in rows.values():
        for step in ("training", "inference"):
            assert row[step]["seconds"] > 0
            assert row[step]["bytes"] > 0
    assert (
        rows["resnet18", "outer"]["macs"] > rows["resnet18", "outer-r1"]["macs"] > rows["resnet18", "strided"]["macs"]
    )
    assert rows["resnet18", "outer"]["training"]["bytes"] > rows["resnet18", "inner"]["training"]["bytes"]
    assert records["network"].found["published"]["training memory"]["outer"] == 1.98


def test_growth(records):
    record = records["growth"]
    assert {row["factor"] for row in record.rows} == {"resolution", "batch", "width", "learned"}
    assert all(row["time_ratio"] == row["memory_ratio"] == 1 for row in record.rows if row["method"] == "strided")
    assert {row["factor"] for row in record.found["slopes"]} == {"resolution", "batch", "width"}


def test_without_learned_layers_all_methods_are_one_network():
    from anystride.lab.bench.growth import Point

    x = torch.randn(1, 3, 16, 16)
    networks = {
        learned: {method: Point(width=2, learned=learned).build(method).eval() for method in ("strided", "inner")}
        for learned in (0, 2)
    }
    torch.testing.assert_close(networks[0]["strided"](x), networks[0]["inner"](x))
    assert not torch.allclose(networks[2]["strided"](x), networks[2]["inner"](x))
    assert len([key for key, _ in networks[2]["inner"].named_parameters() if key.endswith("stride")]) == 2


def test_throughput(records):
    record = records["throughput"]
    settings = record.settings
    for row in record.rows:
        images = settings["runs_per_method"] * settings["epochs"] * settings["training_images"]
        assert row["hours"] == pytest.approx(images / row["images_per_second"] / 3600)
    assert (settings["runs_per_method"], settings["epochs"], settings["training_images"]) == (18, 400, 50_000)
    assert record.found["hours_of_the_paper"] == pytest.approx(sum(row["hours"] for row in record.rows[:3]))
    assert "The paper's 54 runs" in TABLES["throughput"].render(record)
    assert "Batch 2 instead of the recipe's 256." in TABLES["throughput"].render(record)


def test_unit(records):
    rows = records["unit"].rows
    assert {row["ramp"] for row in rows} == {"inner", "outer"}
    for row in rows:
        assert row["speed"] == row["plain"]["seconds"] / row["unit"]["seconds"]
        assert 0 < row["strided"]["macs"] < row["plain"]["macs"]


def test_crossover(records):
    record = records["crossover"]
    assert [(row["length"], row["prime"]) for row in record.rows] == [(64, False), (67, True)]
    assert set(record.found["crossings"]) == {"powers of two", "primes"}


def test_a_table_is_printed(out, capsys):
    assert bench("crossover", "--quick", "--device", "cpu", "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "real FFT" in printed.out
    assert str(out / "crossover-cpu.json") in printed.out.replace("\n", "")


@pytest.mark.parametrize("arguments", [[], ["operator"], ["network"], ["page"]])
def test_help(arguments, capsys):
    assert bench(*arguments, "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "usage: anystride bench" in printed
    assert ("--compiled" in printed) == (arguments == ["network"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "TABLE"),
        (["speed"], "invalid choice: 'speed'"),
        (["unit", "--repeats", "0"], "--repeats: must be at least 1, got 0"),
        (["unit", "--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["unit", "--compiled"], "--compiled"),
        (["unit", "--quick", "--out", "file/below"], "--out must be a folder that can be made, got 'file/below'"),
        (["page"], "PAGE"),
        (["page", "nowhere.md"], "PAGE must be a readable text file, got 'nowhere.md'"),
    ],
)
def test_wrong_input(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert bench(*arguments) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused(capsys):
    assert bench("unit", "--quick", "--device", "cuda") == 2
    assert "--device must be cpu where PyTorch sees no GPU, got 'cuda'" in capsys.readouterr().err


MARKED = """# Title

<!-- bench: unit-cpu -->
old

| a |
<!-- end -->

prose

<!-- bench: growth-cpu -->
<!-- end -->
"""


def test_a_page_is_filled_and_filled_again_the_same(out, records, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(MARKED)
    assert bench("page", str(page), "--out", str(out)) == 0
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("# Title\n\n<!-- bench: unit-cpu -->\n\n**")
    assert "\nprose\n" in text
    for name in ("unit", "growth"):
        assert f"{TABLES[name].render(records[name])}\n\n<!-- end -->" in text
    assert capsys.readouterr().out == f"{page} was written.\n"
    assert bench("page", str(page), "--out", str(out)) == 0
    assert page.read_text() == text
    assert capsys.readouterr().out == f"{page} is as its records say.\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing here\n", "PAGE must have a line <!-- bench: TABLE-DEVICE -->"),
        ("<!-- bench: unit-cpu -->\n", "the marker <!-- bench: unit-cpu --> has no end"),
        ("<!-- bench: unit-cpu -->\n<!-- bench: growth-cpu -->\n<!-- end -->\n", "<!-- bench: unit-cpu --> has no end"),
        ("<!-- bench: speed-cpu -->\n<!-- end -->\n", "got 'speed-cpu'"),
        ("<!-- bench: unit -->\n<!-- end -->\n", "got 'unit'"),
        ("<!-- bench: unit-cuda -->\n<!-- end -->\n", "run: anystride bench unit --device cuda"),
        ("<!-- bench: crossover-cpu -->\n<!-- end -->\n", "is not a readable record"),
        ("<!-- bench: growth-cpu -->\n<!-- end -->\n", "is not a record of growth"),
    ],
)
def test_a_page_that_cannot_be_filled_stays(text, expected, out, tmp_path, capsys):
    shutil.copy(out / "unit-cpu.json", tmp_path / "unit-cpu.json")
    shutil.copy(out / "unit-cpu.json", tmp_path / "growth-cpu.json")
    (tmp_path / "crossover-cpu.json").write_text("{")
    page = tmp_path / "page.md"
    page.write_text(text)
    assert bench("page", str(page), "--out", str(tmp_path)) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1
    assert page.read_text() == text


def test_every_record_renders_in_markdown(records):
    for name, record in records.items():
        lines = TABLES[name].render(record).splitlines()
        assert lines[-1] == source(record)
        assert any(line.startswith("| ---") for line in lines)
        for before, line in itertools.pairwise(lines):
            if before.startswith("|") and line.startswith("|"):
                assert before.count("|") == line.count("|")


def test_fill_names_devices():
    with pytest.raises(UsageError, match=" or ".join(DEVICES)):
        fill("<!-- bench: unit-tpu -->\n<!-- end -->\n", Path())


def test_the_page_shows_its_records():
    text = PAGE.read_text(encoding="utf-8")
    assert fill(text, RECORDS) == text
