"""One sound file as mono samples of the rate that a network hears."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anystride.lab.data.audio.extent import Extent, extent
from anystride.lab.data.audio.frontend import SAMPLE_RATE
from anystride.lab.data.audio.resampling import RATES, resampled
from anystride.lab.data.audio.wave import Floats, Samples, to_int16
from anystride.lab.errors import UsageError

if TYPE_CHECKING:
    import soundfile

BLOCK = 1 << 16
"""Samples of each channel that are decoded at a time: a header that lies about the length costs no memory."""
FRAME = 1152
"""Samples of one frame of MP3: encoders count those at both ends differently."""
UNKNOWN = 2**62
"""From here on libsndfile's count of samples means that the file does not tell it."""
LOUDEST = 16.0
"""The largest sample of floats; 1 is full scale. Above are integers that somebody wrote as floats."""


class UnreadableError(UsageError):
    """A file that is no sound file, is cut off or holds no sound. `reason` goes on after the file's name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} {reason}; repair it or get it again")
        self.reason = reason


def read_sound(path: Path, rate: int = SAMPLE_RATE) -> Samples:
    """The sound of a file: int16, mono (the mean of the channels), resampled to `rate`, (samples,).

    Reads what libsndfile reads, among it wav of all kinds (RIFF, RIFX, RF64, W64; integers of 8 to 32 bits and floats),
    FLAC, Ogg, AIFF and MP3, any number of channels and rates from 1 kHz to 10 MHz. A wav or FLAC file that was written
    into a pipe, and does not know its length, is read to its end. Floats above 1 are clipped. Mono wav with 16 bits and
    `rate` comes back bit for bit.

    Raises:
        UnreadableError: the file is missing, empty, cut off, no sound file, several sounds in one Ogg file, or has a
            sample that is no number or far above full scale.
    """
    try:
        if not path.is_file():
            raise UnreadableError(path, "is no file" if path.exists() else "is missing")
        return _read(path, rate)
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UnreadableError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _read(path: Path, rate: int) -> Samples:
    import soundfile

    from anystride.lab.data.audio.forward import ForwardFile

    found = extent(path)
    if found.cut_off:
        raise UnreadableError(path, "is cut off")
    if found.several:
        raise UnreadableError(path, "holds several sounds, one after another, of which the first alone could be read")
    try:
        with _opened(path, found) as content, ForwardFile(content, closefd=False) as file:
            own, announced, slack = file.samplerate, file.frames, _slack(path, file.format)
            mono = _decoded(file)
    except (soundfile.SoundFileError, RuntimeError, TypeError, MemoryError) as error:
        raise UnreadableError(path, "is not a sound file that can be read") from error
    if announced < UNKNOWN and len(mono) < announced - slack:
        raise UnreadableError(path, "is cut off")
    if not np.isfinite(mono).all():
        raise UnreadableError(path, "has samples that are no numbers (NaN or infinite)")
    if (peak := np.abs(mono).max(initial=0.0)) > LOUDEST:
        raise UnreadableError(path, f"has samples up to {peak:,.0f}, where 1 is full scale")
    if not RATES[0] <= own <= RATES[1]:
        raise UnreadableError(path, f"has {own:,} samples per second, and {RATES[0]:,} to {RATES[1]:,} can be read")
    samples = to_int16(resampled(mono, own, rate))
    if len(samples) == 0:
        raise UnreadableError(path, "holds no sound")
    return samples


@contextmanager
def _opened(path: Path, found: Extent) -> Iterator[int | io.BytesIO]:
    """The file as a descriptor, because libsndfile takes no path above 1,023 bytes; or as bytes with its length."""
    if found.at is not None:
        yield io.BytesIO(_mended(path, found.at, found.number))
        return
    with path.open("rb") as file:
        yield file.fileno()


def _decoded(file: soundfile.SoundFile) -> Floats:
    """All samples, the mean of the channels, float32 in [-1, 1]."""
    blocks = []
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _slack(path: Path, kind: str) -> float:
    """How many samples fewer than libsndfile announces there may be; for MP3 without a tag it makes a guess only."""
    if kind != "MP3":
        return 0
    with path.open("rb") as file:
        head = file.read(BLOCK)
    return FRAME if b"Xing" in head or b"Info" in head else math.inf


def _mended(path: Path, at: int, number: bytes) -> bytes:
    """The file with the length of its sound written into its header."""
    content = bytearray(path.read_bytes())
    content[at : at + len(number)] = number
    return bytes(content)
