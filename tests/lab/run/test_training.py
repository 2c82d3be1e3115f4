"""Training: it learns, strides move, and an interruption does not change the result."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from anystride.lab.data.module import TrainParts
from anystride.lab.data.scenes import scene_task
from anystride.lab.run.experiment import run
from anystride.lab.run.folder import CHECKPOINT, RECORD
from anystride.lab.run.optimiser import SCHEDULES, cosine
from anystride.lab.run.record import Record, load
from anystride.lab.run.training import load_classifier

from ..conftest import tiny


class InterruptedRunError(Exception):
    pass


class StopAfter(pl.Callback):
    """Breaks a run off in the middle of the epoch after `epochs` finished ones."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.epochs and trainer.global_step % trainer.num_training_batches == 3:
            raise InterruptedRunError


def comparable(record: Record) -> dict[str, Any]:
    epochs = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in record.epochs]
    return {**{name: getattr(record, name) for name in ("accuracy", "loss", "strides", "map_sizes")}, "epochs": epochs}


@pytest.mark.slow
def test_loss_falls_and_strides_move(tmp_path: Path) -> None:
    record = run(tiny(epochs=4, train_size=256, strides=((3.0, 3.0), (2.0, 2.0), (3.0, 3.0))), tmp_path)
    losses = [epoch["train_loss"] for epoch in record.epochs]
    assert losses[-1] < losses[0] - 0.05
    first = [value for pair in record.strides[:2] for value in pair]
    assert all(abs(value - start) > 1e-3 for value, start in zip(first, (3.0, 3.0, 2.0, 2.0), strict=True))
    assert first[0] != first[1]


def test_a_run_leaves_a_complete_record_checkpoint_and_log(tmp_path: Path) -> None:
    config = tiny(method="inner")
    record = run(config, tmp_path)
    assert load(tmp_path / RECORD) == record
    assert record.configuration == config.to_json()
    assert len(record.epochs) == config.epochs
    assert record.start_map_sizes == [[32, 32], [16, 16], [8, 8], [4, 4]]
    assert 0 < record.seconds["train"] < record.seconds["total"]
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train/loss", "test/accuracy", "stride/1_vertical", "stride/3_horizontal"} <= set(log.Tags()["scalars"])
    assert [event.value for event in log.Scalars("stride/1_vertical")] == pytest.approx(
        [epoch["strides"][0][0] for epoch in record.epochs]
    )


def test_the_checkpoint_is_the_trained_model(tmp_path: Path) -> None:
    record = run(tiny(method="outer"), tmp_path)
    classifier = load_classifier(tmp_path / CHECKPOINT)
    assert not classifier.training
    strides = [block.pool.stride.tolist() for block in classifier.model.shortcut_blocks]  # type: ignore[union-attr, operator]
    assert strides == record.strides


@pytest.mark.slow
@pytest.mark.parametrize("method", ["strided", "outer", "inner"])
def test_resumed_equals_uninterrupted(tmp_path: Path, method: str) -> None:
    config = tiny(method=method, epochs=3)
    whole = run(config, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        run(config, tmp_path / "broken", callbacks=(StopAfter(1),))
    assert not (tmp_path / "broken" / RECORD).exists()
    torch.rand(7)  # whatever the global random state is when the user comes back
    resumed = run(config, tmp_path / "broken", mode="resume")
    assert comparable(resumed) == comparable(whole)
    one, other = (load_classifier(tmp_path / name / CHECKPOINT).state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_same_seed_same_result_other_seed_other_result(tmp_path: Path) -> None:
    one, same, other = (
        run(tiny(epochs=1, method="inner", seed=seed), tmp_path / name)
        for seed, name in ((5, "one"), (5, "same"), (6, "other"))
    )
    assert comparable(one) == comparable(same)
    assert one.loss != other.loss


@pytest.mark.slow
@pytest.mark.parametrize("method", ["outer", "inner"])
def test_the_complexity_term_raises_the_strides(tmp_path: Path, method: str) -> None:
    def product(lam: float) -> float:
        record = run(tiny(method=method, lam=lam), tmp_path / str(lam))
        return math.prod(value for pair in record.strides for value in pair)

    assert product(0.5) > 1.1 * product(0.0)


def test_a_shared_stride_stays_shared(tmp_path: Path) -> None:
    record = run(tiny(shared_stride=True, epochs=1), tmp_path)
    assert all(vertical == horizontal for vertical, horizontal in record.strides)
    assert record.strides != record.start_strides


def test_the_strides_own_learning_rate(tmp_path: Path) -> None:
    record = run(tiny(stride_lr=0.0, epochs=1), tmp_path)
    assert record.strides == record.start_strides


def test_batches_follow_from_seed_and_epoch() -> None:
    source = scene_task(10, 2, seed=0)

    def batches(seed: int, epoch: int) -> list[list[int]]:
        order = TrainParts(source, 4, seed)
        order.set_epoch(epoch)
        assert len(order) == 2
        return [rows.tolist() for rows, _ in order]

    assert batches(0, 3) == batches(0, 3)
    assert batches(0, 3) != batches(0, 4)
    assert batches(0, 3) != batches(1, 3)
    assert len({index for batch in batches(0, 0) for index in batch}) == 8


def test_schedules_start_and_end_where_they_should() -> None:
    assert cosine(0.2) == pytest.approx(1)
    assert cosine(0.0) == 0
    assert cosine(1.0) == pytest.approx(0, abs=1e-12)
    factors = [SCHEDULES["step"](progress) for progress in (0.0, 0.49, 0.5, 0.74, 0.75, 1.0)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    imagenet = [SCHEDULES["step-imagenet"](epoch / 90) for epoch in (0, 29.9, 30, 59.9, 60, 79.9, 80, 89.9)]
    assert imagenet == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert SCHEDULES["constant"](0.7) == 1
