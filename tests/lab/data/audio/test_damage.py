"""Damaged caches of prepared clips, what killed processes leave, and lists that are another page."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torchaudio", reason="needs the extra 'paper'")
pytest.importorskip("soundfile", reason="needs the extra 'paper'")

from anystride.lab.data.audio import birds, nsynth, open_audio, speech_commands
from anystride.lab.data.audio.clips import FACTS, LENGTHS, SAMPLES, VERSION, open_clips
from anystride.lab.data.audio.prepared import fill
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

from .sounds import tone, write, write_birds, write_nsynth, write_speech_commands, write_tut

PAGE = b"<html><body>404 Not Found</body></html>"


@pytest.fixture
def files(tmp_path):
    return [write(tmp_path / "files" / f"{i}.wav", tone(200 * (i + 1), 0.5 + i)) for i in range(3)]


def kept(path):
    """A damage that keeps the size and the time: nothing but a checksum could tell."""
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 255]) + content[1:])


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(os.urandom(500)),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"12"),
    "changed": kept,
    "missing": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "page": lambda path: path.write_bytes(PAGE),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [LENGTHS, SAMPLES, FACTS])
def test_a_damaged_cache_is_made_again_with_a_notice(files, tmp_path, capsys, name, damage):
    clips = open_clips(files, tmp_path / "set", "set")
    whole = np.array(clips.samples)
    DAMAGES[damage](clips.folder / name)
    again = open_clips(files, tmp_path / "set", "set")
    np.testing.assert_array_equal(again.samples, whole)
    assert again.lengths.tolist() == [16000, 24000, 40000]
    assert "is damaged" in capsys.readouterr().err
    open_clips(files, tmp_path / "set", "set")
    assert capsys.readouterr().err == ""


OTHER_FACTS = [[], {}, {"version": VERSION}, "text", None, {"version": VERSION, "clips": 3, "short": "x"}]


@pytest.mark.parametrize("facts", OTHER_FACTS)
def test_facts_of_another_shape_are_damage(files, tmp_path, capsys, facts):
    clips = open_clips(files, tmp_path / "set", "set")
    (clips.folder / FACTS).write_text(json.dumps(facts))
    assert open_clips(files, tmp_path / "set", "set").short == 1
    assert "is damaged" in capsys.readouterr().err


def test_a_copied_cache_is_used(files, tmp_path, capsys, monkeypatch):
    clips = open_clips(files, tmp_path / "set", "set")
    for path in clips.folder.iterdir():
        os.utime(path, (1, 1))
    monkeypatch.setattr("anystride.lab.data.audio.clips.read_sound", None)
    assert open_clips(files, tmp_path / "set", "set").folder == clips.folder
    assert capsys.readouterr().err == ""


KILLED = """
import os, sys
from pathlib import Path
from anystride.lab.data.audio import clips
def killed(path):
    os.kill(os.getpid(), 9)
