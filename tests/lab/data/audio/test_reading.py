"""Sound files of every format: read as they are, streams to their end, and refused where something is lacking."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchaudio", reason="needs the extra 'paper'")
pytest.importorskip("soundfile", reason="needs the extra 'paper'")

import soundfile

from anystride.lab.data.audio.extent import W64_DATA
from anystride.lab.data.audio.reading import UnreadableError, read_sound
from anystride.lab.data.audio.resampling import LARGEST, RATES, resampled, table_size

from .sounds import RATE, tone, write

RIFX = ("WAV", "PCM_16", "BIG")
EXACT = {
    "wav": ("WAV", "PCM_16", "FILE"),
    "rifx": RIFX,
    "rf64": ("RF64", "PCM_16", "FILE"),
    "w64": ("W64", "PCM_16", "FILE"),
    "wavex": ("WAVEX", "PCM_16", "FILE"),
    "flac": ("FLAC", "PCM_16", "FILE"),
    "aiff": ("AIFF", "PCM_16", "FILE"),
    "au": ("AU", "PCM_16", "FILE"),
    "caf": ("CAF", "PCM_16", "FILE"),
}
LOSSY = {
    "ogg": ("OGG", "VORBIS", "FILE"),
    "opus.ogg": ("OGG", "OPUS", "FILE"),
    "mp3": ("MP3", "MPEG_LAYER_III", "FILE"),
    "ima.wav": ("WAV", "IMA_ADPCM", "FILE"),
}
# Written at once, a very long Vorbis or Opus sound overflows the encoder's stack: two seconds are enough here.
SOUND = np.rint(tone(440, 2.0) * 2**15).astype(np.int16)


def written(path, form, samples=SOUND, rate=RATE):
    kind, subtype, endian = form
    soundfile.write(path, samples, rate, format=kind, subtype=subtype, endian=endian)
    return path


def refused(path, reason):
    with pytest.raises(UnreadableError, match=reason) as caught:
        read_sound(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", EXACT)
def test_sixteen_bits_come_back_bit_for_bit(tmp_path, ending):
    samples = read_sound(written(tmp_path / f"a.{ending}", EXACT[ending]))
    assert samples.dtype == np.int16
    np.testing.assert_array_equal(samples, SOUND)


@pytest.mark.parametrize("ending", LOSSY)
def test_other_encodings_come_back_nearly(tmp_path, ending):
    samples = read_sound(written(tmp_path / f"a.{ending}", LOSSY[ending]))[: len(SOUND)]
    assert len(samples) == len(SOUND)
    error = (samples[2000:-2000].astype(float) - SOUND[2000:-2000]) / 2**15
    assert np.sqrt(np.mean(error**2)) < 0.02


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("ending", [*EXACT, *LOSSY])
def test_a_file_that_is_cut_off_is_refused(tmp_path, ending, share):
    whole = written(tmp_path / f"a.{ending}", {**EXACT, **LOSSY}[ending]).read_bytes()
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole[: int(len(whole) * share)])
    refused(cut, "is cut off|is not a sound file")


def stream(path, kind, number):
    """A file whose header holds `number` wherever it should tell a length, as if it was written into a pipe."""
    content = bytearray(path.read_bytes())
    order = ">" if kind == "rifx" else "<"
    if kind in ("wav", "rifx"):
        content[4:8] = struct.pack(f"{order}I", number)
        at = content.index(b"data") + 4
        content[at : at + 4] = struct.pack(f"{order}I", number)
    if kind == "rf64":
        content[20:44] = struct.pack("<3Q", *3 * [number if number == 0 else 2**64 - 1])
    if kind == "w64":
        at = content.index(W64_DATA) + 16
        content[at : at + 8] = struct.pack("<Q", number and 2**63 - 1)
    if kind == "au":
        content[8:12] = struct.pack(">I", number)
    if kind == "caf":
        at = content.index(b"data") + 4
        content[at : at + 8] = struct.pack(">q", -1 if number else 0)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("number", [0, 2**32 - 1, 0x7FFFF000, 0x80000000])
@pytest.mark.parametrize("kind", ["wav", "rifx", "rf64", "w64", "au", "caf"])
def test_a_stream_of_unknown_length_is_read_to_its_end(tmp_path, kind, number):
    path = stream(written(tmp_path / f"a.{kind}", EXACT[kind]), kind, number)
    np.testing.assert_array_equal(read_sound(path), SOUND)


def test_what_sox_writes_into_a_pipe_is_read(tmp_path):
    content = bytearray(written(tmp_path / "a.wav", EXACT["wav"]).read_bytes())
    content[4:8], content[40:44] = struct.pack("<I", 0x7FFFF024), struct.pack("<I", 0x7FFFF000)
    (tmp_path / "a.wav").write_bytes(content[:-1000])
    np.testing.assert_array_equal(read_sound(tmp_path / "a.wav"), SOUND[:-500])


def flac_stream(path, samples=SOUND):
    """A FLAC file as an encoder pipes it: neither length nor checksum in its header."""
    content = bytearray(written(path, EXACT["flac"], samples).read_bytes())
    facts = int.from_bytes(content[18:26], "big")
    content[18:26] = (facts >> 36 << 36).to_bytes(8, "big")
    content[26:42] = bytes(16)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("seconds", [1, 10])
def test_a_flac_stream_of_unknown_length_is_read_to_its_end(tmp_path, seconds):
    samples = np.tile(SOUND[:RATE], seconds)
    np.testing.assert_array_equal(read_sound(flac_stream(tmp_path / "a.flac", samples)), samples)


def test_a_flac_stream_that_ends_within_a_block_is_refused(tmp_path):
    path = flac_stream(tmp_path / "a.flac")
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, "is not a sound file|is cut off")


def test_several_ogg_sounds_in_one_file_are_not_taken_for_one(tmp_path):
    whole = written(tmp_path / "a.ogg", LOSSY["ogg"]).read_bytes()
    (tmp_path / "two.ogg").write_bytes(whole + whole)
    refused(tmp_path / "two.ogg", "several sounds, one after another")
    (tmp_path / "tag.ogg").write_bytes(whole + b"TAG" + bytes(125_000))
    assert len(read_sound(tmp_path / "tag.ogg")) == len(SOUND)
    (tmp_path / "head.ogg").write_bytes(whole + whole[:20])
    refused(tmp_path / "head.ogg", "is cut off")


def test_integers_written_as_floats_are_refused_and_loud_floats_are_clipped(tmp_path):
    sound = tone(440, 0.5).astype(np.float32)
    refused(written(tmp_path / "a.wav", ("WAV", "FLOAT", "FILE"), sound * 2**15), "samples up to 16,384, where 1 is")
    loud = read_sound(written(tmp_path / "b.wav", ("WAV", "FLOAT", "FILE"), sound * 4))
    assert loud.max() == 2**15 - 1


def test_an_empty_sound_before_other_chunks_is_no_stream(tmp_path):
    whole = written(tmp_path / "a.wav", EXACT["wav"], SOUND[:0]).read_bytes() + b"LIST" + struct.pack("<I", 4) + b"abcd"
    (tmp_path / "a.wav").write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    refused(tmp_path / "a.wav", "holds no sound")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path, bad):
    samples = tone(440, 0.1).astype(np.float32)
    samples[7] = bad
    refused(written(tmp_path / "a.wav", ("WAV", "FLOAT", "FILE"), samples), "no numbers")


@pytest.mark.parametrize(("at", "form", "value"), [(22, "<H", 0), (24, "<I", 0), (22, "<H", 60_000)])
def test_no_channels_and_no_rate_are_refused(tmp_path, at, form, value):
    content = bytearray(written(tmp_path / "a.wav", EXACT["wav"]).read_bytes())
    struct.pack_into(form, content, at, value)
    (tmp_path / "a.wav").write_bytes(content)
    refused(tmp_path / "a.wav", "is not a sound file")


@pytest.mark.parametrize("rate", [RATES[0] - 1, RATES[1] + 1])
def test_rates_out_of_range_are_refused(tmp_path, rate):
    refused(write(tmp_path / "a.wav", tone(440, 0.1), rate=rate), "samples per second, and 1,000 to 10,000,000")


def test_what_is_no_file_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    refused(tmp_path / "pipe.wav", "is no file")
    refused(tmp_path / "folder.wav", "is no file")
    refused(tmp_path / "a\0b.wav".replace("\0", "\x00"), "is missing")
    with pytest.raises(UnreadableError, match="File name too long"):
        read_sound(tmp_path / ("x" * 5000))


@pytest.mark.parametrize("length", [1100, 4000])
def test_a_long_path_is_read(tmp_path, length):
    folder = tmp_path
    while len(str(folder)) + 201 < length:
        folder = folder / ("d" * 200)
    folder.mkdir(parents=True)
    path = folder / "a.wav"
    path.write_bytes(written(tmp_path / "a.wav", EXACT["wav"]).read_bytes())
    assert len(str(path)) > length - 210
    np.testing.assert_array_equal(read_sound(path), SOUND)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the open files of a process")
def test_no_file_stays_open(tmp_path):
    good = written(tmp_path / "a.wav", EXACT["wav"])
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    read_sound(good)
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        read_sound(good)
        refused(tmp_path / "bad.wav", "is not a sound file")
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_a_name_that_is_no_text_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe.wav")
    path.write_bytes(written(tmp_path / "a.wav", EXACT["wav"]).read_bytes())
    np.testing.assert_array_equal(read_sound(path), SOUND)


def test_damaged_headers_never_end_in_another_error(tmp_path):
    rng = np.random.default_rng(0)
    for ending, form in {**EXACT, **LOSSY}.items():
        whole = written(tmp_path / f"a.{ending}", form, SOUND[:4000]).read_bytes()
        for _ in range(20):
            content = bytearray(whole)
            for place in rng.integers(0, 100, 3):
                content[place] = rng.integers(256)
            path = tmp_path / f"b.{ending}"
            path.write_bytes(content)
            try:
                assert read_sound(path).dtype == np.int16
            except UnreadableError:
                continue


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_ordinary_rates_keep_their_result(rate):
    import torch
    from torchaudio.functional import resample

    sound = tone(300, 0.2, rate).astype(np.float32)
    np.testing.assert_array_equal(resampled(sound, rate, RATE), resample(torch.from_numpy(sound), rate, RATE).numpy())


@pytest.mark.parametrize("rate", [1_000, 11_127, 44_056, 44_099, 44_101, 191_999, 999_983])
def test_any_rate_is_resampled_exactly(tmp_path, rate):
    hertz = min(300.0, 0.1 * rate)
    samples = read_sound(write(tmp_path / "a.wav", tone(hertz, 1.0, rate), rate=rate)) / 2**15
    assert len(samples) == RATE
    np.testing.assert_allclose(samples[1000:-1000], tone(hertz)[1000:-1000], atol=0.002)


@pytest.mark.parametrize("rate", [11_127, 44_099, 999_983])
def test_a_ratio_of_large_numbers_needs_no_large_table(monkeypatch, rate):
    def forbidden(*_, **__):
        raise AssertionError(f"a table of {table_size(rate, RATE):,} values")

    monkeypatch.setattr("torchaudio.functional.resample", forbidden)
    assert table_size(rate, RATE) > LARGEST
    assert len(resampled(np.zeros(rate, dtype=np.float32), rate, RATE)) == RATE


MEASURED = """
import resource, sys
import numpy as np
from anystride.lab.data.audio.resampling import resampled
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resampled(np.zeros(8000, dtype=np.float32), 8000, 16000)
resampled(np.zeros(8191, dtype=np.float32), 8191, 16000)
before = used()
for rate in (11127, 44099, 48001, 191999, 9999991):
    resampled(np.zeros(rate, dtype=np.float32), rate, 16000)
print((used() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes")
def test_memory_does_not_grow_with_the_ratio():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MEASURED], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400, "MiB"


def test_the_table_has_the_size_that_is_said():
    from torchaudio.functional import functional

    for rate in (8_000, 22_050, 44_100, 48_000):
        common = np.gcd(rate, RATE)
        kernel, _ = functional._get_sinc_resample_kernel(
            rate, RATE, int(common), 6, 0.99, "sinc_interp_hann", None, "cpu", None
        )
        assert kernel.numel() == table_size(rate, RATE)


def test_a_header_that_lies_costs_no_memory(tmp_path):
    content = bytearray(written(tmp_path / "a.flac", EXACT["flac"]).read_bytes())
    facts = int.from_bytes(content[18:26], "big")
    content[18:26] = (facts | (2**36 - 1)).to_bytes(8, "big")
    (tmp_path / "a.flac").write_bytes(content)
    refused(tmp_path / "a.flac", "is cut off|is not a sound file")
    assert soundfile.info(io.BytesIO(bytes(content))).frames == 2**36 - 1
