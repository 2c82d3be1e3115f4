"""A trained run leaves PyTorch: what comes out gives the same answers, and says what they mean."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anystride.lab import cli, files
from anystride.lab.commands import export as command
from anystride.lab.run import export as module
from anystride.lab.run.export import TARGETS
from anystride.lab.run.training import Classifier, load_classifier

from ..trained import CLASSES, PREPROCESSING, save, untrained

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny = [
        "--width",
        "2",
        "--epochs",
        "1",
        "--scenes",
        "64",
        "--method",
        "inner",
        "--stride-lr",
        "5",
        "--validation",
        "0",
    ]
    assert cli.main(["train", *tiny, "--validation", "0", "--out", str(folder)]) == 0
    return folder


def test_targets_are_those_of_the_command() -> None:
    assert tuple(TARGETS) == command.TARGETS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx
    import onnxruntime

    assert cli.main(["export", str(run)]) == 0
    assert "input 'images' (batch, 1, 32, 32)" in capsys.readouterr().out
    graph = onnx.load(run / "model.onnx").graph
    assert not {"DFT", "STFT"} & {node.op_type for node in graph.node}
    images = torch.rand(5, 1, 32, 32)
    session = onnxruntime.InferenceSession(run / "model.onnx", providers=["CPUExecutionProvider"])
    got = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.no_grad():
        expected = load_classifier(run / "last.ckpt")(images)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_pt2(run: Path, tmp_path: Path) -> None:
    assert cli.main(["export", str(run), "--to", "pt2", "--out", str(tmp_path / "m.pt2")]) == 0
    images = torch.rand(5, 1, 32, 32)
    with torch.no_grad():
        expected = load_classifier(run / "last.ckpt")(images)
        got = torch.export.load(tmp_path / "m.pt2").module()(images)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_file_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "last.ckpt")
    assert cli.main(["export", str(tmp_path)]) == 2
    assert "is not a checkpoint that 'anystride train' wrote" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_place_that_cannot_be_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(run), "--to", "pt2", "--out", str(run / "nowhere" / "m.pt2")]) == 2
    assert "--out must be a file in a folder that exists" in capsys.readouterr().err


def metadata(path: Path) -> dict[str, Any]:
    """As a user reads it, without this project."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.get_modelmeta().custom_metadata_map
        return {
            name: json.loads(value) if name == "epoch" or value[0] in "[{" else value for name, value in found.items()
        }
    extra = {"anystride.json": ""}
    torch.export.load(path, extra_files=extra)
    values: dict[str, Any] = json.loads(extra["anystride.json"])
    return values


