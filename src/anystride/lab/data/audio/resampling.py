"""From any sampling rate to another one, with memory and time that do not depend on the ratio.

Ordinary ratios, as 44,100 or 48,000 Hz to 16,000 Hz, go through torchaudio. Its table of filters has as many values as
the product of both rates without their common factors: for 44,099 Hz three gigabytes, and several copies of them. Other
ratios go through the library soxr, whose filters do not grow.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from anystride.lab.data.audio.wave import Floats

RATES = (1_000, 10_000_000)
"""The lowest and the highest rate that is read, in Hz."""
LARGEST = 1 << 20
"""Values of torchaudio's table of filters, at most."""
CROSSINGS = 6
"""Zero crossings of torchaudio's filters on each side; its default."""


def table_size(rate: int, wanted: int) -> int:
    """How many values torchaudio's table of filters would have."""
    common = math.gcd(rate, wanted)
    own, new = rate // common, wanted // common
    width = math.ceil(CROSSINGS * own / (min(own, new) * 0.99))
    return new * (2 * width + own)


def resampled(mono: Floats, rate: int, wanted: int) -> Floats:
    """`mono` (samples,) float32 of `rate` Hz at `wanted` Hz: samples * wanted / rate of them, rounded up."""
    if rate == wanted:
        return mono
    if table_size(rate, wanted) <= LARGEST:
        from torchaudio.functional import resample

        out: Floats = resample(torch.from_numpy(mono), rate, wanted, lowpass_filter_width=CROSSINGS).numpy()
        return out
    import soxr

    return np.asarray(soxr.resample(mono, rate, wanted), dtype=np.float32)
