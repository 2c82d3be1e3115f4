"""A checkpoint that is damaged or foreign costs one line, whatever is wrong with it, and runs no code."""

from __future__ import annotations

import copy
import io
import math
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab import cli
from anystride.lab.errors import UsageError
from anystride.lab.run.checkpoint import diverged, read_checkpoint, saved_configuration
from anystride.lab.run.checkpoint_checks import check

GOOD = Path(__file__).parents[2] / "data" / "v0.1.0" / "run" / "last.ckpt"
BYTES = GOOD.read_bytes()
HEAD = "model.classify.weight"
Change = Callable[[dict[str, Any]], object]


class Code:
    """Would make a file, were it unpickled without care."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("ran",)


def pickled(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def flipped(weight: str) -> bytes:
    """The file with a changed byte in a weight."""
    position = BYTES.index(torch.load(GOOD, weights_only=True)["state_dict"][weight].numpy().tobytes()) + 3
    return BYTES[:position] + bytes([BYTES[position] ^ 0xFF]) + BYTES[position + 1 :]


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    return file.getvalue()


FILES = {
    **{f"cut at {share} %": BYTES[: len(BYTES) * share // 100] for share in (0, 1, 5, 20, 40, 60, 80, 95, 99)},
    "one byte short": BYTES[:-1],
    "zero bytes within": BYTES[:60000] + bytes(30000) + BYTES[90000:],
    "zero bytes at the start": bytes(4096) + BYTES[4096:],
    "zero bytes at the end": BYTES[:-4096] + bytes(4096),
    "nothing but zero bytes": bytes(len(BYTES)),
    "text": b"epoch 1, accuracy 90 %\n",
    "JSON": b'{"state_dict": {}}',
    "random bytes": random.Random(0).randbytes(10000),
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "another zip": zipped(),
    "a pickle with code": pickle.dumps(Code()),
    "code in torch's format": pickled({"hyper_parameters": Code()}),
    "a plain pickle": pickle.dumps({"state_dict": {}}),
    **{f"a changed byte of {name}": flipped(name) for name in (HEAD, "model.stem.0.weight", "model.classify.bias")},
}
"""The contents of files that no training left, by what is wrong with them."""


def removed(*names: str) -> Change:
    def change(saved: dict[str, Any]) -> object:
        for name in names[:-1]:
            saved = saved[name]
        return saved.pop(names[-1])

    return change


def put(value: object, *names: str) -> Change:
    def change(saved: dict[str, Any]) -> object:
        for name in names[:-1]:
            saved = saved[name]
        saved[names[-1]] = value
        return None

    return change


CONFIG = ("hyper_parameters", "config")
CHANGES: dict[str, Change] = {
    **{f"without {name}": removed(name) for name in ("hyper_parameters", "state_dict")},
    **{f"without {name}": removed("hyper_parameters", name) for name in ("config", "heads", "shape")},
    "without strides": removed(*CONFIG, "strides"),
    "without a weight": removed("state_dict", HEAD),
    **{f"{name} is a number": put(3, name) for name in ("hyper_parameters", "state_dict")},
    **{f"{name} is text": put("x", "hyper_parameters", name) for name in ("config", "heads", "shape", "preprocessing")},
    "preprocessing with a tensor": put({"kind": torch.zeros(1)}, "hyper_parameters", "preprocessing"),
    "budget is text": put("0.5x", "hyper_parameters", "budget"),
    "budget is not a number": put(math.nan, "hyper_parameters", "budget"),
    "no heads": put({}, "hyper_parameters", "heads"),
    "a head without classes": put({"digit": []}, "hyper_parameters", "heads"),
    "classes are numbers": put({"digit": list(range(10))}, "hyper_parameters", "heads"),
    "a class twice": put({"digit": ["0"] * 10}, "hyper_parameters", "heads"),
    "a class that is no text": put({"digit": [*map(str, range(9)), "\ud800"]}, "hyper_parameters", "heads"),
    "too few classes": put({"digit": ["0", "1"]}, "hyper_parameters", "heads"),
    "a shape of one number": put([32], "hyper_parameters", "shape"),
    "a negative shape": put([1, -32, 32], "hyper_parameters", "shape"),
    "a shape of fractions": put([1, 32.5, 32], "hyper_parameters", "shape"),
    "an enormous shape": put([1, 10**9, 10**9], "hyper_parameters", "shape"),
    "three channels": put([3, 32, 32], "hyper_parameters", "shape"),
    "an unknown field": put(1, *CONFIG, "colour"),
    "an unknown model": put("vgg", *CONFIG, "model"),
    "another model": put("resnet18-imagenet", *CONFIG, "model"),
    "an unknown method": put("max", *CONFIG, "method"),
    "a width of text": put("8", *CONFIG, "width"),
    "a width of zero": put(0, *CONFIG, "width"),
    "another width": put(64, *CONFIG, "width"),
    "an enormous width": put(10**7, *CONFIG, "width"),
    "an absurd width": put(10**30, *CONFIG, "width"),
    "a width that is true": put(True, *CONFIG, "width"),
    "smoothness not a number": put(math.nan, *CONFIG, "smoothness"),
    "strides are text": put("2,2,2", *CONFIG, "strides"),
    "strides below 1": put([[0.5, 2.0]] * 3, *CONFIG, "strides"),
    "too many strides": put([[2.0, 2.0]] * 9, *CONFIG, "strides"),
    "data is a number": put(3, *CONFIG, "data"),
    "an unknown weight": put(torch.zeros(1), "state_dict", "model.extra"),
    "a weight of another shape": put(torch.zeros(3, 3), "state_dict", HEAD),
    "a weight that is a list": put([1.0], "state_dict", HEAD),
    "a weight that is None": put(None, "state_dict", HEAD),
    "a complex weight": put(torch.zeros(10, 16, dtype=torch.complex64), "state_dict", HEAD),
    "a sparse weight": put(torch.zeros(10, 16).to_sparse(), "state_dict", HEAD),
    "a weight whose name is a number": lambda saved: saved["state_dict"].update({7: torch.zeros(1)}),
}
"""What is changed in a good checkpoint."""

FIT = ("loops", "fit_loop")
TRAINING: dict[str, Change] = {
    **{
        f"without {name}": removed(name)
        for name in ("epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")
    },
    "epoch is text": put("1", "epoch"),
    "a negative step": put(-1, "global_step"),
    "loops is a list": put([], "loops"),
    "without the training loop": removed(*FIT),
    "without the loop's state": removed(*FIT, "epoch_loop.state_dict"),
    "without its progress": removed(*FIT, "epoch_progress"),
    "without its current progress": removed(*FIT, "epoch_progress", "current"),
    "progress is text": put("two", *FIT, "epoch_progress", "current", "completed"),
    "progress of more epochs": put(9, *FIT, "epoch_progress", "current", "processed"),
    "without steps": removed(*FIT, "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step"),
    "without curves": removed("callbacks", "Curves"),
    "curves are text": put("up", "callbacks", "Curves", "epochs"),
    "an epoch without a loss": lambda saved: saved["callbacks"]["Curves"]["epochs"][0].pop("train_loss"),
    "no optimiser": put([], "optimizer_states"),
    "an optimiser that is text": put(["sgd"], "optimizer_states"),
    "an optimiser without state": lambda saved: saved["optimizer_states"][0].pop("state"),
    "an optimiser of other weights": lambda saved: saved["optimizer_states"][0]["param_groups"][0]["params"].pop(),
    "an optimiser without momentum": lambda saved: saved["optimizer_states"][0]["param_groups"][0].pop("momentum"),
    "a momentum of another shape": lambda saved: saved["optimizer_states"][0]["state"][0].update(
        momentum_buffer=torch.zeros(7)
    ),
    "another optimiser": put("adam", *CONFIG, "optimizer"),
    "a schedule of other weights": lambda saved: saved["lr_schedulers"][0]["base_lrs"].append(1.0),
    "a schedule that is None": put([None], "lr_schedulers"),
}
"""What is changed in a checkpoint that is to be resumed."""


def changed(change: Change) -> dict[str, Any]:
    saved = copy.deepcopy(torch.load(GOOD, weights_only=True))
    change(saved)
    assert isinstance(saved, dict)
    return saved


def test_there_are_many_variants() -> None:
    assert len(FILES) + len(CHANGES) + len(TRAINING) >= 60


@pytest.mark.parametrize("what", FILES)
def test_a_damaged_file(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    path.write_bytes(FILES[what])
    with pytest.raises(UsageError, match=r"is not a checkpoint that 'anystride train' wrote, or it is damaged") as told:
        read_checkpoint(path)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500 + len(str(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]  # no code ran


@pytest.mark.parametrize("what", CHANGES)
def test_a_checkpoint_of_something_else(what: str, tmp_path: Path) -> None:
    torch.save(changed(CHANGES[what]), tmp_path / "last.ckpt")
    with pytest.raises(UsageError, match=r"is not a checkpoint that 'anystride train' wrote, or it is damaged") as told:
        read_checkpoint(tmp_path / "last.ckpt")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("what", TRAINING)
def test_a_training_that_cannot_go_on(what: str, tmp_path: Path) -> None:
    torch.save(changed(TRAINING[what]), tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["hyper_parameters"]["shape"] == [1, 32, 32]
    with pytest.raises(UsageError, match=r"wrote, or it is damaged") as told:
        saved_configuration(tmp_path / "last.ckpt")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", [[1, 2], "text", None, torch.zeros(2), {}, {1: 2}])
def test_another_value(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "last.ckpt")
    with pytest.raises(UsageError, match="is not a checkpoint"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent", Path("a\0b"), tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="and is no file"):
            read_checkpoint(path)


@pytest.mark.parametrize("command", ["export", "train --resume --out"])
@pytest.mark.parametrize("what", ["text", "cut at 60 %", "code in torch's format"])
def test_commands_say_it_in_one_line(
    command: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "last.ckpt").write_bytes(FILES[what])
    assert cli.main([*command.split(), str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "is not a checkpoint that 'anystride train' wrote" in printed
    assert printed.count("\n") == 1


def test_a_good_one_is_read_and_the_random_state_stays() -> None:
    before = torch.get_rng_state()
    saved = read_checkpoint(GOOD, resumable=True)
    assert saved["hyper_parameters"]["preprocessing"] == {}
    assert torch.equal(before, torch.get_rng_state())
    assert check(saved).state_dict().keys() == {name.removeprefix("model.") for name in saved["state_dict"]}
    assert diverged(saved) == ""


def test_weights_that_are_not_finite_are_told(tmp_path: Path) -> None:
    torch.save(changed(lambda saved: saved["state_dict"][HEAD].fill_(math.nan)), tmp_path / "last.ckpt")
    text = diverged(read_checkpoint(tmp_path / "last.ckpt"))
    assert text.startswith("1 of ")
    assert HEAD in text
