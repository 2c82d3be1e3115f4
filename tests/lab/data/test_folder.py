"""A folder of images: what is read, how training images are changed, and one clear error for what can be wrong."""

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab import machine
from anystride.lab.data import augment, decoding, folder
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.folder import folder_task
from anystride.lab.data.images import read_inputs
from anystride.lab.data.module import SourceData
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig


def write_class(folder: Path, count: int, value: int, size: tuple[int, int] = (20, 12)) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(folder / f"{number}.png")


def write_noise(folder: Path, count: int, seed: int, size: tuple[int, int] = (30, 24)) -> None:
    """Images of coarse noise, brighter from class to class."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        noise = rng.integers(40 * seed, 200, size=(5, 5, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png")


def opened(path: Path, size: int = 16, **fields):
    return folder_task(RunConfig(data=str(path), image_size=size, **fields))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cifar10_as_jpeg_files_is_a_folder_among_the_data_sets(tmp_path: Path) -> None:
    config = RunConfig(data="cifar10-jpeg", image_size=16)
    with pytest.raises(UsageError, match=r"cifar10-jpeg'?, and there is no such folder; put CIFAR-10's images"):
        open_source(config, tmp_path)
    for part in ("train", "test"):
        write_class(tmp_path / "cifar10-jpeg" / part / "cat", 3, 0)
        write_class(tmp_path / "cifar10-jpeg" / part / "dog", 2, 255)
    source = open_source(config, tmp_path)
    assert (source.train_length, source.test_length, source.classes) == (5, 5, ("cat", "dog"))
    assert source.counts.startswith("cifar10-jpeg: ")
    as_folder = folder_task(replace(config, data=str(tmp_path / "cifar10-jpeg")))
    assert torch.equal(source.test_batch(torch.arange(5))[0], as_folder.test_batch(torch.arange(5))[0])


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    write_class(tmp_path / "dark", 10, 0)
    write_class(tmp_path / "light", 10, 255)
    return tmp_path


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """train, val and test, of two classes of six, two and three images each."""
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for seed, name in enumerate(("a", "b")):
            write_noise(tmp_path / split / name, count, seed)
    return tmp_path


def test_images_are_resized_labelled_and_normalised(two_classes):
    source = opened(two_classes)
    assert source.heads == {"class": ("dark", "light")}
    assert source.counts == "16 training and 4 test images, 2 classes, 16x16"
    assert source.example.shape == (1, 3, 16, 16)
    assert source.train_labels.tolist() == [0] * 8 + [1] * 8
    inputs, labels = source.plain_batch(torch.arange(16))
    assert inputs.dtype == torch.float32
    assert source.preprocessing["mean"] == source.preprocessing["sd"] == [0.5] * 3
    torch.testing.assert_close(inputs, (2.0 * labels - 1)[:, None, None, None].expand(16, 3, 16, 16))
    assert source.test_batch(torch.arange(4))[1].tolist() == [0, 0, 1, 1]


def test_mean_and_deviation_are_those_of_the_training_images(noise):
    source = opened(noise)
    inputs, _ = source.plain_batch(torch.arange(12))
    torch.testing.assert_close(inputs.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(inputs.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_images_that_do_not_vary_are_not_divided_by_zero(tmp_path):
    for name in ("a", "b"):
        write_class(tmp_path / name, 4, 128)
    assert opened(tmp_path).example.abs().max() < 1


def test_the_test_images_are_the_same_for_every_seed(tmp_path):
    for seed, name in enumerate(("a", "b")):
        write_noise(tmp_path / name, 10, seed)
    one, other = (opened(tmp_path, seed=seed).test_batch(torch.arange(4))[0] for seed in (0, 1))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["test", "val"])
def test_given_splits_are_kept(tmp_path, name):
    for split, count in (("train", 3), (name, 2)):
        write_class(tmp_path / split / "a", count, 10)
        write_class(tmp_path / split / "b", count, 20)
    source = opened(tmp_path)
    assert (source.train_length, source.validation_length, source.test_length) == (6, 0, 4)


def test_validation_images_are_served(noise):
    source = opened(noise)
    assert (source.train_length, source.validation_length, source.test_length) == (12, 4, 6)
    assert source.counts.startswith("12 training, 4 validation and 6 test images")
    inputs, labels = source.validation_batch(torch.tensor([3, 0]))
    assert labels.tolist() == [1, 0]
    expected = [read_inputs(noise / "val" / name, source.preprocessing) for name in ("b/1.png", "a/0.png")]
    assert torch.equal(inputs, torch.cat(expected))
    loader = SourceData(source, 4, 0).val_dataloader()
    assert sum(len(labels) for _, labels in loader) == 4


def test_a_file_alone_gives_the_input_that_the_test_has(noise):
    source = opened(noise, size=24)
    inputs, _ = source.test_batch(torch.arange(6))
    paths = [noise / "test" / name / f"{number}.png" for name in ("a", "b") for number in range(3)]
    assert torch.equal(inputs, torch.cat([read_inputs(path, source.preprocessing) for path in paths]))


# --- where the images are kept ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmented", ["auto", "crop", "none"])
@pytest.mark.parametrize("size", [16, 72])
def test_images_read_from_the_disk_give_the_same_inputs(noise, monkeypatch, size, augmented):
    kept = opened(noise, size, augment=augmented)
    monkeypatch.setattr(folder, "MEMORY_SHARE", 0)
    lazy = opened(noise, size, augment=augmented)
    assert all(part.images is not None for part in kept.parts.values())
    assert all(part.images is None for part in lazy.parts.values())
    assert kept.workers == 0
    assert 1 <= lazy.workers <= decoding.MOST_WORKERS
    assert "read again for each batch" in lazy.counts
    assert kept.preprocessing == lazy.preprocessing
    for rows in (torch.tensor([5, 0, 11]), torch.tensor([2])):
        one, other = (source.train_batch(rows, generator(3)) for source in (kept, lazy))
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert torch.equal(kept.plain_batch(rows)[0], lazy.plain_batch(rows)[0])
    assert torch.equal(kept.test_batch(torch.arange(6))[0], lazy.test_batch(torch.arange(6))[0])
    assert torch.equal(kept.validation_batch(torch.arange(4))[0], lazy.validation_batch(torch.arange(4))[0])


def test_worker_processes_make_the_same_batches(noise, monkeypatch):
    here = [inputs for inputs, _ in SourceData(opened(noise), 4, 0).train_dataloader()]
    monkeypatch.setattr(folder, "MEMORY_SHARE", 0)
    monkeypatch.setattr(folder, "usual_workers", lambda: 1)
    there = [inputs for inputs, _ in SourceData(opened(noise), 4, 0).train_dataloader()]
    assert len(here) == len(there) == 3
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


def test_processes_that_decode_find_the_same(noise, monkeypatch):
    (noise / "train" / "a" / "3.png").write_bytes(b"")
    here = opened(noise, skip_bad=True)
    monkeypatch.setattr(decoding, "MANY", 1)
    monkeypatch.setattr(decoding, "CHUNK", 5)
    monkeypatch.setattr(decoding, "usual_workers", lambda: 2)
    there = opened(noise, skip_bad=True)
    assert here.counts == there.counts
    assert here.preprocessing == there.preprocessing
    for name, part in here.parts.items():
        assert torch.equal(part.images, there.parts[name].images)
        assert torch.equal(part.labels, there.parts[name].labels)


def test_the_share_of_the_memory_decides(noise, monkeypatch):
    needed = 22 * 3 * 16 * 16
    monkeypatch.setattr(folder, "machine_memory", lambda: 4 * needed)
    assert opened(noise).in_memory
    monkeypatch.setattr(folder, "machine_memory", lambda: 4 * needed - 4)
    assert not opened(noise).in_memory


def test_a_container_has_the_memory_that_it_may_use(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CONTAINER_LIMIT", limit)
    whole = machine.machine_memory()
    assert whole > 1 << 20
    for text, expected in (("1048576\n", 1 << 20), ("max\n", whole), (str(2 * whole), whole)):
        limit.write_text(text)
        assert machine.machine_memory() == expected


def test_batches_on_a_device_equal_those_on_the_cpu(noise, device, monkeypatch):
    source = opened(noise, 72)
    rows = torch.arange(8)
    here, _ = source.train_batch(rows, generator(1))
    for share in (1.0, 0.0):  # of the device's free memory: the images lie there, or do not
        monkeypatch.setattr(folder, "DEVICE_SHARE", share)
        there, labels = source.to(device).train_batch(rows, generator(1))
        assert there.device.type == labels.device.type == device.type
        torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=1e-4)


def test_images_stay_off_a_device_without_room(noise, monkeypatch):
    source, meta = opened(noise), torch.device("meta")
    assert source.to(meta).parts["train"].images.device == meta
    needed = 22 * 3 * 16 * 16
    for room, where in ((2 * needed, "meta"), (2 * needed - 2, "cpu")):
        monkeypatch.setattr(folder, "room_on", lambda _, room=room: room)
        assert source.to(meta).parts["train"].images.device.type == where


def test_the_bar_counts_all_images(noise, monkeypatch):
    seen = []

    @contextmanager
    def progress(what, total):
        seen.append((what, total))
        yield lambda amount: seen.append(amount)

    (noise / "train" / "a" / "3.png").write_bytes(b"")
    monkeypatch.setattr(decoding, "progress", progress)
    opened(noise, skip_bad=True)
    assert seen[0] == ("reading images", 22)
    assert sum(seen[1:]) == 22


# --- augmentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 72])
def test_training_images_are_changed_by_the_generator_alone(noise, size):
    source = opened(noise, size)
    rows = torch.tensor([0] * 40)
    state = torch.get_rng_state()
    one, same, other = (source.train_batch(rows, generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.shape == (40, 3, size, size)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({tuple(image.flatten().tolist()) for image in one}) > 20


def left_and_right(path: Path) -> Path:
    """Images that are dark on the left and bright on the right."""
    for name in ("a", "b"):
        (path / name).mkdir()
        for number in range(4):
            values = np.zeros((80, 80, 3), dtype=np.uint8)
            values[:, 40:] = 255
            Image.fromarray(values).save(path / name / f"{number}.png")
    return path


@pytest.mark.parametrize("size", [32, 72])
@pytest.mark.parametrize(("augmented", "mirrored"), [("auto", True), ("crop", False)])
def test_only_auto_mirrors(tmp_path, size, augmented, mirrored):
    source = opened(left_and_right(tmp_path), size, augment=augmented)
    inputs, _ = source.train_batch(torch.tensor([0] * 200), generator(0))
    centre = inputs[..., size // 4 : -size // 4, :]
    difference = centre[..., size // 2 :].mean(dim=(1, 2, 3)) - centre[..., : size // 2].mean(dim=(1, 2, 3))
    share = (difference < 0).float().mean()
    assert 0.35 < share < 0.65 if mirrored else share == 0


def test_without_augmentation_training_images_are_seen_as_test_images_are(noise):
    source = opened(noise, augment="none")
    rows = torch.arange(12)
    assert torch.equal(source.train_batch(rows, generator(0))[0], source.plain_batch(rows)[0])


def coordinates(side: int) -> torch.Tensor:
    """An image whose channels are each pixel's horizontal and vertical position, 0 to `side`."""
    line = torch.arange(side) + 0.5
    return torch.stack([line.expand(side, side), line[:, None].expand(side, side)])


