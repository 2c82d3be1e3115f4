"""Log-compressed mel spectrograms (section 3.1): 16 kHz, 64 bands, windows of 25 ms every 10 ms.

What the paper leaves open is fixed here: Hann windows, a transform of 512 points, power (not magnitude), triangular
bands on the HTK mel scale from 60 Hz to 7800 Hz as in the same authors' other audio work, and no padding. Thus
every frame holds 25 ms of real sound, and one second is 98 frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from anystride.lab.errors import UsageError

SAMPLE_RATE = 16_000
SECOND = SAMPLE_RATE
"""Samples of one window of the paper, 1 s."""
BANDS = 64
WINDOW = 400
HOP = 160
FFT = 512
LOWEST, HIGHEST = 60.0, 7800.0
FLOOR = 1e-5
"""Power under which sound counts as silence: 90 dB below a full-scale tone, well above the noise of 16 bits."""
FRAMES = 1 + (SECOND - WINDOW) // HOP
"""Frames of one second, 98: frame i covers the samples 160 i to 160 i + 399."""

RANGES: dict[str, tuple[float, float]] = {
    "sample_rate": (1_000, 1_000_000),
    "samples": (1, 100_000_000),
    "window": (1, 1 << 20),
    "hop": (1, 1 << 20),
    "fft": (1, 1 << 20),
    "bands": (1, 10_000),
    "lowest": (0.0, 1e6),
    "highest": (0.0, 1e6),
    "floor": (1e-30, 1e30),
}
"""What the values of a `FrontEnd` may be that comes from a file. They are wide: they keep memory and numbers finite."""
PIECE = 512
"""Inputs that become spectrograms at a time: an hour of sound would need ten gigabytes at once."""


@dataclass(frozen=True)
class FrontEnd:
    """Everything that turns sound into inputs; the defaults are those of the paper and of all data sets here.

    Args:
        sample_rate: in Hz.
        samples: of one input; a longer sound is several inputs.
        window: samples of one frame.
        hop: samples from one frame to the next.
        fft: points of the transform.
        bands: on the mel scale.
        lowest: where the first band begins, in Hz.
        highest: where the last band ends, in Hz.
        floor: power under which sound counts as silence.
    """

    sample_rate: int = SAMPLE_RATE
    samples: int = SECOND
    window: int = WINDOW
    hop: int = HOP
    fft: int = FFT
    bands: int = BANDS
    lowest: float = LOWEST
    highest: float = HIGHEST
    floor: float = FLOOR

    def to_json(self) -> dict[str, Any]:
        """As plain values, for `Source.preprocessing`."""
        return {"kind": "sound", **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FrontEnd:
        """The inverse of `to_json`.

        Raises:
            UsageError: a value is missing, of another type or out of its range, or is not known here.
        """
        default = cls().to_json()
        if values.keys() != default.keys() or values["kind"] != "sound":
            raise UsageError(f"preprocessing of sound must have the values {default}, or others, got {dict(values)}")
        for name, (lowest, highest) in RANGES.items():
            value = values[name]
            kinds = (int, float) if isinstance(default[name], float) else (int,)
            if type(value) not in kinds or not lowest <= value <= highest:
                raise UsageError(
                    f"preprocessing of sound: {name} must be from {lowest:,} to {highest:,}, got {value!r}; "
                    "the file that holds it is damaged"
                )
        return cls(**{name: value for name, value in values.items() if name != "kind"})


class LogMel:
    """`log(1 + mel / FLOOR)` of waveforms (N, samples): (N, 1, frames, 64) float32, the vertical axis is time.

    Silence is exactly 0, which is also what a convolution pads with; a full-scale tone is about 20. The compression
    is a fixed function. Nothing is estimated from data: nothing leaks from the test data, and several tasks share one
    front end.
    """

    def __init__(self, device: torch.device | None = None, settings: FrontEnd | None = None) -> None:
        from torchaudio.transforms import MelSpectrogram

        self.settings = settings = settings or FrontEnd()
        self.mel = MelSpectrogram(
            sample_rate=settings.sample_rate,
            n_fft=settings.fft,
            win_length=settings.window,
            hop_length=settings.hop,
            pad=(settings.fft - settings.window) // 2,  # the window sits in the middle: frame 0 starts at sample 0
            center=False,
            f_min=settings.lowest,
            f_max=settings.highest,
            n_mels=settings.bands,
            power=2.0,
            mel_scale="htk",
        ).to(device or torch.device("cpu"))

    @torch.no_grad()
    def __call__(self, waveforms: Tensor) -> Tensor:
        """`waveforms` (N, samples), int16 or float in [-1, 1], at 16 kHz, at least 25 ms long."""
        pieces = [self._spectrograms(piece) for piece in waveforms.split(PIECE)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _spectrograms(self, waveforms: Tensor) -> Tensor:
        samples = waveforms.float()
        if waveforms.dtype == torch.int16:
            samples = samples / 2**15
        mel: Tensor = self.mel(samples)
        return torch.log1p(mel / self.settings.floor).transpose(1, 2).unsqueeze(1)
