"""A run's folder: nothing in it is lost, mixed or half written, whatever a command asks for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from anystride.lab.errors import BusyError, UsageError
from anystride.lab.files import remove_leftovers, replacing
from anystride.lab.run.config import RunConfig
from anystride.lab.run.experiment import run
from anystride.lab.run.folder import CHECKPOINT, CONFIGURATION, RECORD, decide
from anystride.lab.run.lock import LOCK, claim
from anystride.lab.run.record import load

from ..conftest import tiny
from .test_training import InterruptedRunError, StopAfter, comparable

ONE = tiny(method="strided", epochs=1)


class StopAtStep(pl.Callback):
    """Ends a run in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file() and path.name != LOCK}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    run(ONE, tmp_path)
    return tmp_path


def test_a_finished_run_is_shown_and_not_made_again(finished: Path) -> None:
    before = files(finished)
    assert run(ONE, finished) == load(finished / RECORD)
    assert run(ONE, finished, mode="resume") == load(finished / RECORD)
    assert files(finished) == before


@pytest.mark.parametrize("mode", ["new", "continue", "resume"])
def test_a_finished_run_is_not_replaced_by_another(finished: Path, mode: Any) -> None:
    before = files(finished)
    with pytest.raises(UsageError, match=r"lr 0\.05 instead of 0\.01|got lr 0\.01 instead of 0\.05") as refusal:
        run(tiny(method="strided", epochs=1, lr=0.01), finished, mode=mode)
    assert str(finished) in str(refusal.value)
    assert files(finished) == before


def test_overwriting_removes_what_was_made_of_the_run_and_nothing_else(finished: Path) -> None:
    for name in ("strides.png", "model.onnx", "notes.txt"):
        (finished / name).write_text("old")
    other = tiny(method="strided", epochs=1, lr=0.01)
    run(other, finished, mode="overwrite")
    assert load(finished / RECORD).config == other
    assert not (finished / "strides.png").exists()
    assert not (finished / "model.onnx").exists()
    assert (finished / "notes.txt").read_text() == "old"
    assert len(list((finished / "tensorboard").glob("events*"))) == 1


