"""Arrays become files of their kind, and go the way of files."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.data.inputs import READERS, as_file, read_inputs
from anystride.lab.data.tree import KINDS
from anystride.lab.errors import UsageError

from ..trained import use_fake_reader


def test_there_is_a_reader_for_each_kind_of_file() -> None:
    assert set(READERS) == set(KINDS)


def test_a_path_is_taken_as_it_is() -> None:
    with as_file("a.wav", "sound") as path:
        assert path == Path("a.wav")


def test_a_sound_becomes_a_file_of_sixteen_bits() -> None:
    values = np.sin(np.arange(1600)).astype(np.float32)
    with as_file(values, "sound") as path, wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        read = np.frombuffer(file.readframes(1600), dtype="<i2") / (2**15 - 1)
    assert np.abs(read - values).max() < 2**-15
    assert not path.exists()


@pytest.mark.parametrize("values", [np.zeros((2, 5)), np.full(5, 2.0), np.full(5, np.nan), ["wave"]])
def test_what_is_no_sound(values: object) -> None:
    with pytest.raises(UsageError, match="an array of one sound"), as_file(values, "sound"):
        pass


def test_a_series_keeps_its_values() -> None:
    values = np.random.default_rng(0).normal(size=(2, 30))
    with as_file(torch.from_numpy(values), "series") as path:
        assert np.array_equal(np.load(path, allow_pickle=False), values)
    with pytest.raises(UsageError, match="an array of one series"), as_file(np.array([object()]), "series"):
        pass


@pytest.mark.parametrize(
    "error", [KeyError("mean"), MemoryError(), OSError(5, "Input/output error"), TypeError("x\ny")]
)
def test_whatever_a_reader_meets_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(*_: object) -> None:
        raise error

    use_fake_reader(monkeypatch, "series", reader)
    with pytest.raises(UsageError, match=r"'a\.npy' cannot be read") as told:
        read_inputs(Path("a.npy"), {"kind": "series"})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", [None, torch.zeros(0, 1, 5), torch.zeros(1, 1, 5, dtype=torch.float64)])
def test_what_is_no_input(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_reader(monkeypatch, "series", lambda *_: value)
    with pytest.raises(UsageError, match="gives no inputs"):
        read_inputs(Path("a.npy"), {"kind": "series"})
