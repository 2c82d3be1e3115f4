"""Runs that are as small as a run can be: narrow, few scenes, two or three epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from anystride.lab.config import RunConfig

pytest.importorskip("lightning", reason="needs the extra 'lab'")


@pytest.fixture(autouse=True)
def on_one_thread() -> Iterator[None]:
    """Tiny models are faster on one thread, and bit-for-bit comparisons do not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(**changes: Any) -> RunConfig:
    """A configuration that trains in a second or two."""
    return replace(RunConfig(width=2, epochs=2, train_size=128, test_size=64, batch_size=16), **changes)