def test_a_resized_crop_is_a_box_of_the_stated_area_and_ratio():
    side, count = 96, 3000
    after = augment.random_resized_crop(coordinates(side).expand(count, -1, -1, -1), generator(0))
    assert after.shape == (count, 2, side, side)
    across, down = after[:, 0, 40, :], after[:, 1, :, 40]
    torch.testing.assert_close(after[:, 0], across[:, None, :].expand(-1, side, -1))  # no turn, no shear
    # The middle is linear; at the border half a pixel is repeated.
    width, height = ((line[:, -20] - line[:, 19]) / (side - 39) for line in (across, down))
    area, ratio = width * height, width / height
    low, high = augment.AREA
    assert low - 1e-3 < area.min() < low + 0.01
    assert high - 0.01 < area.max() < high + 1e-3
    assert (area.mean() - (low + high) / 2).abs() < 0.01
    assert augment.RATIO[0] - 1e-3 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < augment.RATIO[1] + 1e-3
    assert ratio.log().mean().abs() < 0.01
    left = across[:, 19] - width * 19.5
    right = left + width * side
    assert left.min() > -0.01
    assert right.max() < side + 0.01
    assert left.min() < 1
    assert right.max() > side - 1


def test_a_resized_crop_of_the_whole_image_changes_nothing(monkeypatch):
    monkeypatch.setattr(augment, "AREA", (1.0, 1.0))
    before = torch.randint(256, (5, 3, 80, 80), dtype=torch.uint8)
    torch.testing.assert_close(augment.random_resized_crop(before, generator(0)), before.float(), atol=0.01, rtol=0)


