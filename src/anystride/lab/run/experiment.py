"""One run from its configuration to its record: data, model, training, measurements."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from anystride.lab.data.catalogue import open_source
from anystride.lab.data.module import SourceData
from anystride.lab.data.source import Source
from anystride.lab.errors import UsageError
from anystride.lab.models.measure import map_sizes, multiply_accumulates
from anystride.lab.record import finite_or_none, provenance
from anystride.lab.report.text import strides_text
from anystride.lab.run.config import RunConfig, difference
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.record import Record, load, save
from anystride.lab.run.training import Classifier, Curves, LastCheckpoint, strides_of

RECORD = "record.json"
CHECKPOINT = "last.ckpt"
LOG = "tensorboard"


def run(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    environment: RunEnvironment | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Record:
    """Train as configured and leave in `folder`: record.json, last.ckpt and TensorBoard's log.

    Args:
        config: what is trained, and how.
        folder: it is made where it is absent.
        resume: go on after the latest finished epoch of an interrupted run. The result is that of a run without the
            interruption.
        environment: data folder and processes.
        callbacks: what else Lightning calls during the training.

    Returns:
        The record that lies in `folder`.

    Raises:
        UsageError: the configuration does not fit the data, the network or the number of processes, or `folder` holds
            no interrupted run of this configuration to resume.
    """
    started = time.perf_counter()
    environment = environment or RunEnvironment()
    checkpoint = folder / CHECKPOINT
    if resume:
        _check_resumable(checkpoint, config)
    source = open_source(config, environment.root, environment.download)
    _check_batch(config, source, environment)
    torch.manual_seed(config.seed)
    classifier = build(config, source)
    start: dict[str, Any] = {
        "start_strides": strides_of(classifier),
        "start_map_sizes": map_sizes(classifier.model, source.example),
        "start_multiply_accumulates": multiply_accumulates(classifier.model, source.example),
    }
    _check_strides(config, start["start_map_sizes"])
    if environment.is_first:
        _prepare_folder(folder, resume)
    curves = Curves()
    with _quiet():
        trainer = _trainer(config, environment, folder, [curves, *callbacks, LastCheckpoint(checkpoint)])
        _fit(trainer, classifier, _data(config, source), checkpoint if resume else None)
    classifier.cpu()
    record = _record(config, environment, source, classifier, curves.epochs, start, started)
    if environment.is_first:
        save(record, folder / RECORD)
    return record


def _prepare_folder(folder: Path, resume: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    if not resume:
        # Should this run be interrupted, nothing that an earlier run left may be taken for its own.
        (folder / CHECKPOINT).unlink(missing_ok=True)
        shutil.rmtree(folder / LOG, ignore_errors=True)


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
    )


def _fit(trainer: pl.Trainer, classifier: Classifier, data: SourceData, checkpoint: Path | None) -> None:
    try:
        trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an exit without a word; the command line has something to say.
        raise KeyboardInterrupt from stop


def _record(
    config: RunConfig,
    environment: RunEnvironment,
    source: Source,
    classifier: Classifier,
    epochs: list[dict[str, Any]],
    start: dict[str, Any],
    started: float,
) -> Record:
    """What came out of a training; `start` has the fields that were measured before it."""
    last = epochs[-1]
    return Record(
        command=["anystride", *sys.argv[1:]],
        configuration=config.to_json(),
        seed=config.seed,
        **provenance(),
        devices=environment.world,
        classes=list(source.classes),
        examples=source.counts,
        accuracy=last["test_accuracy"],
        top5=last.get("test_top5"),
        accuracies=last.get("tasks", {classifier.tasks[0]: last["test_accuracy"]}),
        loss=finite_or_none(last["test_loss"]),
        **start,
        strides=last["strides"],
        map_sizes=map_sizes(classifier.model, source.example),
        multiply_accumulates=multiply_accumulates(classifier.model, source.example),
        parameters=sum(parameter.numel() for parameter in classifier.model.parameters()),
        epochs=finite_or_none(epochs),
        seconds={
            "train": sum(epoch["seconds"] for epoch in epochs),
            "total": time.perf_counter() - started,
        },
    )


def build(config: RunConfig, source: Source) -> Classifier:
    """Build the untrained classifier; UsageError for settings that the network refuses."""
    try:
        return Classifier(config, source.heads, source.example.shape[1:])
    except ValueError as error:
        raise UsageError(str(error)) from error


def _check_batch(config: RunConfig, source: Source, environment: RunEnvironment) -> None:
    count, parts = source.train_length, config.accumulate * environment.world
    if config.batch_size > count and not config.epoch_steps:
        raise UsageError(f"--batch-size must be at most {count}, the training examples, got {config.batch_size}")
    if config.batch_size % parts:
        raise UsageError(
            f"--batch-size must be a multiple of {parts}, the parts that --accumulate {config.accumulate} and "
            f"{environment.world} processes make of a step, got {config.batch_size}"
        )


def _check_strides(config: RunConfig, sizes: list[list[int]]) -> None:
    if len(sizes) <= len(config.strides):
        return  # the maps before the strides are not listed
    for number, (stride, size) in enumerate(zip(config.strides, sizes, strict=False), start=1):
        if any(one > length for one, length in zip(stride, size, strict=False)):  # series have one length
            largest, unit = "x".join(map(str, size)), "pixels" if len(size) == 2 else "samples"
            given = strides_text([list(stride)])
            raise UsageError(f"--strides must not exceed the map, {largest} {unit} before stride {number}, got {given}")


def _check_resumable(checkpoint: Path, config: RunConfig) -> None:
    saved = saved_configuration(checkpoint)
    if saved is None:
        raise UsageError(f"--resume needs {str(checkpoint)!r}, which does not exist; leave it out to start a new run")
    changed = difference(config, saved)
    if changed:
        raise UsageError(f"--resume must repeat the interrupted run's options, got {changed}")


def saved_configuration(checkpoint: Path) -> RunConfig | None:
    """The configuration that a checkpoint was made with; None where there is no checkpoint."""
    if not checkpoint.is_file():
        return None
    return RunConfig.from_json(torch.load(checkpoint, weights_only=True)["hyper_parameters"]["config"])


def finished(config: RunConfig, folder: Path) -> Record | None:
    """The record of a finished run of this configuration; None where there is none."""
    if not (folder / RECORD).is_file():
        return None
    record = load(folder / RECORD)
    return record if record.config == config else None


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
