"""One run from its configuration to its record: data, model, training, measurements."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from anystride.lab.data.module import SourceData
from anystride.lab.data.source import Source
from anystride.lab.errors import BusyError
from anystride.lab.models.measure import COUNTER, map_sizes, multiply_accumulates
from anystride.lab.record import finite_or_none, provenance
from anystride.lab.run.callbacks import Checkpoints, Curves, WholeFiles, measures
from anystride.lab.run.checkpoint import read_checkpoint
from anystride.lab.run.config import RunConfig
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.folder import BEST, CHECKPOINT, LOG, RECORD, Action, Mode, begin, decide, remove_run
from anystride.lab.run.lock import claim
from anystride.lab.run.ranks import all_prepare, end_with_parent, first_decides, launched
from anystride.lab.run.ready import Ready, prepare
from anystride.lab.run.record import Record, load, save
from anystride.lab.run.training import Classifier


def run(
    config: RunConfig,
    folder: Path,
    *,
    mode: Mode = "new",
    environment: RunEnvironment | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Record:
    """Train as configured and leave in `folder`: record.json, last.ckpt, TensorBoard's log, and best.ckpt.

    The folder is locked while the run lasts. A run that is finished is not made again: its record is returned.

    Args:
        config: what is trained, and how.
        folder: it is made where it is absent.
        mode: "new" for a folder without a run; "resume" goes on after the latest finished epoch of an interrupted run,
            or of a finished one for more epochs; "continue" goes on where that is possible and starts over otherwise;
            "overwrite" starts over. A resumed run has the result of one without an interruption.
        environment: data folder and processes.
        callbacks: what else Lightning calls during the training.

    Returns:
        The record that lies in `folder`.

    Raises:
        BusyError: another process works on the run.
        UsageError: the configuration does not fit the data, the network or the number of processes, or `folder` holds
            another run.
    """
    environment = environment or RunEnvironment()
    with _threads(config.threads):
        # Soon, before data are read; what counts is decided under the lock.
        if environment.is_first and decide(config, folder, mode) == "show" and environment.world == 1:
            return load(folder / RECORD)
        if launched() or not environment.is_first:
            end_with_parent()
        ready = all_prepare(environment, lambda: prepare(config, environment))
        with _taken(config, folder, mode, environment) as action:
            if action == "show":
                return load(folder / RECORD)
            return _train(ready, folder, action, callbacks)


@contextlib.contextmanager
def _taken(config: RunConfig, folder: Path, mode: Mode, environment: RunEnvironment) -> Iterator[Action]:
    """Lock the folder, decide in all processes alike, and make it ready; clean up after a run that never began."""
    with contextlib.ExitStack() as held:

        def first() -> str:
            if not held.enter_context(claim(folder)):
                return "busy"
            action = decide(config, folder, mode)
            if action != "show":
                begin(config, folder, action)
            return action

        action = first_decides(environment, first)
        if action == "busy":
            raise BusyError(
                f"another process works on the run in {str(folder)!r}; wait for it, or choose another --out"
            )
        try:
            yield action  # type: ignore[misc]  # what `decide` gave, as text
        except Exception:
            if environment.is_first and action == "start" and not (folder / CHECKPOINT).exists():
                remove_run(folder)
            raise


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads: sums depend on it, and no run may depend on how many others there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Tested(NamedTuple):
    """The epoch whose weights are the result, and what was measured with them."""

    epoch: int
    values: dict[str, Any]


def _train(ready: Ready, folder: Path, action: Action, callbacks: Sequence[pl.Callback]) -> Record:
    config, classifier = ready.config, ready.classifier
    curves = Curves(config.epochs)
    kept = Checkpoints(folder, curves, config.patience)
    data = _data(config, ready.source)
    with _quiet():
        trainer = _trainer(config, ready.environment, folder, [curves, *callbacks, kept])
        resume = action == "resume" and (folder / CHECKPOINT).is_file()
        _interruptible(
            lambda: trainer.fit(
                classifier, datamodule=data, ckpt_path=folder / CHECKPOINT if resume else None, weights_only=True
            )
        )
        tested = _test(trainer, classifier, data, folder, curves, kept)
    classifier.cpu()
    record = _record(ready, curves, tested)
    if ready.environment.is_first:
        save(record, folder / RECORD)
    return record


def _test(
    trainer: pl.Trainer, classifier: Classifier, data: SourceData, folder: Path, curves: Curves, kept: Checkpoints
) -> _Tested:
    """Test the best epoch, once; without validation examples the last epoch was tested already."""
    if kept.best is None:
        return _Tested(len(curves.epochs) - 1, curves.epochs[-1])
    classifier.load_state_dict(read_checkpoint(folder / BEST)["state_dict"])
    _interruptible(lambda: trainer.test(classifier, datamodule=data, verbose=False))
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return _Tested(kept.best, measures(metrics, "test", classifier.tasks))


def _trainer(config: RunConfig, environment: RunEnvironment, folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator="auto",
        devices=environment.devices,
        num_nodes=environment.nodes,
        strategy="ddp" if environment.world > 1 else "auto",
        sync_batchnorm=environment.world > 1 and torch.cuda.is_available(),
        use_distributed_sampler=False,  # `TrainParts` gives each process its part
        precision=config.precision,  # type: ignore[arg-type]  # the command line knows the choices
        accumulate_grad_batches=config.accumulate,
        deterministic=torch.cuda.is_available(),
        logger=TensorBoardLogger(folder, name="", version=LOG),
        plugins=[WholeFiles()],
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1 if not config.epoch_steps else 50,
    )


def _data(config: RunConfig, source: Source) -> SourceData:
    return SourceData(
        source,
        config.batch_size,
        config.seed,
        steps=config.epoch_steps,
        accumulate=config.accumulate,
        mixup=config.mixup,
        pairs=config.mixup_by == "pair",
    )


def _interruptible(work: Callable[[], object]) -> None:
    try:
        work()
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an exit without a word; the command line has something to say.
        raise KeyboardInterrupt from stop


def _record(ready: Ready, curves: Curves, tested: _Tested) -> Record:
    """What came out of a training."""
    epochs = curves.epochs
    config, source, model = ready.config, ready.source, ready.classifier.model
    best, values = epochs[tested.epoch], tested.values
    validated: dict[str, Any] = {}
    if config.validation:
        validated = {"best_epoch": tested.epoch + 1, "validation_accuracy": best["validation_accuracy"]}
    return Record(
        command=["anystride", *sys.argv[1:]],
        configuration=config.to_json(),
        seed=config.seed,
        **provenance(),
        devices=ready.environment.world,
        classes=list(source.classes),
        examples=source.counts,
        input_shape=list(source.example.shape[1:]),
        accuracy=values["test_accuracy"],
        top5=values.get("test_top5"),
        accuracies=values.get("tasks", {ready.classifier.tasks[0]: values["test_accuracy"]}),
        loss=finite_or_none(values["test_loss"]),
        **validated,
        extended=curves.planned[:-1] or None,
        **ready.start,
        strides=best["strides"],
        map_sizes=map_sizes(model, source.example),
        multiply_accumulates=multiply_accumulates(model, source.example),
        counter=COUNTER,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        epochs=finite_or_none(epochs),
        seconds={
            "train": sum(epoch["seconds"] for epoch in epochs),
            "total": time.perf_counter() - ready.started,
        },
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notices about hardware, workers and its products from the terminal; errors still show."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