@pytest.mark.parametrize("side", [8, 16, 64])
def test_small_images_are_shifted_by_at_most_an_eighth(side):
    ones = torch.ones(500, 1, side, side, dtype=torch.uint8)
    lost = side - augment.crop(ones, generator(0)).amax(dim=(1, 2)).sum(dim=1)
    assert lost.max() == side // 8


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_a_missing_folder(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.*is neither"):
        opened(tmp_path / "nowhere")


def test_an_empty_class(two_classes):
    (two_classes / "nothing").mkdir()
    with pytest.raises(UsageError, match="no image of class 'nothing'"):
        opened(two_classes)


def test_what_macos_adds_to_an_archive_is_no_class(two_classes):
    plain = opened(two_classes)
    extra = two_classes / "__MACOSX" / "bright"
    extra.mkdir(parents=True)
    for where in (two_classes / plain.classes[0], extra):
        (where / "._0.png").write_bytes(b"\0\5\x16\7")
    again = opened(two_classes)
    assert (again.classes, again.counts) == (plain.classes, plain.counts)


def test_a_class_that_only_the_test_folder_has(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b", "test/c"):
        write_class(tmp_path / name, 1, 0)
    with pytest.raises(UsageError, match="train/ lacks: c"):
        opened(tmp_path)


@pytest.fixture
def damaged(two_classes: Path) -> Path:
    """A folder in which five files cannot be read, each for another reason."""
    Image.effect_noise((64, 64), 80).save(two_classes / "light" / "5.png")
    whole = (two_classes / "light" / "5.png").read_bytes()
    (two_classes / "light" / "5.png").write_bytes(whole[:500])
    (two_classes / "dark" / "3.png").write_bytes(b"not an image")
    (two_classes / "dark" / "4.png").write_bytes(b"")
    (two_classes / "dark" / "link.png").symlink_to("nowhere.png")
    os.mkfifo(two_classes / "light" / "pipe.png")
    (two_classes / "light" / "notes.txt").write_text("none")
    return two_classes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_all_bad_files_are_in_one_error(damaged):
    with pytest.raises(UsageError) as error:
        opened(damaged)
    first, *lines = str(error.value).splitlines()
    assert first.startswith("--data holds 5 files that are not readable images; repair or remove them, or leave them")
    assert "--skip-bad" in first
    assert [line.partition(" (")[0].rpartition("/")[2] for line in lines] == [
        "3.png'", "4.png'", "link.png'", "5.png'", "pipe.png'"
    ]  # fmt: skip
    reasons = [line.rpartition("(")[2] for line in lines]
    assert reasons[:3] == ["unknown format)", "empty)", "a broken link)"]
    assert reasons[4] == "not a regular file)"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("share", [folder.MEMORY_SHARE, 0])
def test_bad_files_can_be_left_out(damaged, monkeypatch, share):
    monkeypatch.setattr(folder, "MEMORY_SHARE", share)
    source = opened(damaged, skip_bad=True)
    assert source.train_length + source.test_length == 17
    assert source.counts.endswith("; 5 unreadable images left out; 1 other file passed over (.txt)")
    for batch, length in ((source.plain_batch, source.train_length), (source.test_batch, source.test_length)):
        inputs, labels = batch(torch.arange(length))
        assert torch.equal(inputs.mean(dim=(1, 2, 3)) > 0, labels == 1)  # each image kept its own label


def test_a_class_of_which_nothing_can_be_read(two_classes):
    for path in (two_classes / "light").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="no training image of class 'light' that can be read"):
        opened(two_classes, skip_bad=True)


def test_nothing_can_be_read_at_all(two_classes):
    for path in two_classes.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="no training image of class 'dark' that can be read"):
        opened(two_classes, skip_bad=True)


