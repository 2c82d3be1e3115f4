"""Every data set of sound, from tiny files in its own layout."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("torchaudio", reason="needs the extra 'paper'")

from anystride.lab.data.audio import AUDIO, birds, notes, nsynth, open_audio, speech_commands, tut_urban
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.names import SOUND
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

from .sounds import tone, write, write_birds, write_nsynth, write_speech_commands, write_tut

WRITERS = {
    "speech-commands": write_speech_commands,
    "nsynth-instrument": write_nsynth,
    "nsynth-pitch": write_nsynth,
    "tut-urban-2018": write_tut,
    "tut-urban-2018-fold1": write_tut,
    "dcase-2018-birds": write_birds,
}
EXPECTED = {
    # classes, training clips, test clips, windows of the first test clip
    "speech-commands": (35, 3 * 35 - 3, 2, 1),
    "nsynth-instrument": (11, 4, 2, 4),
    "nsynth-pitch": (128, 4, 2, 4),
    "tut-urban-2018": (10, 27, 3, 2),
    "tut-urban-2018-fold1": (10, 29, 1, 2),
    "dcase-2018-birds": (2, 16, 2, 1),
}
NOTES = RunConfig(data="notes-instrument+notes-pitch", train_size=44, test_size=22)


def opened(name: str, root: Path):
    return open_audio(RunConfig(data=name), root, False)


def test_the_names_are_those_of_the_command_line():
    assert set(AUDIO) == set(SOUND)


@pytest.mark.parametrize("name", WRITERS)
def test_a_data_set_in_its_own_layout(name, tmp_path):
    WRITERS[name](tmp_path)
    source = opened(name, tmp_path)
    classes, train, test, windows = EXPECTED[name]
    assert list(source.heads) == [name]
    assert len(source.classes) == classes
    assert (source.train_length, source.test_length) == (train, test)
    assert f"{train:,} training and {test:,} test clips" in source.counts
    assert "Table A.1" in source.counts
    assert source.example.shape == (1, 1, 98, 64)
    inputs, labels = source.train_batch(torch.arange(train), torch.Generator().manual_seed(0))
    assert inputs.shape == (train, 1, 98, 64)
    assert inputs.isfinite().all()
    assert (labels >= 0).all()
    assert (labels < classes).all()
    inputs, labels, group = source.test_batch(torch.arange(test))
    assert len(labels) == test
    assert group.tolist().count(0) == windows
    assert len(inputs) == len(group)


def test_the_official_lists_of_speech_commands_decide(tmp_path):
    write_speech_commands(tmp_path)
    source = opened("speech-commands", tmp_path)
    _, labels, _ = source.test_batch(torch.arange(2))
    assert [source.classes[label] for label in labels.tolist()] == ["bed", "zero"]
    _, labels = source.train_batch(torch.arange(source.train_length), torch.Generator())
    counts = torch.bincount(labels, minlength=35)
    # Of three speakers "bed" lacks one for the test and one for validation, "zero" one for the test.
    assert counts[source.classes.index("bed")] == 1
    assert counts[source.classes.index("zero")] == 2
    assert counts.sum() == 102


@pytest.mark.parametrize("name", WRITERS)
def test_missing_data_say_where_to_get_them(name, tmp_path):
    with pytest.raises(UsageError, match=r"http.*add --download") as caught:
        opened(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_or_cut_clip_is_named_before_training(name, tmp_path):
    folder = WRITERS[name](tmp_path)
    victims = sorted(path for path in folder.rglob("*.wav") if "_background_noise_" not in path.parts)
    if name.startswith("nsynth"):
        victims = [path for path in victims if "nsynth-test" not in path.parts]
    if name == "speech-commands":
        # Words are listed from the folder; only the lists say that one is missing.
        victims = [path for path in victims if path.name.startswith("cccc") and path.parent.name == "bed"]
    victims[0].write_bytes(victims[0].read_bytes()[:1000])
    if name == "dcase-2018-birds":
        # Recordings of volunteers: one in a hundred may be unreadable, at least one.
        assert "1 unreadable clips left out" in opened(name, tmp_path).counts
    else:
        with pytest.raises(UsageError, match=victims[0].name):
            opened(name, tmp_path)
    victims[0].unlink()
    with pytest.raises(UsageError, match=victims[0].name):
        opened(name, tmp_path)


def test_labels_outside_the_classes_are_named(tmp_path):
    folder = write_nsynth(tmp_path)
    listed = folder / nsynth.TRAIN / "examples.json"
    listed.write_text(listed.read_text().replace('"bass"', '"theremin"'))
    with pytest.raises(UsageError, match="theremin"):
        opened("nsynth-instrument", tmp_path)
    listed.write_text("[1]")
    with pytest.raises(UsageError, match="must map the names of notes"):
        opened("nsynth-pitch", tmp_path)
    meta = write_tut(tmp_path) / "meta.csv"
    meta.write_text(meta.read_text().replace("\tbus\t", "\tmoon\t"))
    with pytest.raises(UsageError, match="one of the 10 scenes"):
        opened("tut-urban-2018", tmp_path)
    table = write_birds(tmp_path) / "ff1010bird" / birds.LABELS["ff1010bird"]
    table.write_text(table.read_text().replace(",1", ",7"))
    with pytest.raises(UsageError, match="hasbird of 0 or 1"):
        opened("dcase-2018-birds", tmp_path)


def test_an_empty_class_is_named(tmp_path):
    folder = write_speech_commands(tmp_path)
    for path in (folder / "cat").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="'cat'"):
        opened("speech-commands", tmp_path)


def test_both_tasks_of_nsynth_store_the_sound_once(tmp_path):
    write_nsynth(tmp_path)
    source = opened("nsynth-instrument+nsynth-pitch", tmp_path)
    assert list(source.heads) == ["nsynth-instrument", "nsynth-pitch"]
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    order = source.train_order(8, torch.Generator().manual_seed(0))
    _, labels = source.train_batch(order, torch.Generator())
    assert (labels < 11).sum() == (labels >= 11).sum() == 4
    _, labels, _ = source.test_batch(torch.arange(4))
    # Test notes: bass at 40 and vocal at 41; pitches count after the 11 families.
    assert labels.tolist() == [0, 10, 11 + 40, 11 + 41]


def test_notes_are_nsynth_on_disk_and_follow_from_their_number(tmp_path):
    source = open_source(NOTES, tmp_path / "one")
    assert {task: len(classes) for task, classes in source.heads.items()} == {
        "notes-instrument": 11,
        "notes-pitch": 24,
    }
    assert (source.train_length, source.test_length) == (88, 44)
    (folder,) = (path for path in (tmp_path / "one").iterdir() if path.is_dir())
    again = tmp_path / "again"
    notes.write_notes(again, 44, 22)
    files = sorted(path.relative_to(folder) for path in folder.rglob("nsynth-*/**/*") if path.suffix == ".wav")
    assert len(files) == 66
    assert all((folder / path).read_bytes() == (again / path).read_bytes() for path in files)
    # Another reader of NSynth reads them.
    copied = nsynth.read_notes(again, "instrument", nsynth.FAMILIES, "nsynth-instrument")
    assert copied.train_length == 44
    players = {
        split: {path.name[:-12] for path in (folder / split / "audio").iterdir()}
        for split in ("nsynth-train", "nsynth-valid")
    }
    assert not players["nsynth-train"] & players["nsynth-valid"]


def test_mixed_recordings_in_one_set(tmp_path):
    folder = write_speech_commands(tmp_path)
    write(folder / "bird" / "aaaa_nohash_0.wav", tone(seconds=2.5, rate=44_100), rate=44_100, channels=2)
    source = opened("speech-commands", tmp_path)
    assert source.train_length == EXPECTED["speech-commands"][1]
    assert source.classes == speech_commands.WORDS
    assert tut_urban.SEGMENTS == 8640


def test_an_empty_class_of_a_table_is_named(tmp_path):
    folder = write_tut(tmp_path)
    listed = folder / "evaluation_setup" / "fold1_train.txt"
    listed.write_text("".join(line for line in listed.read_text().splitlines(True) if "\ttram" not in line))
    with pytest.raises(UsageError, match="'tram'"):
        opened("tut-urban-2018-fold1", tmp_path)
    for name, table in birds.LABELS.items():
        path = (write_birds(tmp_path) if name == "ff1010bird" else tmp_path / birds.TASK) / name / table
        path.write_text(path.read_text().replace(",1", ",0"))
    with pytest.raises(UsageError, match="'bird'"):
        opened("dcase-2018-birds", tmp_path)


def test_an_interrupted_preparation_starts_again(tmp_path, monkeypatch):
    write_nsynth(tmp_path)

    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("anystride.lab.data.audio.clips.read_sound", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened("nsynth-pitch", tmp_path)
    assert opened("nsynth-pitch", tmp_path).train_length == 4
    monkeypatch.setattr("anystride.lab.data.audio.clips.read_sound", interrupted)
    assert opened("nsynth-pitch", tmp_path).train_length == 4