def answer(path: Path, inputs: torch.Tensor) -> torch.Tensor:
    return TARGETS[path.suffix[1:]].run(path.read_bytes(), inputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
def test_what_a_file_carries(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(untrained(method="strided"), tmp_path / "last.ckpt")
    best = save(untrained(method="strided"), tmp_path / "best.ckpt", epoch=0)
    assert cli.main(["export", str(tmp_path), "--to", target]) == 0
    printed = capsys.readouterr().out
    assert "best epoch, 1; input 'images' (batch, 3, height, width), output 'logits' (batch, 2); differs" in printed
    assert "at 16x16 and 35x23" in printed
    found = metadata(tmp_path / f"model.{target}")
    config = load_classifier(best).config
    assert found["classes"] == list(CLASSES)
    assert found["preprocessing"] == PREPROCESSING
    assert (found["run"], found["configuration"]) == (config.key, config.to_json())
    assert (found["checkpoint"], found["epoch"], found["shape"]) == ("best.ckpt", 1, [3, 16, 16])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("model", "shape", "sizes", "given"),
    [
        ("resnet18", (3, 16, 16), [(16, 16), (40, 23), (9, 64)], "'images' (batch, 3, height, width)"),
        ("audio", (1, 98, 64), [(98, 64), (301, 64)], "'inputs' (batch, 1, time, frequency)"),
        ("series", (2, 100), [(100,), (333,)], "'inputs' (batch, 2, time)"),
    ],
)
def test_a_network_without_learned_strides_takes_any_size(
    target: str, model: str, shape: Any, sizes: Any, given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = untrained(method="strided", model=model, shape=shape)
    save(classifier, tmp_path / "last.ckpt")
    assert cli.main(["export", str(tmp_path), "--to", target]) == 0
    assert f"input {given}" in capsys.readouterr().out
    for batch in (1, 3):
        for size in sizes:
            inputs = torch.rand(batch, shape[0], *size)
            with torch.no_grad():
                expected = classifier.eval().model(inputs)
            torch.testing.assert_close(answer(tmp_path / f"model.{target}", inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model", "shape"), [("resnet18", (3, 16, 16)), ("audio", (1, 98, 64)), ("series", (2, 100))])
def test_learned_strides_leave_the_batch_open(
    model: str, shape: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = untrained(method="inner", model=model, shape=shape)
    save(classifier, tmp_path / "last.ckpt")
    assert cli.main(["export", str(tmp_path), "--to", "pt2"]) == 0
    assert "for this size of inputs only" in capsys.readouterr().out
    inputs = torch.rand(5, *shape)
    with torch.no_grad():
        expected = classifier.eval().model(inputs)
    torch.testing.assert_close(answer(tmp_path / "model.pt2", inputs), expected, rtol=1e-4, atol=1e-5)


def exported(folder: Path, target: str, *more: str) -> int:
    return cli.main(["export", str(folder), "--to", target, *more])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
def test_only_an_earlier_export_of_the_same_run_is_replaced(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "one" / f"model.{target}"
    save(untrained(method="strided"), tmp_path / "one" / "last.ckpt")
    save(untrained(method="strided", seed=1), tmp_path / "two" / "last.ckpt")
    place.write_bytes(b"something else")
    assert exported(tmp_path / "one", target) == 2
    assert "exists and holds something else; choose another, or add --overwrite" in capsys.readouterr().err
    assert place.read_bytes() == b"something else"
    assert exported(tmp_path / "one", target, "--overwrite") == 0
    save(untrained(method="strided", epochs=99), tmp_path / "one" / "last.ckpt", epoch=98)
    assert exported(tmp_path / "one", target) == 0
    assert metadata(place)["epoch"] == 99
    assert exported(tmp_path / "two", target, "--out", str(place)) == 2
    assert metadata(place)["epoch"] == 99


def test_a_network_that_diverged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier: Classifier = untrained(method="strided")
    torch.nn.init.constant_(classifier.model.classify.weight, float("nan"))
    save(classifier, tmp_path / "last.ckpt")
    assert exported(tmp_path, "pt2") == 2
    printed = capsys.readouterr()
    assert "the training diverged" in printed.out
    assert "--to pt2 cannot export this network: its output differs from PyTorch's by nan" in printed.err
    assert printed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_exporter_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("no operator\nfor this")

    save(untrained(method="strided"), tmp_path / "last.ckpt")
    monkeypatch.setitem(module.TARGETS, "pt2", replace(TARGETS["pt2"], write=fail))
    assert exported(tmp_path, "pt2") == 2
    printed = capsys.readouterr().err
    assert "it fails (no operator for this)" in printed
    assert printed.count("\n") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(untrained(method="strided"), tmp_path / "last.ckpt")
    monkeypatch.setattr(files.os, "fsync", full)
    assert exported(tmp_path, "pt2") == 2
    printed = capsys.readouterr().err
    assert "No space left on device" in printed
    assert printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_very_long_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(untrained(method="strided"), tmp_path / "last.ckpt")
    for name in ("x" * 300, f"{'x' * 200}/" * 30 + "m.pt2"):
        assert exported(tmp_path, "pt2", "--out", name) == 2
        printed = capsys.readouterr().err
        assert "--out must be a file in a folder that exists" in printed
        assert printed.count("\n") == 1
