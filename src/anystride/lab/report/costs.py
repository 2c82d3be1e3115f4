"""Costs of records that an older version counted, counted anew from what was run and the strides at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from anystride.lab.data.names import is_known, tasks_of
from anystride.lab.models import registry
from anystride.lab.models.measure import COUNTER, multiply_accumulates
from anystride.lab.paper.datasets import dataset_facts
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record

WIDEST, LARGEST = 128, 1024
"""Width, and lengths of an input, up to which a network is built for its costs: a record may ask for any."""


def counted_anew(record: Record) -> Record:
    """The record with the multiply-accumulates that the present counter gives; as it is where that cannot be known.

    The network is built without data. What it runs on is in newer records; in older ones it follows from the data set.
    """
    if record.counter == COUNTER:
        return record
    config = record.config
    shape = tuple(record.input_shape or _shape(config))
    if not shape or max(*shape, len(record.classes)) > LARGEST or config.width > WIDEST:
        return record
    try:
        start, end = (
            _count(config, tuple(map(tuple, strides)), shape, len(record.classes))
            for strides in (record.start_strides, record.strides)
        )
    except (ValueError, RuntimeError, TypeError):
        return record
    return replace(record, start_multiply_accumulates=start, multiply_accumulates=end, counter=COUNTER)


def _shape(config: RunConfig) -> Sequence[int]:
    """(C, H, W) of one input of a known data set; empty where it is not known."""
    if not is_known(config.data):
        return ()
    try:
        return dataset_facts(tasks_of(config.data)[0], config).shape
    except ValueError:
        return ()


@lru_cache(maxsize=1024)
def _count(config: RunConfig, strides: tuple[tuple[float, ...], ...], shape: tuple[int, ...], classes: int) -> int:
    pairs = tuple((float(pair[0]), float(pair[-1])) for pair in strides)
    spec = replace(config, strides=pairs, grid="free", seed=0).network([classes], shape[0])
    return multiply_accumulates(registry.build(config.model, spec), torch.empty(1, *shape))
