"""One run from its configuration to its record: data, model, training, measurements."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from anystride.lab.config import SCENES, RunConfig, difference
from anystride.lab.data.folder import folder_task
from anystride.lab.data.module import LabelledImages, TensorData
from anystride.lab.data.scenes import CANVAS, scene_task
from anystride.lab.errors import UsageError
from anystride.lab.measure import map_sizes, multiply_accumulates
from anystride.lab.record import SCHEMA, Record, finite_or_none, provenance, save
from anystride.lab.text import strides_text
from anystride.lab.training import Classifier, Curves, LastCheckpoint, strides_of

RECORD = "record.json"
CHECKPOINT = "last.ckpt"
LOG = "tensorboard"


def run(config: RunConfig, folder: Path, *, resume: bool = False, callbacks: Sequence[pl.Callback] = ()) -> Record:
    """Train as configured and leave in ``folder``: record.json, last.ckpt and TensorBoard's log.

    ``resume`` goes on after the latest finished epoch of an interrupted run, with the result that the uninterrupted
    run would have had; UsageError if ``folder`` holds none, or one of another configuration.
    """
    started = time.perf_counter()
    checkpoint = folder / CHECKPOINT
    if resume:
        _check_resumable(checkpoint, config)
    data = task(config)
    if config.batch_size > len(data.train_images):
        count = len(data.train_images)
        raise UsageError(f"--batch-size must be at most {count}, the training images, got {config.batch_size}")
    torch.manual_seed(config.seed)
    classifier = build(config, data)
    image = data.train_images[:1]
    start: dict[str, Any] = {
        "start_strides": strides_of(classifier),
        "start_map_sizes": map_sizes(classifier.model, image),
        "start_multiply_accumulates": multiply_accumulates(classifier.model, image),
    }
    _check_strides(config, start["start_map_sizes"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    if not resume:
        # What an earlier run left must not be taken for this one's, should this one be interrupted.
        checkpoint.unlink(missing_ok=True)
        shutil.rmtree(folder / LOG, ignore_errors=True)

    curves = Curves()
    with _quiet():
        trainer = pl.Trainer(
            max_epochs=config.epochs,
            accelerator="auto",
            devices=1,
            deterministic=torch.cuda.is_available(),
            logger=TensorBoardLogger(folder, name="", version=LOG),
            callbacks=[curves, *callbacks, LastCheckpoint(checkpoint)],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        try:
            trainer.fit(
                classifier,
                datamodule=TensorData(data, config.batch_size, config.seed),
                ckpt_path=checkpoint if resume else None,
                weights_only=True,
            )
        except SystemExit as stop:
            # Lightning turns Ctrl-C into an exit without a word; the command line has something to say.
            raise KeyboardInterrupt from stop
    classifier.cpu()
    last = curves.epochs[-1]
    record = {
        "schema": SCHEMA,
        "command": ["anystride", *sys.argv[1:]],
        "configuration": config.to_json(),
        "seed": config.seed,
        **provenance(),
        "classes": list(data.classes),
        "accuracy": last["test_accuracy"],
        "loss": finite_or_none(last["test_loss"]),
        **start,
        "strides": last["strides"],
        "map_sizes": map_sizes(classifier.model, image),
        "multiply_accumulates": multiply_accumulates(classifier.model, image),
        "parameters": sum(parameter.numel() for parameter in classifier.model.parameters()),
        "epochs": finite_or_none(curves.epochs),
        "seconds": {
            "train": sum(epoch["seconds"] for epoch in curves.epochs),
            "total": time.perf_counter() - started,
        },
    }
    save(record, folder / RECORD)
    return record


def build(config: RunConfig, data: LabelledImages) -> Classifier:
    """The untrained classifier; a UsageError instead of the model's own ValueError for impossible settings."""
    try:
        return Classifier(config, len(data.classes), data.train_images.shape[1])
    except ValueError as error:
        raise UsageError(str(error)) from error


def task(config: RunConfig) -> LabelledImages:
    """The images that a configuration asks for."""
    return _task(config.data, config.image_size, config.train_size, config.test_size, config.seed)


@cache
def _task(data: str, image_size: int, train_size: int, test_size: int, seed: int) -> LabelledImages:
    if data == SCENES:
        if image_size != CANVAS:
            raise UsageError(f"--image-size of the scenes is {CANVAS}, got {image_size}; it can be set for a folder")
        return scene_task(train_size, test_size, seed)
    return folder_task(Path(data), image_size, seed)


def _check_strides(config: RunConfig, sizes: list[list[int]]) -> None:
    for number, (stride, size) in enumerate(zip(config.strides, sizes, strict=False), start=1):
        if stride[0] > size[0] or stride[1] > size[1]:
            largest = "x".join(map(str, size))
            given = strides_text([list(stride)])
            raise UsageError(f"--strides must not exceed the map, {largest} pixels before stride {number}, got {given}")


def _check_resumable(checkpoint: Path, config: RunConfig) -> None:
    saved = saved_configuration(checkpoint)
    if saved is None:
        raise UsageError(f"--resume needs {str(checkpoint)!r}, which does not exist; leave it out to start a new run")
    changed = difference(config.to_json(), saved)
    if changed:
        raise UsageError(f"--resume must repeat the interrupted run's options, got {changed}")


def saved_configuration(checkpoint: Path) -> dict[str, Any] | None:
    """The configuration that a checkpoint was made with, in JSON form; None where there is no checkpoint."""
    if not checkpoint.is_file():
        return None
    configuration: dict[str, Any] = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["config"]
    return configuration


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
