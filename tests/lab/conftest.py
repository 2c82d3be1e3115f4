"""Runs that are as small as a run can be: narrow, few scenes, two or three epochs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anystride.lab.run.config import RunConfig

pytest.importorskip("lightning", reason="needs the extra 'lab'")


def tiny(**changes: Any) -> RunConfig:
    """A configuration that trains in a second or two."""
    return replace(RunConfig(width=2, epochs=2, train_size=128, test_size=64, batch_size=16), **changes)
