"""Runs that are as small as a run can be: narrow, few scenes, two or three epochs, or none at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anystride.lab.run.config import RunConfig

pytest.importorskip("lightning", reason="needs the extra 'lab'")


def tiny(**changes: Any) -> RunConfig:
    """A configuration that trains in a second or two."""
    return replace(RunConfig(width=2, epochs=2, train_size=128, test_size=64, batch_size=16), **changes)


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is as wide as without a terminal, wherever tests run: their workers may have COLUMNS."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a network for images that was never trained, whose files a reader of the tests reads."""
    from .trained import save, untrained, use_fake_reader

    use_fake_reader(monkeypatch)
    save(untrained(), tmp_path / "run" / "last.ckpt")
    return tmp_path / "run"
