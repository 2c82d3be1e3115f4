"""Windows of clips, batches, groups and several tasks at once."""

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("torchaudio", reason="needs the extra 'paper'")

from anystride.lab.data.audio.clips import open_clips
from anystride.lab.data.audio.frontend import SECOND
from anystride.lab.data.audio.multi import MultiTask
from anystride.lab.data.audio.source import TEST_WINDOWS, AudioSource, Labelled
from anystride.lab.data.audio.split import by_name
from anystride.lab.data.audio.wave import to_int16
from anystride.lab.data.source import TensorSource
from anystride.lab.errors import UsageError

from .sounds import tone, write

SECONDS = (0.3, 1.0, 1.9, 2.0, 3.7)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def files(tmp_path):
    return [write(tmp_path / f"{s}.wav", tone(200 * (i + 1), s)) for i, s in enumerate(SECONDS)]


@pytest.fixture
def clips(files, tmp_path):
    return open_clips(files, tmp_path / "set", "set")


def source(clips, task="sound", classes=("a", "b", "c", "d", "e")):
    rows = np.arange(len(clips))
    return AudioSource(clips, Labelled(rows, rows), Labelled(rows, rows[::-1].copy()), task, classes)


def test_short_clips_end_in_silence(clips):
    assert clips.lengths.tolist() == [16000, 16000, 30400, 32000, 59200]
    window = clips.windows(np.array([0]), np.array([0]))[0]
    assert window.dtype == torch.int16
    assert window[:4800].abs().max() > 10_000
    assert window[4800:].abs().max() == 0


def test_windows_are_the_clips_samples(clips):
    window = clips.windows(np.array([4, 1]), np.array([59200 - SECOND, 0]))
    np.testing.assert_allclose(window[0] / 2**15, tone(1000, 3.7)[-SECOND:], atol=1e-4)
    np.testing.assert_allclose(window[1] / 2**15, tone(400, 1.0), atol=1e-4)


def test_the_cache_is_used_again_and_follows_the_files(clips, files, tmp_path, monkeypatch):
    def forbidden(path):
        raise AssertionError("read twice")

    monkeypatch.setattr("anystride.lab.data.audio.clips.read_sound", forbidden)
    assert open_clips(files, tmp_path / "set", "set").folder == clips.folder
    with pytest.raises(AssertionError, match="read twice"):
        open_clips(files[:2], tmp_path / "set", "set")
    assert [path.name for path in (tmp_path / "set").iterdir() if path.is_dir()] == [clips.folder.name]


def test_a_broken_file_leaves_no_cache(files, tmp_path):
    files[2].write_bytes(b"")
    with pytest.raises(UsageError, match=r"set: .*1\.9\.wav"):
        open_clips(files, tmp_path / "set", "set")
    assert not [path for path in (tmp_path / "set").iterdir() if path.is_dir()]


