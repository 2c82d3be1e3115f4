"""Log-compressed mel spectrograms (section 3.1): 16 kHz, 64 bands, windows of 25 ms every 10 ms.

What the paper leaves open is fixed here: Hann windows, a transform of 512 points, power (not magnitude), triangular
bands on the HTK mel scale from 60 Hz to 7800 Hz as in the same authors' other audio work, and no padding. Thus
every frame holds 25 ms of real sound, and one second is 98 frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

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


class LogMel:
    """`log(1 + mel / FLOOR)` of waveforms (N, samples): (N, 1, frames, 64) float32, the vertical axis is time.

    Silence is exactly 0, which is also what a convolution pads with; a full-scale tone is about 20. The compression
    is a fixed function. Nothing is estimated from data: nothing leaks from the test data, and several tasks share one
    front end.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        from torchaudio.transforms import MelSpectrogram

        self.mel = MelSpectrogram(
            sample_rate=SAMPLE_RATE,
            n_fft=FFT,
            win_length=WINDOW,
            hop_length=HOP,
            pad=(FFT - WINDOW) // 2,  # the window sits in the middle of the transform: frame 0 starts at sample 0
            center=False,
            f_min=LOWEST,
            f_max=HIGHEST,
            n_mels=BANDS,
            power=2.0,
            mel_scale="htk",
        ).to(device or torch.device("cpu"))

    @torch.no_grad()
    def __call__(self, waveforms: Tensor) -> Tensor:
        """`waveforms` (N, samples), int16 or float in [-1, 1], at 16 kHz, at least 25 ms long."""
        samples = waveforms.float()
        if waveforms.dtype == torch.int16:
            samples = samples / 2**15
        mel: Tensor = self.mel(samples)
        return torch.log1p(mel / FLOOR).transpose(1, 2).unsqueeze(1)
