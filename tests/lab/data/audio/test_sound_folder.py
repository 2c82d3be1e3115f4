"""Folders of sounds by class folders and by file names, and the spoken digits in the layout of their archive."""

import json
import os
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

pytest.importorskip("torchaudio", reason="needs the extra 'paper'")
pytest.importorskip("soundfile", reason="needs the extra 'paper'")

import soundfile

from anystride.lab.data.audio import spoken_digits
from anystride.lab.data.audio.folder import read_inputs
from anystride.lab.data.audio.frontend import FrontEnd
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.download import Remote
from anystride.lab.data.tree import read_part
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

from .sounds import tone, write

PATTERN = r"(\d)_.*"


def opened(folder, root, **options):
    return open_source(RunConfig(data=str(folder), **options), root)


@pytest.fixture
def folder(tmp_path):
    """Two classes of six sounds each, in several formats and rates, and what is no sound."""
    for number in range(6):
        for hertz, name in ((300, "low"), (3000, "high")):
            sound = tone(hertz, 1.0 + 0.3 * number, 22_050)
            (tmp_path / "sounds" / name).mkdir(parents=True, exist_ok=True)
            kind = ("wav", "flac", "ogg")[number % 3]
            soundfile.write(tmp_path / "sounds" / name / f"{number}.{kind}", sound, 22_050)
    (tmp_path / "sounds" / "notes.txt").touch()
    (tmp_path / "sounds" / "low" / "notes.txt").touch()
    (tmp_path / "sounds" / "low" / "._0.wav").touch()
    return tmp_path / "sounds"


def test_a_folder_per_class(folder, tmp_path):
    before = sorted(folder.rglob("*"))
    source = opened(folder, tmp_path / "root")
    assert source.classes == ("high", "low")
    assert "9 training" not in source.counts
    assert source.counts.startswith("10 training and 2 test clips, 2 classes")
    assert source.counts.endswith("1 other file passed over (.txt)")
    inputs, labels = source.train_batch(torch.arange(10), torch.Generator().manual_seed(0))
    # The high tones are in the upper bands.
    bands = inputs.mean(dim=(1, 2)).argmax(dim=1)
    assert ((bands > 30) == (labels == 0)).all()
    assert sorted(folder.rglob("*")) == before, "something was written into the folder"


def test_a_folder_that_cannot_be_written_is_read(folder, tmp_path):
    paths = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    for path in paths:
        path.chmod(0o555)
    try:
        assert opened(folder, tmp_path / "root").train_length == 10
    finally:
        for path in paths:
            path.chmod(0o755)


def test_file_names_give_classes_and_find_the_same_sounds(tmp_path):
    for digit in "37":
        for speaker in ("ann", "bob"):
            for number in range(5):
                write(tmp_path / "flat" / f"{digit}_{speaker}_{number}.wav", tone(200 * int(digit), 0.4))
    source = opened(tmp_path / "flat", tmp_path / "root", label_pattern=PATTERN)
    assert source.classes == ("3", "7")
    assert "all clips are shorter than 1 s and end in silence" in source.counts
    speakers = opened(tmp_path / "flat", tmp_path / "root", label_pattern=r"\d_(?P<label>[a-z]+)")
    assert speakers.classes == ("ann", "bob")
    assert speakers.clips.folder == source.clips.folder
    assert len(list(tmp_path.rglob("*.int16"))) == 1


@pytest.mark.parametrize(
    ("ending", "kind", "subtype"), [("opus", "OGG", "OPUS"), ("aifc", "AIFF", "ULAW"), ("wave", "WAV", "PCM_16")]
)
def test_less_common_endings_are_sounds(tmp_path, ending, kind, subtype):
    for number in range(4):
        path = tmp_path / "flat" / f"{number % 2}_ann_{number}.{ending}"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, tone(400, 1.2), 16_000, format=kind, subtype=subtype)
    source = opened(tmp_path / "flat", tmp_path / "root", label_pattern=PATTERN)
    assert (source.train_length, source.test_length) == (2, 2)
    with pytest.raises(UsageError, match="has 0; --label-pattern finds classes in file names"):
        opened(tmp_path / "flat", tmp_path / "root")
    with pytest.raises(UsageError, match="--label-pattern, which finds classes in file names"):
        read_part(tmp_path / "flat", "sound")