def test_an_interrupted_run_is_neither_mixed_nor_lost(tmp_path: Path) -> None:
    config = tiny(method="inner")
    whole = run(config, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        run(config, tmp_path / "broken", callbacks=(StopAfter(0),))
    before = files(tmp_path / "broken")
    with pytest.raises(UsageError, match="holds this run, interrupted; --resume goes on, --overwrite starts over"):
        run(config, tmp_path / "broken")
    with pytest.raises(UsageError, match="holds an interrupted run with lr"):
        run(tiny(method="inner", lr=0.01), tmp_path / "broken")
    assert files(tmp_path / "broken") == before
    assert comparable(run(config, tmp_path / "broken", mode="resume")) == comparable(whole)


def test_an_interruption_in_the_first_epoch_can_be_resumed(tmp_path: Path) -> None:
    config = tiny(method="inner", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "broken", callbacks=(StopAtStep(2),))
    assert (tmp_path / "broken" / CHECKPOINT).is_file()
    resumed = run(config, tmp_path / "broken", mode="resume")
    assert comparable(resumed) == comparable(run(config, tmp_path / "whole"))


def test_a_run_that_was_killed_before_its_first_checkpoint_can_be_resumed(tmp_path: Path) -> None:
    run(ONE, tmp_path)
    for name in (RECORD, CHECKPOINT):
        (tmp_path / name).unlink()
    assert run(ONE, tmp_path, mode="resume").config == ONE


def test_a_finished_run_goes_on_with_more_epochs(finished: Path) -> None:
    more = tiny(method="strided", epochs=3)
    record = run(more, finished, mode="resume")
    assert len(record.epochs) == 3
    assert record.extended == [1]
    assert load(finished / RECORD) == record
    with pytest.raises(UsageError, match="can add epochs and not take them away, got epochs 1 instead of 3"):
        run(ONE, finished, mode="resume")


def test_an_extension_keeps_the_old_record_until_it_ends(finished: Path) -> None:
    more = tiny(method="strided", epochs=2)
    old = load(finished / RECORD)
    with pytest.raises(KeyboardInterrupt):
        run(more, finished, mode="resume", callbacks=(StopAtStep(9),))
    assert load(finished / RECORD) == old
    assert decide(more, finished, "resume") == "resume"
    assert run(more, finished, mode="resume").extended == [1]


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume finds no run in"):
        run(ONE, tmp_path / "none", mode="resume")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04" + bytes(200)])
def test_a_damaged_checkpoint_is_named_and_a_grid_starts_over(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InterruptedRunError):
        run(ONE, tmp_path, callbacks=(StopAfter(0),))
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(UsageError, match=r"last.ckpt' is not a checkpoint.*--overwrite removes the run"):
        run(ONE, tmp_path, mode="resume")
    assert (tmp_path / CHECKPOINT).read_bytes() == content
    assert run(ONE, tmp_path, mode="continue").config == ONE


def test_a_damaged_record_is_not_taken_for_an_unfinished_run(finished: Path) -> None:
    (finished / RECORD).write_text("{")
    for mode in ("new", "resume", "continue"):
        with pytest.raises(UsageError, match=r"record.json' is not a readable record"):
            run(ONE, finished, mode=mode)  # type: ignore[arg-type]
    assert (finished / RECORD).read_text() == "{"


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--batch-size"):
        run(tiny(batch_size=1000), tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "last.ckpt")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        run(ONE, tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_later_keeps_the_latest_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = torch.save, []

    def full(*arguments: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device", "last.ckpt")
        save(*arguments, **more)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        run(ONE, tmp_path)
    assert sorted(files(tmp_path)) == [CONFIGURATION, CHECKPOINT]
    monkeypatch.undo()
    assert run(ONE, tmp_path, mode="resume").config == ONE


def test_a_lock_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(UsageError, match="cannot be locked"):
        run(ONE, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="must be a folder, got"):
        run(ONE, tmp_path / "file")


def test_a_run_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    with claim(tmp_path) as ours:
        assert ours
        with pytest.raises(BusyError, match="another process works on the run"):
            run(ONE, tmp_path, mode="overwrite")
    assert list(tmp_path.iterdir()) == [tmp_path / LOCK]


def test_a_folder_that_only_a_lock_is_in_goes_with_it(tmp_path: Path) -> None:
    with claim(tmp_path / "runs" / "a") as ours:
        assert ours
        with claim(tmp_path / "runs" / "a") as again:
            assert not again
    assert list(tmp_path.iterdir()) == []
    with claim(tmp_path / "b"):
        (tmp_path / "b" / "file").write_text("")
    assert (tmp_path / "b" / LOCK).exists()


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    with replacing(path) as unfinished:
        unfinished.write_text("new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "new"


def test_leftovers_of_killed_processes_are_removed_and_others_stay(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    with replacing(tmp_path / "record.json") as mine:
        mine.write_text("")
        dead = mine.with_name(mine.name.replace(str(os.getpid()), ended.stdout.decode().strip()))
        elsewhere = mine.with_name(f".record.json.another-machine-{os.getpid()}.part")
        users = mine.with_name(".hidden.part")
        for path in (dead, elsewhere, users):
            path.write_text("")
        remove_leftovers(tmp_path)
        assert mine.exists()
        assert not dead.exists()
        assert elsewhere.exists()
    remove_leftovers(tmp_path, ours=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.part", "record.json"]


def test_names_of_runs_tell_them_apart() -> None:
    base = RunConfig(data="/some/Own Photos!", method="inner")
    assert base.title.startswith("Own-Photos-resnet18-w8-inner-2x2x2-seed0-")
    others = [
        RunConfig(data="/other/Own Photos!", method="inner"),
        RunConfig(data="/some/Own Photos!", method="inner", epochs=9),
        RunConfig(data="/some/Own Photos!", method="inner", width=16),
    ]
    assert len({each.title for each in (base, *others)}) == 4