clips.read_sound = killed
folder, *files = map(Path, sys.argv[1:])
clips.open_clips(files, folder, "set")
"""


def test_what_a_killed_process_left_is_removed(files, tmp_path):
    place = tmp_path / "set"
    for chosen in (files, files[:2]):
        done = subprocess.run([sys.executable, "-c", KILLED, str(place), *map(str, chosen)], check=False)
        assert done.returncode == -9
    assert len([path for path in place.iterdir() if path.is_dir()]) >= 1
    clips = open_clips(files, place, "set")
    assert [path for path in place.iterdir() if path.is_dir()] == [clips.folder]


def test_what_a_working_process_has_is_not_removed(tmp_path):
    def within(new):
        fill(tmp_path / "b-2", lambda other: (other / "x").touch())
        assert new.is_dir(), "swept away while it was being made"
        (new / "y").touch()

    fill(tmp_path / "a-1", within)
    assert (tmp_path / "a-1" / "y").is_file()
    assert (tmp_path / "b-2" / "x").is_file()


@pytest.mark.parametrize(
    ("step", "number", "reason"),
    [
        ("numpy.save", 28, "No space left on device"),
        ("pathlib.Path.write_text", 28, "No space left on device"),
        ("tempfile.TemporaryDirectory", 30, "Read-only file system"),
        ("pathlib.Path.rename", 13, "Permission denied"),
    ],
)
def test_a_full_disk_and_a_read_only_one_are_one_line(files, tmp_path, monkeypatch, step, number, reason):
    def fails(*_, **__):
        raise OSError(number, reason)

    monkeypatch.setattr(step, fails)
    with pytest.raises(UsageError, match=rf"room .*{reason}") as caught:
        open_clips(files, tmp_path / "set", "set")
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "set").iterdir() if path.is_dir()]


def test_files_whose_names_no_system_has_are_one_line(tmp_path):
    for name in ("a\0b.wav", "x" * 5000):
        with pytest.raises(UsageError, match="cannot be read"):
            open_clips([tmp_path / name], tmp_path / "set", "set")


def test_all_missing_and_all_bad_files_are_counted(files, tmp_path):
    for path in files[:2]:
        path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"0\.wav.*1\.wav"):
        open_clips(files, tmp_path / "set", "set")
    files[0].unlink()
    files[2].unlink()
    with pytest.raises(UsageError, match=r"0\.wav' and 1 others are missing"):
        open_clips(files, tmp_path / "set", "set")


LISTS = {
    "speech-commands": (write_speech_commands, speech_commands.VALIDATION),
    "speech-commands+": (write_speech_commands, speech_commands.TEST),
    "tut-urban-2018": (write_tut, "meta.csv"),
    "tut-urban-2018-fold1": (write_tut, "evaluation_setup/fold1_train.txt"),
    "tut-urban-2018-fold1+": (write_tut, "evaluation_setup/fold1_evaluate.txt"),
    "nsynth-pitch": (write_nsynth, f"{nsynth.TRAIN}/examples.json"),
    "nsynth-instrument": (write_nsynth, f"{nsynth.TEST}/examples.json"),
    "dcase-2018-birds": (write_birds, f"warblrb10k/{birds.LABELS['warblrb10k']}"),
}
CONTENTS = {
    "page": PAGE,
    "empty": b"",
    "blank": b"\n \n",
    "garbage": b"\xff\xfe\x00\x01\x80",
    "nul": b"a\0b,\0,1\n",
    "header": b"itemid,datasetid,hasbird\n",
    "tabs": b"filename\tscene_label\tidentifier\tsource_label\n",
    "object": b"{}",
    "deep": b"[" * 100_000,
    "climbing": b"itemid,datasetid,hasbird\n../../x,a,1\n",
    "absolute": b'{"/etc/x": {"pitch": 40, "instrument_family_str": "bass"}}',
    "long": b"x" * 300_000 + b"\n",
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_something_else_is_refused(tmp_path, name, content):
    write_set, path = LISTS[name]
    (write_set(tmp_path) / path).write_bytes(CONTENTS[content])
    with pytest.raises(UsageError, match=r"--data|missing|no JSON|must map|is no file") as caught:
        open_audio(RunConfig(data=name.rstrip("+")), tmp_path, False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_page_instead_of_a_table_of_birds_is_named(tmp_path):
    write_birds(tmp_path)
    table = tmp_path / birds.TASK / "warblrb10k" / birds.LABELS["warblrb10k"]
    table.write_bytes(PAGE)
    with pytest.raises(UsageError, match=r"must have the columns itemid and hasbird, and begins with '<html>"):
        open_audio(RunConfig(data=birds.TASK), tmp_path, False)


def test_skip_bad_leaves_out_what_a_data_set_does_not_tolerate(tmp_path):
    folder = write_speech_commands(tmp_path)
    (folder / "cat" / "aaaa_nohash_0.wav").write_bytes(b"")
    with pytest.raises(UsageError, match="aaaa_nohash_0"):
        open_audio(RunConfig(data="speech-commands"), tmp_path, False)
    source = open_audio(RunConfig(data="speech-commands", skip_bad=True), tmp_path, False)
    assert "1 unreadable clips left out" in source.counts
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="no training clip of 'cat' can be read"):
        open_audio(RunConfig(data="speech-commands", skip_bad=True), tmp_path, False)
    shutil.rmtree(folder)