def test_a_place_that_cannot_be_written_is_one_line(files, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--root must be a folder"):
        open_clips(files, tmp_path / "file", "set")


def test_unreadable_clips_are_left_out_where_allowed(files, tmp_path):
    files[2].write_bytes(b"")
    clips = open_clips(files, tmp_path / "set", "set", tolerated=0.01)
    assert clips.lengths[2] == 0
    with pytest.raises(UsageError, match="no training clip of 'c' can be read"):
        source(clips)
    rows, labels = np.arange(5), np.array([0, 1, 1, 3, 4])
    task = AudioSource(clips, Labelled(rows, labels), Labelled(rows, labels), "sound", ("a", "b", "c", "d", "e"))
    assert (task.train_length, task.test_length) == (4, 4)
    assert "2 unreadable clips left out" in task.counts
    assert task.train_batch(torch.arange(4), generator())[1].tolist() == [0, 1, 3, 4]
    files[3].write_bytes(b"")
    with pytest.raises(UsageError, match=r"2\.0\.wav"):
        open_clips(files, tmp_path / "set", "set", tolerated=0.01)


def test_sound_does_not_travel_with_the_clips(clips):
    sent = pickle.dumps(clips)
    assert clips.samples.nbytes > 100_000 > len(sent)
    rows = np.arange(5)
    assert torch.equal(pickle.loads(sent).windows(rows, 0 * rows), clips.windows(rows, 0 * rows))


def test_training_batches_follow_from_the_generator(clips):
    task = source(clips)
    rows = torch.tensor([4, 0, 4, 2])
    inputs, labels = task.train_batch(rows, generator(1))
    torch.manual_seed(99)  # the global state has no say
    again, _ = task.train_batch(rows, generator(1))
    other, _ = task.train_batch(rows, generator(2))
    assert inputs.shape == (4, 1, 98, 64)
    assert labels.tolist() == [4, 0, 4, 2]
    assert torch.equal(inputs, again)
    assert not torch.equal(inputs, other)
    assert torch.equal(inputs[1], other[1]), "a clip of 1 s has one window"


def test_all_starts_of_a_window_occur(clips, monkeypatch):
    starts = []
    monkeypatch.setattr(type(clips), "windows", lambda self, rows, first: starts.append(first) or torch.zeros(1, 16000))
    source_ = object.__new__(AudioSource)
    source_.clips, source_.train, source_.frontend = clips, Labelled(np.array([2]), np.array([0])), lambda x: x
    source_.train_batch(torch.zeros(20_000, dtype=torch.int64), generator())
    assert starts[0].min() <= 10
    assert 30400 - SECOND - 10 <= starts[0].max() <= 30400 - SECOND


def test_a_test_clip_is_all_its_whole_seconds(clips):
    task = source(clips)
    inputs, labels, group = task.test_batch(torch.tensor([4, 0, 2, 3]))
    assert group.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert labels.tolist() == [0, 4, 2, 1]
    third = task.frontend(torch.from_numpy(to_int16(tone(1000, 3.7)[None, 2 * SECOND : 3 * SECOND])))
    torch.testing.assert_close(inputs[2:3], third, atol=0.2, rtol=0)  # the file's scale is 1 in 32768 off


def test_evaluation_batches_are_bounded(clips):
    task = source(clips)
    assert task.test_rows == TEST_WINDOWS // 3
    assert task.example.shape == (1, 1, 98, 64)


def test_a_copy_for_the_device_gives_the_same(clips, device):
    task = source(clips)
    moved = task.to(device)
    here, there = task.train_batch(torch.arange(5), generator()), moved.train_batch(torch.arange(5), generator())
    assert there[0].device.type == device.type == there[1].device.type
    torch.testing.assert_close(there[0].cpu(), here[0], atol=1e-3, rtol=1e-4)
    assert torch.equal(there[1].cpu(), here[1])


def test_no_clips_is_an_error(clips):
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(UsageError, match="no test clip"):
        AudioSource(clips, Labelled(np.arange(5), np.arange(5)), Labelled(none, none), "sound", "abcde")


@pytest.fixture
def tasks(clips):
    second = AudioSource(clips, *2 * [Labelled(np.array([1, 3]), np.array([0, 1]))], "other", ("x", "y"))
    return MultiTask([source(clips), second])


def test_tasks_share_every_batch(tasks):
    assert tasks.heads == {"sound": ("a", "b", "c", "d", "e"), "other": ("x", "y")}
    assert (tasks.train_length, tasks.test_length) == (7, 7)
    order = tasks.train_order(41, generator())
    assert len(order) == 41
    for batch in order[:40].split(4):
        assert (batch >= 5).sum() == 2
    first = order[:40:2] >= 5
    assert first.any(), "the tasks do not alternate strictly: every device's share has all of them"
    assert not first.all()
    assert set(order.tolist()) == set(range(7))


def test_labels_count_through_the_tasks(tasks):
    rows = torch.tensor([6, 0, 5, 4])
    inputs, labels = tasks.train_batch(rows, generator())
    assert labels.tolist() == [6, 0, 5, 4]
    # Clips of exactly 1 s have one window: which example is which can be seen.
    alone, _ = tasks.sources[0].train_batch(torch.tensor([0, 1]), generator())
    torch.testing.assert_close(inputs[1], alone[0])
    assert inputs[2, 0, :, :].argmax() == tasks.sources[1].train_batch(torch.tensor([0]), generator())[0].argmax()


def test_test_sets_follow_one_another(tasks):
    inputs, labels, group = tasks.test_batch(torch.arange(3, 7))
    assert labels.tolist() == [1, 0, 5, 6]
    assert group.tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    assert len(inputs) == len(group)


def test_tasks_without_windows_mix_too(tasks):
    images = torch.rand(3, 1, 98, 64)
    plain = TensorSource(images, torch.tensor([0, 1, 0]), images, torch.tensor([1, 1, 0]), ("p", "q"), task="plain")
    mixed = MultiTask([plain, tasks.sources[0]])
    _, labels, group = mixed.test_batch(torch.tensor([6, 2, 0]))
    assert labels.tolist() == [3, 0, 1]
    assert group.tolist() == [2, 1, 0, 0] or group.tolist() == [1, 2, 0, 0]


def test_tasks_must_differ_and_fit(clips):
    task = source(clips)
    with pytest.raises(UsageError, match=r"different ones, got sound\+sound"):
        MultiTask([task, task])
    images = torch.rand(2, 1, 8, 8)
    plain = TensorSource(images, torch.tensor([0, 1]), images, torch.tensor([0, 1]), ("p", "q"), task="plain")
    with pytest.raises(UsageError, match="inputs of one size"):
        MultiTask([task, plain])


def test_a_split_by_name_is_the_same_in_any_order():
    names = [f"clip{i}" for i in range(50)]
    train, test = by_name(names, 0.1)
    assert (len(train), len(test)) == (45, 5)
    assert sorted([*train, *test]) == list(range(50))
    backwards = by_name(names[::-1], 0.1)[1]
    assert {names[i] for i in test} == {names[::-1][i] for i in backwards}
    assert [len(part) for part in by_name(names[:2], 0.01)] == [1, 1]
