"""The examples run as they stand, on less data."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_budget(capsys):
    """From timm to ONNX Runtime; so few steps come near the budget, and no further."""
    for package in ("timm", "onnxruntime", "onnxscript", "sklearn"):
        pytest.importorskip(package)
    result, start, difference = load("budget").main(quick=True)
    assert result["learned"][1] < 0.9 * start
    assert result["frozen"][1] <= result["learned"][1]
    assert result["frozen"][0] == pytest.approx(result["learned"][0], abs=0.005)
    assert result["ONNX Runtime"][0] == pytest.approx(result["frozen"][0], abs=0.005)
    assert difference < 1e-4
    shown = capsys.readouterr().out
    assert "layer2.0.downsample.0" in shown
    assert "budget: half of it" in shown


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_unet(capsys):
    """Every kind finds some of the digit, and what is learned costs no more than what is strided."""
    pytest.importorskip("sklearn")
    rows = load("unet").main(quick=True)
    assert all(found[0]["overlap"] > 0.2 for found in rows.values())
    assert rows["learned"][0]["multiply_accumulates"] <= rows["strided"][0]["multiply_accumulates"]
    assert "overlap, mean and sd" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_scales(capsys):
    """One scale and three learned ones cost no more than three fixed ones; strides have moved."""
    pytest.importorskip("sklearn")
    rows = load("scales").main(quick=True)
    costs = {kind: found[0]["multiply_accumulates"] for kind, found in rows.items()}
    assert max(costs.values()) == costs["three scales, fixed"]
    assert 0.95 * costs["three scales, fixed"] < costs["three scales, learned"]
    strides = [found[0]["strides"] for kind, found in rows.items() if "three" in kind]
    assert strides[0] != strides[1]
    assert "accuracy, mean and sd" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_per_example():
    """Costs stay near the budget's share, whatever so short a training gives."""
    pytest.importorskip("sklearn")
    rows = load("per_example").main(quick=True)
    for found in rows.values():
        assert 2 < found[0]["stride x1"] < 6
        assert found[0]["multiply_accumulates"] < 4e6


def test_pages_say_what_the_records_of_examples_say():
    script = EXAMPLES.parent / "benchmarks" / "example_tables.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert not done.returncode, done.stderr