def test_a_file_that_is_written_again_is_read_again(folder, tmp_path):
    before = opened(folder, tmp_path / "root").clips
    path = folder / "low" / "0.wav"
    write(path, tone(100, 1.0, 22_050), rate=22_050)
    changed = path.stat()
    assert opened(folder, tmp_path / "root", seed=1).clips.folder == before.folder  # one copy within a process
    from anystride.lab.data import catalogue

    catalogue._open.cache_clear()
    after = opened(folder, tmp_path / "root").clips
    assert after.folder != before.folder
    os.utime(path, ns=(changed.st_atime_ns, changed.st_mtime_ns + 1))


def test_own_validation_examples_are_kept_apart(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        for name, hertz in (("low", 300), ("high", 3000)):
            for number in range(count):
                write(tmp_path / "parts" / part / name / f"{number}.wav", tone(hertz, 1.0 + number))
    source = opened(tmp_path / "parts", tmp_path / "root", validation=0.5)
    assert (source.train_length, source.validation_length, source.test_length) == (8, 4, 6)
    assert source.counts.startswith("8 training, 4 validation and 6 test clips")
    inputs, labels, group = source.validation_batch(torch.arange(4))
    assert labels.tolist() == [0, 0, 1, 1]
    assert group.tolist() == [0, 1, 1, 2, 3, 3]
    assert inputs.shape == (6, 1, 98, 64)


def test_validation_examples_are_seen_as_test_examples_are(folder, tmp_path):
    source = opened(folder, tmp_path / "root", validation=0.3)
    rows = torch.arange(source.validation_length)
    inputs, labels, group = source.validation_batch(rows)
    assert len(labels) == source.validation_length
    assert len(inputs) == len(group)


def test_bad_files_are_listed_together_or_left_out(folder, tmp_path):
    (folder / "low" / "0.wav").write_bytes((folder / "low" / "0.wav").read_bytes()[:5000])
    (folder / "high" / "1.flac").write_bytes(b"no sound")
    (folder / "high" / "link.wav").symlink_to("nowhere")
    os.mkfifo(folder / "low" / "pipe.wav")
    with pytest.raises(UsageError, match=r"4 files that are not readable sounds.*--skip-bad") as caught:
        opened(folder, tmp_path / "root")
    for name in ("0.wav' (is cut off)", "1.flac' (is not a", "link.wav' (a broken link)", "pipe.wav' (not a regular"):
        assert name in str(caught.value)
    assert not list((tmp_path / "root").rglob("*.int16"))
    source = opened(folder, tmp_path / "root", skip_bad=True)
    assert source.train_length + source.test_length == 10
    assert "2 unreadable clips left out" in source.counts
    assert "2 broken links" in source.counts


def test_a_class_without_a_readable_sound_is_named(folder, tmp_path):
    for path in (folder / "low").glob("[0-9]*"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="no readable training sound of class 'low'"):
        opened(folder, tmp_path / "root", skip_bad=True)


@pytest.mark.parametrize("seconds", [0.4, 1.0, 3.7])
def test_a_file_is_seen_as_a_test_example_is(tmp_path, seconds):
    for number in range(2):
        for name in "ab":
            write(tmp_path / "s" / name / f"{number}.wav", tone(500, seconds, 44_100), rate=44_100, channels=2)
    source = opened(tmp_path / "s", tmp_path / "root")
    preprocessing = json.loads(json.dumps(dict(source.preprocessing)))
    assert preprocessing["kind"] == "sound"
    inputs = read_inputs(tmp_path / "s" / "a" / "0.wav", preprocessing)
    expected, _, group = source.test_batch(torch.tensor([0]))
    assert inputs.dtype == torch.float32
    assert inputs.shape == (len(group), 1, 98, 64)
    torch.testing.assert_close(inputs, expected, rtol=1e-5, atol=1e-5)


def test_preprocessing_decides_what_a_file_looks_like(tmp_path):
    path = write(tmp_path / "a.wav", tone(500, 2.0))
    values = {"kind": "sound", "sample_rate": 8000, "samples": 4000, "window": 200, "hop": 80, "fft": 256, "bands": 20}
    whole = {**values, "lowest": 60.0, "highest": 3900.0, "floor": 1e-5}
    assert read_inputs(path, whole).shape == (4, 1, 48, 20)
    changes = ({"kind": "image"}, {"more": 1}, {"hop": "80"}, {"fft": -1}, {"samples": 100})
    for wrong in (values, *({**whole, **change} for change in changes)):
        with pytest.raises(UsageError, match="preprocessing of sound"):
            read_inputs(path, wrong)
    (tmp_path / "b.wav").write_bytes(b"")
    with pytest.raises(UsageError, match=r"b\.wav"):
        read_inputs(tmp_path / "b.wav", whole)


BAD_VALUES = [
    *(("sample_rate", value) for value in (0, -5, 10**9, 10**13, True)),
    *(("samples", value) for value in (0, -1, 10**12)),
    *(("window", True), ("hop", 0), ("fft", 2**40), ("bands", 10**9)),
    *(("lowest", float("nan")), ("highest", float("inf"))),
    *(("floor", value) for value in (0.0, -1.0, float("nan"))),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_damaged_preprocessing_is_one_line_and_costs_nothing(tmp_path, name, value):
    path = write(tmp_path / "a.wav", tone(500, 2.0))
    with pytest.raises(UsageError, match=f"preprocessing of sound: {name} must be from") as caught:
        read_inputs(path, {**FrontEnd().to_json(), name: value})
    assert "\n" not in str(caught.value)


def write_digits(folder, indices=range(7)):
    for digit in range(10):
        for speaker in ("ann", "bob"):
            for index in indices:
                write(folder / "recordings" / f"{digit}_{speaker}_{index}.wav", tone(200 + 50 * digit, 0.4, 8000), 8000)
    return folder


def test_the_speakers_of_the_spoken_digits_are_a_task(tmp_path):
    write_digits(tmp_path / spoken_digits.TASK)
    digits, speakers = (opened(name, tmp_path) for name in ("spoken-digits", "spoken-digits-speaker"))
    assert len(speakers.classes) >= 2
    assert speakers.train_length == digits.train_length
    assert torch.equal(speakers.example, digits.example)
    both = opened("spoken-digits+spoken-digits-speaker", tmp_path)
    assert set(both.heads) == {"spoken-digits", "spoken-digits-speaker"}
    assert both.classes == (*digits.classes, *speakers.classes)


@pytest.mark.parametrize("inner", ["", spoken_digits.INNER, "free-spoken-digit-dataset-master"])
def test_the_spoken_digits_are_split_by_their_index(tmp_path, inner):
    write_digits(tmp_path / spoken_digits.TASK / inner)
    source = opened("spoken-digits", tmp_path)
    assert source.classes == tuple("0123456789")
    assert (source.train_length, source.test_length) == (40, 100)
    assert "version 1.0.10 has 3,000 recordings, here are 140" in source.counts
    _, labels, _ = source.test_batch(torch.arange(100))
    assert torch.bincount(labels).tolist() == 10 * [10]
    np.testing.assert_array_equal(source.train_labels, np.repeat(np.arange(10), 4))


def test_strange_names_among_the_digits_are_named(tmp_path):
    folder = write_digits(tmp_path / spoken_digits.TASK)
    write(folder / "recordings" / "seven.wav", tone())
    with pytest.raises(UsageError, match=r"'seven\.wav'.* called as 7_ann_3\.wav"):
        opened("spoken-digits", tmp_path)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_the_spoken_digits_are_downloaded_in_their_own_layout(tmp_path, monkeypatch):
    whole = write_digits(tmp_path / "made" / spoken_digits.INNER)
    (whole / "README.md").write_text("Free Spoken Digit Dataset")
    (tmp_path / "site").mkdir()
    # As GitHub makes it: a header with the commit, one folder, and everything within it.
    with tarfile.open(
        tmp_path / "site" / "v1.0.10.tar.gz", "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": "0" * 40}
    ) as archive:
        archive.add(whole, spoken_digits.INNER)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1.0.10.tar.gz"
        remotes = tuple(Remote(url, name=remote.name) for remote in spoken_digits.REMOTES)
        monkeypatch.setattr(spoken_digits, "REMOTES", remotes)
        with pytest.raises(UsageError, match=r"v1\.0\.10\.tar\.gz.*or add --download"):
            opened("spoken-digits", tmp_path / "root")
        source = open_source(RunConfig(data="spoken-digits"), tmp_path / "root", download=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (source.train_length, source.test_length) == (40, 100)
    assert not list((tmp_path / "root").rglob("*.tar.gz"))
