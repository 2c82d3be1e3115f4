"""One wav file as mono 16 kHz, and back."""

from __future__ import annotations

import struct
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anystride.lab.data.audio.frontend import SAMPLE_RATE
from anystride.lab.errors import UsageError

Samples = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]


SLACK = 64
"""Bytes by which a file may be shorter than its header says: programs count the last chunk's padding differently."""


class UnreadableError(UsageError):
    """A file that is no wav file, is cut off or holds no sound."""


def read_wave(path: Path) -> Samples:
    """The sound of a wav file: int16, mono (the mean of the channels), resampled to 16 kHz, (samples,).

    Reads integers of 8, 16, 24 and 32 bits and floats, any number of channels and any sampling rate. Raises
    UnreadableError for a file that is missing, empty, cut off or not a wav file.
    """
    from scipy.io import wavfile  # type: ignore[import-untyped]  # comes with scikit-learn, ships no annotations

    if not path.is_file():
        raise UnreadableError(f"{str(path)!r} is missing; unpack or download it again")
    try:
        with warnings.catch_warnings():
            # Unknown chunks (cue marks, notes of an editor) are no defect; a file that is cut off is looked for below.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
        whole = _missing_bytes(path) <= SLACK
    except Exception as error:  # a broken header makes the reader fail in many ways: struct.error, ValueError, ...
        raise UnreadableError(
            f"{str(path)!r} is not a wav file that can be read; unpack or download it again"
        ) from error
    if not whole:
        raise UnreadableError(f"{str(path)!r} is cut off; unpack or download it again")
    if samples.size == 0 or rate <= 0:
        raise UnreadableError(f"{str(path)!r} holds no sound; unpack or download it again")
    if samples.dtype == np.int16 and samples.ndim == 1 and rate == SAMPLE_RATE:
        return np.ascontiguousarray(samples)
    mono = _unit(samples)
    if mono.ndim == 2:
        mono = mono.mean(axis=1)
    if rate != SAMPLE_RATE:
        from torchaudio.functional import resample

        mono = resample(torch.from_numpy(mono), rate, SAMPLE_RATE).numpy()
    return to_int16(mono)


def _missing_bytes(path: Path) -> int:
    """How many bytes a file lacks of what its header announces."""
    with path.open("rb") as file:
        kind, size = struct.unpack("<4sI", file.read(8))
    # A program that writes into a pipe does not know the size and leaves the largest number.
    return int(size) + 8 - path.stat().st_size if kind == b"RIFF" and size < 2**32 - 1 else 0


def _unit(samples: npt.NDArray[Any]) -> Floats:
    """Samples of any type as float32 in [-1, 1]; 24 bits arrive in the upper bits of 32."""
    unit: npt.NDArray[Any]
    if samples.dtype == np.uint8:
        unit = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        unit = samples.astype(np.float32) / 2.0 ** (8 * samples.dtype.itemsize - 1)
    else:
        unit = np.nan_to_num(samples)
    return np.asarray(unit, dtype=np.float32)


def to_int16(samples: Floats) -> Samples:
    """Floats in [-1, 1] as int16; what lies outside is clipped."""
    return np.asarray(np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1), dtype=np.int16)


def write_wave(path: Path, samples: Samples) -> None:
    """Write mono int16 samples at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
