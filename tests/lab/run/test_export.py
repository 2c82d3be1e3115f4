"""A trained run leaves PyTorch: what comes out gives the same answers."""

from pathlib import Path

import pytest
import torch

from anystride.lab import cli
from anystride.lab.commands import export as command
from anystride.lab.run.export import TARGETS
from anystride.lab.run.training import load_classifier

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny = ["--width", "2", "--epochs", "1", "--scenes", "64", "--method", "inner", "--stride-lr", "5"]
    assert cli.main(["train", *tiny, "--out", str(folder)]) == 0
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
