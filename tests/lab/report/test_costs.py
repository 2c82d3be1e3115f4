"""Costs that an older version counted are counted anew; those that cannot be stay."""

import pytest

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from dataclasses import replace

import torch

from anystride.lab.models import registry
from anystride.lab.models.measure import COUNTER, multiply_accumulates
from anystride.lab.report.costs import counted_anew
from anystride.lab.run.config import RunConfig

from ..records import fabricated as newer

SMALL = RunConfig(width=4, method="inner")


def fabricated(run, **changes):
    return newer(run, counter=None, **changes)


def test_an_old_record_gets_the_costs_of_its_final_strides():
    record = fabricated(SMALL, strides=[[1.5, 1.8], [2.1, 2.4], [2.6, 2.2]])
    found = counted_anew(record)
    network = registry.build("resnet18", replace(SMALL, strides=((1.5, 1.8), (2.1, 2.4), (2.6, 2.2))).network([2], 1))
    assert found.multiply_accumulates == multiply_accumulates(network, torch.empty(1, 1, 32, 32))
    start = registry.build("resnet18", SMALL.network([2], 1))
    assert found.start_multiply_accumulates == multiply_accumulates(start, torch.empty(1, 1, 32, 32))
    assert found.counter == COUNTER
    assert counted_anew(found) is found


def test_the_input_of_a_newer_record_decides():
    record = fabricated(replace(SMALL, method="strided", data="photographs"), input_shape=[3, 64, 64])
    network = registry.build("resnet18", replace(SMALL, method="strided").network([2], 3))
    assert counted_anew(record).multiply_accumulates == multiply_accumulates(network, torch.empty(1, 3, 64, 64))


@pytest.mark.parametrize(
    "record",
    [
        fabricated(replace(SMALL, data="photographs")),  # nobody knows what it ran on
        fabricated(replace(SMALL, width=10**6)),
        fabricated(replace(SMALL, image_size=10**6)),
        fabricated(SMALL, input_shape=[3, 10**6, 4]),
        fabricated(SMALL, input_shape=[3]),
        fabricated(replace(SMALL, method="average")),  # a network that refuses it
    ],
)
def test_what_cannot_be_counted_stays(record):
    assert counted_anew(record) is record
