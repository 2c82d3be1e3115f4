"""Runs as work for several workers: never twice, on from where they stopped, the same whoever makes them."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

from anystride.lab.data.catalogue import open_source
from anystride.lab.data.module import EvaluationBatches, SourceData, TrainParts, mix, mix_pairs
from anystride.lab.data.scenes import scene_task
from anystride.lab.data.source import Source
from anystride.lab.errors import UsageError
from anystride.lab.run.experiment import run
from anystride.lab.run.folder import CHECKPOINT, RECORD
from anystride.lab.run.job import Job, run_job
from anystride.lab.run.local import run_in_turn
from anystride.lab.run.lock import claim
from anystride.lab.run.progress import Display, ProgressUpdate
from anystride.lab.run.record import Record, load
from anystride.lab.run.training import Classifier, load_classifier

from ..conftest import tiny
from .processes import alive, children, wait_for
from .test_training import comparable

KILLED = """
import os, sys
from pathlib import Path
import lightning.pytorch as pl
from anystride.lab.run.config import RunConfig
from anystride.lab.errors import UsageError
from anystride.lab.run.experiment import run
import json

class Die(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == 1 and trainer.global_step % trainer.num_training_batches == 3:
            os.kill(os.getpid(), 9)

run(RunConfig.from_json(json.loads(sys.argv[1])), Path(sys.argv[2]), callbacks=(Die(),))
"""


def silent(_: ProgressUpdate) -> None:
    pass


def train(folder: Path, *options: str, launcher: tuple[str, ...] = ()) -> Record:
    """`anystride train` in processes of its own."""
    command = [sys.executable, *launcher, "-m", "anystride.lab.cli", "train", *options, "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return load(folder / RECORD)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    config = tiny(method="inner", epochs=3)
    command = [sys.executable, "-c", KILLED, json.dumps(config.to_json()), str(tmp_path / "killed")]
    done = subprocess.run(command, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "killed" / CHECKPOINT).exists()
    assert not (tmp_path / "killed" / RECORD).exists()
    seen: list[ProgressUpdate] = []
    resumed = run_job(Job("again", config, tmp_path / "killed"), seen.append)
    whole = run_job(Job("whole", config, tmp_path / "whole"), silent)
    assert resumed.record is not None
    assert whole.record is not None
    assert {update.epoch for update in seen if update.status} == {"2/3", "3/3"}
    assert comparable(resumed.record) == comparable(whole.record)
    one, other = (load_classifier(tmp_path / name / CHECKPOINT).state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_run_is_not_repeated_unless_asked_for(tmp_path: Path) -> None:
    config = tiny(method="strided", epochs=1)
    first = run_job(Job("a", config, tmp_path), silent)
    written = (tmp_path / RECORD).stat().st_mtime_ns
    assert run_job(Job("a", config, tmp_path), silent) == first
    assert (tmp_path / RECORD).stat().st_mtime_ns == written
    run_job(Job("a", config, tmp_path, fresh=True), silent)
    assert (tmp_path / RECORD).stat().st_mtime_ns > written


def test_a_run_of_another_configuration_is_not_replaced(tmp_path: Path) -> None:
    first = run_job(Job("a", tiny(method="strided", epochs=1), tmp_path), silent)
    other = run_job(Job("b", tiny(method="strided", epochs=1, lr=0.01), tmp_path), silent)
    assert other.record is None
    assert "holds a finished run with lr 0.05 instead of 0.01" in other.problem
    assert load(tmp_path / RECORD) == first.record


def test_two_workers_never_take_the_same_run(tmp_path: Path) -> None:
    job = Job("a", tiny(method="strided", epochs=1), tmp_path)
    with claim(tmp_path) as ours:
        assert ours
        # Another process, as on another machine that shares the folder.
        script = f"from anystride.lab.run.lock import claim\nfrom pathlib import Path\n\
with claim(Path({str(tmp_path)!r})) as ours: print(ours)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"
        outcome = run_job(job, silent)
    assert outcome.record is None
    assert outcome.problem == "another worker has it"
    assert run_job(job, silent).record is not None


def test_a_killed_worker_gives_its_run_back(tmp_path: Path) -> None:
    script = f"from anystride.lab.run.lock import claim\nfrom pathlib import Path\nimport time\n\
with claim(Path({str(tmp_path)!r})):\n    print('mine', flush=True)\n    time.sleep(60)"
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "mine\n"
    with claim(tmp_path) as ours:
        assert not ours
    worker.kill()
    worker.wait()
    worker.stdout.close()
    with claim(tmp_path) as ours:
        assert ours


def test_one_failing_run_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Any, *_: Any, **more: Any) -> Record:
        if config.seed == 0:
            raise RuntimeError("out of memory\nand more")
        return run(config, *_, **more)

    monkeypatch.setattr("anystride.lab.run.job.run", fail)
    jobs = [Job(str(seed), tiny(method="strided", epochs=1, seed=seed), tmp_path / str(seed)) for seed in (0, 1)]
    with Display(Console(record=True)) as display:
        first, second = run_in_turn(jobs, display)
    assert first.problem == "RuntimeError: out of memory"
    assert second.record is not None


def test_parts_of_a_step_do_not_depend_on_who_works_on_them() -> None:
    source = scene_task(40, 4, seed=0)

    def parts(**options: int) -> list[tuple[list[int], int]]:
        order = TrainParts(source, 8, 3, **options)
        order.set_epoch(2)
        made = [(rows.tolist(), seed) for rows, seed in order]
        assert len(made) == len(order)
        return made

    accumulated = parts(accumulate=2)
    first, second = (parts(rank=rank, world=2) for rank in (0, 1))
    assert [part for pair in zip(first, second, strict=True) for part in pair] == accumulated
    whole = [rows for rows, _ in parts()]
    assert [a + b for (a, _), (b, _) in zip(first, second, strict=True)] == whole
    assert len({seed for _, seed in accumulated}) == len(accumulated) == 10


def test_an_epoch_of_a_number_of_steps_may_be_shorter_or_longer_than_a_pass() -> None:
    source = scene_task(10, 4, seed=0)
    for steps in (1, 7):
        rows = torch.cat([rows for rows, _ in TrainParts(source, 4, 0, steps=steps)])
        assert len(rows) == 4 * steps
        assert int(torch.bincount(rows, minlength=10).max()) == -(-4 * steps // 10)


def test_mixup_mixes_inputs_and_keeps_both_labels() -> None:
    inputs, labels = torch.arange(6.0).reshape(6, 1, 1, 1), torch.arange(6)
    mixed, first, second, share = mix(inputs, labels, 0.4, torch.Generator().manual_seed(1))
    assert torch.equal(first, labels)
    assert sorted(second.tolist()) == labels.tolist()
    assert 0 <= share <= 1
    expected = share * labels + (1 - share) * second
    assert torch.allclose(mixed.flatten(), expected)
    again = mix(inputs, labels, 0.4, torch.Generator().manual_seed(1))
    assert torch.equal(again[0], mixed)


def test_mixup_of_pairs_has_a_share_for_each() -> None:
    inputs, labels = torch.arange(200.0).reshape(200, 1, 1, 1), torch.arange(200)
    mixed, first, second, shares = mix_pairs(inputs, labels, 0.4, torch.Generator().manual_seed(1))
    assert torch.equal(first, labels[::2])
    assert torch.equal(second, labels[1::2])
    assert torch.allclose(mixed.flatten(), shares * first + (1 - shares) * second)
    assert len(shares.unique()) > 90
    assert torch.equal(mix_pairs(inputs, labels, 0.4, torch.Generator().manual_seed(1))[0], mixed)


def test_a_step_of_mixed_pairs_takes_twice_as_many_examples(tmp_path: Path) -> None:
    config = tiny(mixup=0.2, mixup_by="pair", train_size=64, batch_size=16, epochs=1)
    data = SourceData(open_source(config), config.batch_size, 0, mixup=0.2, pairs=True)
    batches = list(data.train_dataloader())
    assert [len(batch[0]) for batch in batches] == [16, 16]
    assert run(config, tmp_path / "run").loss is not None
    with pytest.raises(UsageError, match="--batch-size must be at most 32, half of the training examples, got 40"):
        run(replace(config, batch_size=40), tmp_path / "large")


class Windows(Source):
    """Two tasks of two classes each; each test example has two inputs, a strong one and a weak one."""

    def __init__(self) -> None:
        self.heads = {"left": ("a", "b"), "right": ("c", "d")}
        self.example = torch.zeros(1, 1, 16, 16)
        self.train_length, self.test_length, self.test_rows = 64, 16, 8

    def _image(self, labels: torch.Tensor) -> torch.Tensor:
        images = torch.zeros(len(labels), 1, 16, 16)
        images[:, 0, :8] = (labels % 2).float()[:, None, None] * 2 - 1
        return images

    def train_batch(self, rows: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        labels = rows % 4
        return self._image(labels) + 0.1 * torch.randn(len(rows), 1, 16, 16, generator=generator), labels

    def test_batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        labels = rows % 4
        pairs = torch.stack([self._image(labels), 0.7 * self._image(labels)], dim=1).flatten(0, 1)
        return pairs, labels, torch.arange(len(rows)).repeat_interleave(2)


def test_the_logits_of_an_examples_windows_are_averaged() -> None:
    classifier = Classifier(tiny(), {"left": ("a", "b"), "right": ("c", "d")}, (1, 32, 32))
    classifier.use(lambda inputs: inputs)
    # Two windows of three say "a", the third one says "b" louder; all of them shout a class of the other task.
    first = [[1.0, 0, 99, 0], [1, 0, 99, 0], [0, 4, 99, 0]]
    second = [[99.0, 0, 0, 1]]
    batch = (torch.tensor(first + second), torch.tensor([1, 3]), torch.tensor([0, 0, 0, 1]))
    logged: dict[str, Any] = {}
    classifier.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign, assignment]
    classifier.validation_step(batch, 0)
    classifier.on_validation_epoch_end()
    assert logged["test/accuracy/left"] == logged["test/accuracy/right"] == logged["test/accuracy"] == 1
    means = torch.tensor([[2 / 3, 4 / 3], [0, 1]])
    assert logged["test/loss"] == pytest.approx(cross_entropy(means, torch.tensor([1, 1])).item())


def test_tasks_have_heads_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anystride.lab.run.ready.open_source", lambda *_: Windows())
    record = run(tiny(method="inner", width=4, epochs=8, batch_size=8, lr=0.1), tmp_path)
    assert record.accuracies == {"left": 1.0, "right": 1.0}
    assert record.accuracy == 1.0
    assert record.classes == ["a", "b", "c", "d"]
    # A class of the other task is never a guess: with two classes a loss above that of guessing would mean so.
    assert record.epochs[0]["train_loss"] < 1.0
    assert record.top5 is None


def test_test_batches_cover_every_example_once() -> None:
    source = scene_task(8, 300, seed=0)
    data = SourceData(source, 4, 0)
    labels = torch.cat([batch[1] for batch in data.val_dataloader()])
    assert torch.equal(labels, source.test_labels)
    assert len(EvaluationBatches(source, validation=False)[torch.arange(3)][0]) == 3


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precision_and_accumulation_train(tmp_path: Path, precision: str) -> None:
    record = run(tiny(method="inner", precision=precision, accumulate=2, epochs=1), tmp_path)
    assert record.loss is not None
    assert record.strides != record.start_strides


def test_accumulation_changes_only_what_batch_normalisation_sees(tmp_path: Path) -> None:
    whole, parts = (run(tiny(method="spectral", accumulate=parts, epochs=1), tmp_path / str(parts)) for parts in (1, 4))
    assert parts.epochs[0]["train_loss"] == pytest.approx(whole.epochs[0]["train_loss"], rel=0.05)


def test_parts_must_divide_the_batch(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch-size must be a multiple of 3"):
        run(tiny(accumulate=3), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [(), ("-m", "torch.distributed.run", "--nproc-per-node=2")], ids=["own", "torchrun"]
)
def test_two_processes_have_the_losses_of_one(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """One process that accumulates two parts sees the same parts, each with batch statistics of its own."""
    options = ["--method", "inner", "--width", "2", "--epochs", "2", "--scenes", "128", "--batch-size", "16"]
    options += ["--threads", "1", "--validation", "0"]
    one = train(tmp_path / "one", *options, "--accumulate", "2")
    two = train(tmp_path / "two", *options, "--devices", "2", launcher=launcher)
    assert two.devices == 2
    for ours, theirs in zip(two.epochs, one.epochs, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        assert torch.allclose(torch.tensor(ours["strides"]), torch.tensor(theirs["strides"]), atol=1e-4)


@pytest.mark.slow
def test_ray_gives_the_records_of_runs_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra 'cluster'")
    from anystride.lab.run.on_ray import run_all_on_ray

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

    def jobs(folder: Path) -> list[Job]:
        return [Job(f"run {seed}", tiny(epochs=1, seed=seed), folder / str(seed)) for seed in (0, 1)]

    console = Console(record=True, width=160)
    with Display(console) as display:
        spread = {o.job.config.seed: o.record for o in run_all_on_ray(jobs(tmp_path / "ray"), display)}
        in_turn = {o.job.config.seed: o.record for o in run_in_turn(jobs(tmp_path / "turn"), display)}
        assert "run 1  1/1" in console.export_text()
        bad = [Job("bad", tiny(batch_size=1000), tmp_path / "bad")]
        (failed,) = run_all_on_ray(bad, display)
        assert "--batch-size must be at most 128" in failed.problem
    for seed, record in in_turn.items():
        assert record is not None
        assert spread[seed] is not None
        assert comparable(spread[seed]) == comparable(record)  # type: ignore[arg-type]


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2")


def start(folder: Path, *options: str, port: int) -> subprocess.Popen[str]:
    """`anystride train` under torchrun with two processes, which have not ended yet."""
    launcher = (*TORCHRUN, "--master-port", str(port))
    command = [sys.executable, *launcher, "-m", "anystride.lab.cli", "train", *options, "--out", str(folder)]
    command += ["--devices", "2", "--width", "2", "--scenes", "128", "--batch-size", "16", "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.slow
def test_all_processes_leave_a_run_that_is_being_made(tmp_path: Path) -> None:
    with claim(tmp_path / "run") as ours:
        assert ours
        held = start(tmp_path / "run", "--epochs", "1", port=29611)
        text, _ = held.communicate(timeout=300)
    assert held.returncode != 0
    assert text.count("error: another process works on the run") == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_launches_on_one_folder_make_one_record(tmp_path: Path) -> None:
    both = [start(tmp_path / "run", "--epochs", "2", port=port) for port in (29612, 29613)]
    texts = [each.communicate(timeout=300)[0] for each in both]
    alone = start(tmp_path / "alone", "--epochs", "2", port=29614)
    assert alone.communicate(timeout=300)[1] is None
    assert comparable(load(tmp_path / "run" / RECORD)) == comparable(load(tmp_path / "alone" / RECORD)), texts
    # Of one process: the training writes a file, and the test of the best epoch another one.
    assert len({path.name.split(".")[-2] for path in (tmp_path / "run" / "tensorboard").glob("events*")}) == 1


@pytest.mark.slow
def test_all_processes_of_a_launch_end_when_it_is_killed(tmp_path: Path) -> None:
    killed = start(tmp_path / "run", "--epochs", "500", "--validation", "0", port=29615)
    wait_for(tmp_path / "run" / CHECKPOINT)
    workers = children(killed.pid)
    assert len(workers) >= 2
    killed.kill()
    killed.communicate()
    end = time.monotonic() + 120
    while left := [worker for worker in workers if alive(worker)]:
        assert time.monotonic() < end, left
        time.sleep(0.2)
