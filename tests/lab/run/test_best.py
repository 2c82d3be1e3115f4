"""The best epoch by validation is kept and tested once; training stops, starts and is limited as asked for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anystride.lab.data import catalogue
from anystride.lab.data.holdout import hold_out
from anystride.lab.data.scenes import scene_task
from anystride.lab.data.source import Batch, TensorSource
from anystride.lab.errors import UsageError
from anystride.lab.run.callbacks import Checkpoints, Curves
from anystride.lab.run.checkpoint import read_checkpoint
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.experiment import run
from anystride.lab.run.folder import BEST, CHECKPOINT
from anystride.lab.run.ready import prepare
from anystride.lab.run.record import Record
from anystride.lab.run.training import load_classifier

from ..conftest import tiny
from .test_training import InterruptedRunError, StopAfter, comparable

VALIDATED = tiny(method="inner", epochs=4, train_size=200, validation=0.2, lr=0.2)


def test_examples_are_set_aside_by_class_and_the_same_ones_in_every_run() -> None:
    source = scene_task(300, 10, seed=0)
    held = hold_out(source, 0.1)
    assert (held.train_length, held.validation_length, held.test_length) == (270, 30, 10)
    everything = torch.arange(30)
    images, labels = held.validation_batch(everything)
    shares = torch.bincount(labels, minlength=10) / torch.bincount(source.train_labels, minlength=10)
    assert float((shares - 0.1).abs().max()) < 0.03
    trained, _ = held.train_batch(torch.arange(270), torch.Generator())
    together = torch.cat([images, trained]).flatten(1)
    assert len(torch.unique(together, dim=0)) == len(torch.unique(source.train_images.flatten(1), dim=0))
    assert torch.equal(hold_out(source, 0.1).validation_batch(everything)[1], labels)
    assert hold_out(source, 0.0) is source


def test_a_class_of_one_example_cannot_be_divided() -> None:
    images, labels = torch.zeros(5, 1, 8, 8), torch.tensor([0, 0, 0, 0, 1])
    source = TensorSource(images, labels, images, labels, ("many", "one"))
    with pytest.raises(UsageError, match="'one' has 1"):
        hold_out(source, 0.2)


def test_the_best_epoch_is_kept_and_the_test_examples_are_used_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[int] = []
    test_batch = TensorSource.test_batch

    def counted(self: TensorSource, rows: Tensor) -> Batch:
        tested.extend(rows.tolist())
        return test_batch(self, rows)

    monkeypatch.setattr(TensorSource, "test_batch", counted)
    record = run(VALIDATED, tmp_path)
    assert sorted(tested) == list(range(64))
    accuracies = [epoch["validation_accuracy"] for epoch in record.epochs]
    assert record.best_epoch == 1 + accuracies.index(max(accuracies))
    assert record.validation_accuracy == max(accuracies)
    assert "test_accuracy" not in record.epochs[0]
    best = load_classifier(tmp_path / BEST)
    assert [block.pool.stride.tolist() for block in best.model.shortcut_blocks] == record.strides  # type: ignore[union-attr, operator]
    assert record.strides == record.epochs[record.best_epoch - 1]["strides"]
    source = catalogue.open_source(VALIDATED)
    with torch.no_grad():
        images, labels = source.test_batch(torch.arange(64))
        assert record.accuracy == pytest.approx((best(images).argmax(1) == labels).float().mean().item())


def test_a_resumed_run_has_the_same_best_epoch(tmp_path: Path) -> None:
    whole = run(VALIDATED, tmp_path / "whole")
    for epoch in (0, 2):
        with pytest.raises(InterruptedRunError):
            run(VALIDATED, tmp_path / "broken", mode="continue", callbacks=(StopAfter(epoch),))
    resumed = run(VALIDATED, tmp_path / "broken", mode="resume")
    assert comparable(resumed) == comparable(whole)
    assert resumed.best_epoch == whole.best_epoch
    one, other = (read_checkpoint(tmp_path / name / BEST)["state_dict"] for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_first_of_equal_epochs_is_the_best(tmp_path: Path) -> None:
    curves = Curves(9)
    kept = Checkpoints(tmp_path, curves, patience=0)
    assert kept.best is None
    curves.epochs = [{"validation_accuracy": value} for value in (0.1, 0.3, 0.3, 0.2)]
    assert kept.best == 1
    curves.epochs = [{"test_accuracy": 0.5}]
    assert kept.best is None


def test_training_stops_when_patience_ends_and_stays_stopped(tmp_path: Path) -> None:
    # Weights that never move: the first epoch stays the best.
    config = tiny(method="strided", epochs=9, validation=0.2, patience=2, lr=1e-12)
    record = run(config, tmp_path)
    assert len(record.epochs) == 3
    assert record.best_epoch == 1
    (tmp_path / "record.json").unlink()  # as if it had been killed before it wrote this
    assert comparable(run(config, tmp_path, mode="resume")) == comparable(record)


def test_patience_needs_validation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--patience 2 needs validation examples"):
        run(tiny(patience=2), tmp_path / "a")


def test_a_network_starts_from_the_weights_of_another_run(tmp_path: Path) -> None:
    run(tiny(method="inner", epochs=1), tmp_path / "first")
    strides = load_classifier(tmp_path / "first" / CHECKPOINT).model.state_dict()
    tuned = run(tiny(method="inner", epochs=1, seed=3, lr=1e-12, init=str(tmp_path / "first")), tmp_path / "second")
    first, second = (load_classifier(tmp_path / name / CHECKPOINT).model for name in ("first", "second"))
    for name, value in first.named_parameters():
        assert torch.allclose(second.get_parameter(name), value, atol=1e-6), name
    assert tuned.start_strides == [strides[f"stages.{stage}.0.pool.stride"].tolist() for stage in (1, 2, 3)]

    given = ((2.5, 2.5), (2.0, 2.0), (2.0, 2.0))
    other = run(tiny(method="inner", epochs=1, strides=given, init=str(tmp_path / "first")), tmp_path / "third")
    assert other.start_strides == [list(pair) for pair in given]


def test_another_network_cannot_start_from_a_run(tmp_path: Path) -> None:
    run(tiny(method="strided", epochs=1), tmp_path / "first")
    with pytest.raises(UsageError, match=r"--init .* has another network: .* repeat its --model, --width"):
        run(tiny(method="strided", width=4, init=str(tmp_path / "first")), tmp_path / "second")
    with pytest.raises(UsageError, match="--init must be the folder of a run"):
        run(tiny(init=str(tmp_path / "nothing")), tmp_path / "second")
    learned = run(tiny(method="inner", epochs=1, init=str(tmp_path / "first")), tmp_path / "second")
    assert learned.start_strides == [[2.0, 2.0]] * 3


def test_a_budget_brings_the_costs_down(tmp_path: Path) -> None:
    def trained(**changes: Any) -> Record:
        return run(tiny(method="inner", epochs=3, stride_lr=1.0, **changes), tmp_path / str(len(changes)))

    free, limited = trained(), trained(budget_macs="0.5x", validation=0.1)
    start = free.start_multiply_accumulates
    assert limited.start_multiply_accumulates == start
    assert limited.multiply_accumulates <= 0.51 * start < 0.75 * start < free.multiply_accumulates
    saved = read_checkpoint(tmp_path / "2" / CHECKPOINT)
    assert saved["hyper_parameters"]["budget"] == 0.5 * start
    assert "budget.multiplier" in saved["state_dict"]


def test_strides_rest_just_within_the_budget(tmp_path: Path) -> None:
    config = tiny(method="inner", epochs=4, stride_lr=0.5, stride_until=0.5, budget_macs="strided:2,2,3")
    record = run(config, tmp_path / "whole")
    learned, fitted, *later = [epoch["strides"] for epoch in record.epochs][1:]
    assert learned != fitted
    assert all(strides == fitted for strides in later)
    limit = prepare(config, RunEnvironment()).classifier.budget
    assert limit is not None
    assert 0.9 * limit.limit < record.multiply_accumulates <= limit.limit
    for stop in (2, 3):
        with pytest.raises(InterruptedRunError):
            run(config, tmp_path / str(stop), callbacks=[StopAfter(stop)])
        assert comparable(run(config, tmp_path / str(stop), mode="resume")) == comparable(record)


def test_a_budget_is_kept_from_the_first_step_on(tmp_path: Path) -> None:
    """Strides that do not move by themselves show where they start."""
    for budget in ("0.5x", "2x"):
        config = tiny(method="inner", epochs=2, stride_lr=0.0, stride_until=1.0, budget_macs=budget)
        record = run(config, tmp_path / budget)
        first = record.epochs[0]["multiply_accumulates"]
        share = first / record.start_multiply_accumulates
        assert 0.95 * float(budget[:-1]) < share <= float(budget[:-1])


def test_strides_rest_without_a_budget(tmp_path: Path) -> None:
    record = run(tiny(method="outer", epochs=2, stride_lr=0.5, stride_until=0.5), tmp_path / "run")
    first, second = [epoch["strides"] for epoch in record.epochs]
    assert record.start_strides != first == second


def test_strides_that_never_learn_fit_the_budget_from_the_start(tmp_path: Path) -> None:
    config = tiny(method="cosine", epochs=2, stride_until=0.0, budget_macs="strided:2,2,3")
    record = run(config, tmp_path / "run")
    first, second = [epoch["strides"] for epoch in record.epochs]
    assert record.start_strides != first == second
    limit = prepare(config, RunEnvironment()).classifier.budget
    assert limit is not None
    assert record.multiply_accumulates <= limit.limit


def test_a_budget_that_no_strides_meet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--budget-macs 1000 cannot be met: limit must be at least [\d,]+"):
        run(tiny(method="inner", budget_macs="1000"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_epoch_beyond_the_budget_is_not_the_best(tmp_path: Path) -> None:
    curves = Curves(9)
    kept = Checkpoints(tmp_path, curves, patience=0)
    epochs = [(0.9, False), (0.5, True), (0.6, True), (0.8, False)]
    curves.epochs = [{"validation_accuracy": accuracy, "within_budget": within} for accuracy, within in epochs]
    assert kept.best == 2
    curves.epochs = curves.epochs[:1]
    assert kept.best == 0


def test_a_budget_can_be_what_strided_convolutions_cost(tmp_path: Path) -> None:
    strided = prepare(tiny(method="strided", strides=((3.0, 3.0), (2.0, 2.0), (1.0, 1.0))), RunEnvironment())
    limited = prepare(tiny(method="cosine", budget_macs="strided:3,2,1"), RunEnvironment())
    assert limited.classifier.budget is not None
    assert limited.classifier.budget.limit == strided.start["start_multiply_accumulates"]


def test_a_budget_needs_strides_that_learn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--budget-macs 0\.5x needs a method that learns, outer, inner, cosine; got"):
        run(tiny(method="strided", budget_macs="0.5x"), tmp_path / "fixed")
    with pytest.raises(UsageError, match=r"--lam 0\.1 needs a method that learns"):
        run(tiny(method="strided", lam=0.1), tmp_path / "fixed")


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "inner", "decay": "weights"},
        {"model": "resnet18-release", "method": "release", "strides": ((1.0, 1.0),) + ((2.0, 2.0),) * 3},
        {"mixup": 0.2, "mixup_by": "pair", "augment": "release"},
    ],
)
def test_a_run_of_each_kind_goes_on_to_the_same_result(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny(**changes)
    with pytest.raises(InterruptedRunError):
        run(config, tmp_path / "broken", callbacks=[StopAfter(1)])
    whole = run(config, tmp_path / "whole")
    assert comparable(run(config, tmp_path / "broken", mode="resume")) == comparable(whole)
