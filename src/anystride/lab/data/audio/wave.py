"""Samples as integers and as floats, and one wav file written."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anystride.lab.data.audio.frontend import SAMPLE_RATE

Samples = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]


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
