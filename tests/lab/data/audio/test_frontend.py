"""The mel spectrogram: the right band, the right frame, finite values; and reading wav files of every kind."""

import numpy as np
import pytest
import torch

pytest.importorskip("torchaudio", reason="needs the extra 'paper'")

from anystride.lab.data.audio.frontend import BANDS, FRAMES, HIGHEST, LOWEST, LogMel
from anystride.lab.data.audio.reading import UnreadableError, read_sound
from anystride.lab.data.audio.wave import to_int16, write_wave
from anystride.lab.errors import UsageError

from .sounds import RATE, tone, write


def mel(hertz):
    return 2595 * np.log10(1 + hertz / 700)


@pytest.mark.parametrize("hertz", [120.0, 440.0, 1000.0, 3000.0, 7000.0])
def test_a_tone_lights_its_band(hertz):
    spectrogram = LogMel()(torch.from_numpy(tone(hertz)).float()[None])
    band = (mel(hertz) - mel(LOWEST)) / (mel(HIGHEST) - mel(LOWEST)) * (BANDS + 1) - 1
    assert spectrogram.shape == (1, 1, FRAMES, BANDS) == (1, 1, 98, 64)
    assert abs(spectrogram[0, 0, 50].argmax().item() - band) <= 1


def test_a_frame_is_ten_milliseconds():
    click = torch.zeros(1, RATE)
    click[0, 8000] = 1
    heard = LogMel()(click)[0, 0].amax(dim=1).nonzero().flatten()
    # Frame i covers the samples 160 i to 160 i + 399; Hann windows are zero at their first sample.
    assert heard.tolist() == [48, 49, 50] or heard.tolist() == [48, 49]


def test_silence_is_zero_and_loud_is_finite():
    frontend = LogMel()
    assert frontend(torch.zeros(2, RATE)).abs().max() == 0
    assert frontend(torch.full((1, RATE), 32767, dtype=torch.int16)).isfinite().all()


def test_long_sounds_become_spectrograms_in_pieces(monkeypatch):
    sound = torch.from_numpy(np.random.default_rng(0).normal(0, 1000, (11, RATE)).astype(np.int16))
    frontend = LogMel()
    whole, sizes = frontend(sound), []
    mel = frontend.mel
    monkeypatch.setattr("anystride.lab.data.audio.frontend.PIECE", 4)
    monkeypatch.setattr(frontend, "mel", lambda samples: (sizes.append(len(samples)), mel(samples))[1])
    torch.testing.assert_close(frontend(sound), whole, rtol=1e-5, atol=1e-5)
    assert sizes == [4, 4, 3]


def test_int16_and_float_agree():
    samples = tone(500)
    spectrogram = LogMel()
    whole = torch.from_numpy(to_int16(samples.astype(np.float32)))[None]
    torch.testing.assert_close(
        spectrogram(whole), spectrogram(torch.from_numpy(samples).float()[None]), atol=0.05, rtol=0
    )


@pytest.mark.parametrize(
    ("bits", "floats"), [(8, False), (16, False), (24, False), (32, False), (32, True), (64, True)]
)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_every_kind_of_sample(tmp_path, bits, floats, channels):
    path = write(tmp_path / "a.wav", tone(300, 0.1), bits=bits, floats=floats, channels=channels)
    samples = read_sound(path)
    assert samples.dtype == np.int16
    assert samples.shape == (1600,)
    np.testing.assert_allclose(samples / 2**15, tone(300, 0.1), atol=0.01 if bits == 8 else 1e-4)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(tmp_path, rate):
    samples = read_sound(write(tmp_path / "a.wav", tone(300, 0.5, rate), rate=rate, channels=2)) / 2**15
    assert len(samples) == 8000
    np.testing.assert_allclose(samples[500:-500], tone(300, 0.5)[500:-500], atol=0.01)


def test_written_is_read(tmp_path):
    samples = to_int16(np.array([-2.0, -1.0, 0.0, 0.25, 2.0], dtype=np.float32))
    write_wave(tmp_path / "a.wav", samples)
    assert read_sound(tmp_path / "a.wav").tolist() == [-32768, -32768, 0, 8192, 32767] == samples.tolist()


def test_broken_files_are_named(tmp_path):
    whole = write(tmp_path / "whole.wav", tone()).read_bytes()
    contents = {"empty": b"", "text": b"not a wav file at all", "half": whole[:9000], "head": whole[:30]}
    for name, content in contents.items():
        (tmp_path / f"{name}.wav").write_bytes(content)
    write(tmp_path / "nothing.wav", [])
    for name in (*contents, "nothing", "absent"):
        with pytest.raises(UsageError, match=f"{name}.wav") as caught:
            read_sound(tmp_path / f"{name}.wav")
        assert isinstance(caught.value, UnreadableError)
        assert "\n" not in str(caught.value)


def test_foreign_chunks_do_no_harm(tmp_path):
    whole = write(tmp_path / "a.wav", tone(seconds=0.1)).read_bytes()
    extra = whole + b"note" + (4).to_bytes(4, "little") + b"abcd"
    (tmp_path / "b.wav").write_bytes(extra[:4] + (len(extra) - 8).to_bytes(4, "little") + extra[8:])
    np.testing.assert_array_equal(read_sound(tmp_path / "b.wav"), read_sound(tmp_path / "a.wav"))