def test_a_process_that_dies_is_one_line(noise, monkeypatch):
    monkeypatch.setattr(decoding, "MANY", 1)
    monkeypatch.setattr(decoding, "usual_workers", lambda: 1)
    monkeypatch.setattr(decoding, "square", lambda *_: os._exit(9))
    with pytest.raises(UsageError, match="a process that reads images ended too early"):
        opened(noise)


def test_an_image_that_goes_away_is_named(noise, monkeypatch):
    monkeypatch.setattr(folder, "MEMORY_SHARE", 0)
    source = opened(noise)
    (noise / "train" / "a" / "0.png").unlink()
    with pytest.raises(UsageError, match=r"a/0\.png' is not a readable image \(No such file"):
        source.train_batch(torch.tensor([0]), generator(0))


def test_names_in_any_script_and_encoding(tmp_path):
    for number, name in enumerate(("猫", "собака", "cat food")):
        write_class(tmp_path / name, 3, 100 * number)
    try:
        (tmp_path / "猫" / os.fsdecode(b"\xff.png")).write_bytes((tmp_path / "猫" / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system does not take the name")
    config = RunConfig(data=str(tmp_path), image_size=16)
    source = open_source(config)
    assert source.classes == ("cat food", "собака", "猫")
    assert source.train_length + source.test_length == 10
    (tmp_path / "猫" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    with pytest.raises(UsageError) as error:
        open_source(replace(config, image_size=24))
    str(error.value).encode()  # it can be printed


def test_some_training_images_can_be_set_aside(two_classes):
    source = open_source(RunConfig(data=str(two_classes), image_size=16, validation=0.25))
    assert (source.train_length, source.validation_length) == (12, 4)
    assert source.counts.endswith("; 4 of the training examples for validation")
    assert source.preprocessing["kind"] == "image"
    assert source.validation_batch(torch.arange(4))[1].tolist() == [0, 0, 1, 1]


def test_by_names_instead_of_folders(tmp_path):
    write_class(tmp_path / "all", 12, 7)
    for number, path in enumerate(sorted((tmp_path / "all").iterdir())):
        path.rename(path.with_name(f"{'xy'[number % 2]}_{path.name}"))
    source = opened(tmp_path, label_pattern=r"([xy])_")
    assert source.classes == ("x", "y")
