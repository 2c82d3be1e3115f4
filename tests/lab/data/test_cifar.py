"""CIFAR in files of the published format with fewer records, and what is done to batches of images."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.data import cifar
from anystride.lab.data.augment import crop_and_flip, normalise, random_crop, random_flip, resize, shift_and_flip
from anystride.lab.data.images import read_inputs
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

RECORDS = 7


@pytest.fixture(autouse=True)
def few_records(monkeypatch):
    for name, layout in cifar.LAYOUTS.items():
        small = replace(layout, train=dict.fromkeys(layout.train, RECORDS), test=dict.fromkeys(layout.test, RECORDS))
        monkeypatch.setitem(cifar.LAYOUTS, name, small)


def write_set(folder: Path, name: str) -> np.ndarray:
    """All files of one set with random records, which are given back file after file."""
    layout = cifar.LAYOUTS[name]
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    written = []
    for file, count in {**layout.train, **layout.test}.items():
        records = rng.integers(256, size=(count, layout.record), dtype=np.uint8)
        records[:, layout.label_bytes - 1] = rng.integers(layout.classes, size=count)
        (folder / file).write_bytes(records.tobytes())
        written.append(records)
    (folder / layout.names).write_text("\n".join(f"class{number}" for number in range(layout.classes)) + "\n\n")
    return np.concatenate(written)


def open_set(root: Path, name: str = "cifar10", download: bool = False, **changes):
    return cifar.open_cifar(RunConfig(data=name, **changes), root, download)


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    write_set(folder, "cifar10")
    return folder


@pytest.mark.parametrize(("name", "files"), [("cifar10", 5), ("cifar100", 1)])
def test_the_published_format_is_read(tmp_path, name, files):
    layout = cifar.LAYOUTS[name]
    records = write_set(tmp_path / name / layout.folder, name)
    source = open_set(tmp_path, name)
    n = files * RECORDS
    assert (source.train_length, source.test_length) == (n, RECORDS)
    assert source.counts == f"{name}: {n} training and {RECORDS} test images, {layout.classes} classes"
    assert source.heads == {"class": tuple(f"class{number}" for number in range(layout.classes))}
    assert source.example.shape == (1, 3, 32, 32)
    assert source.train_images.dtype == torch.uint8

    inputs, labels = source.test_batch(torch.tensor([3, 0]))
    chosen = records[[n + 3, n]]
    assert labels.tolist() == chosen[:, layout.label_bytes - 1].tolist()
    red, green, blue = (chosen[:, layout.label_bytes + 1024 * channel :][:, :1024] for channel in range(3))
    for channel, pixels in enumerate((red, green, blue)):
        expected = (pixels.reshape(2, 32, 32) / 255 - layout.mean[channel]) / layout.sd[channel]
        torch.testing.assert_close(inputs[:, channel], torch.from_numpy(expected).float())


def test_training_batches_are_augmented_by_the_generator_alone(tmp_path, cifar10):
    source = open_set(tmp_path)
    rows = torch.arange(20)
    one, same, other = (source.train_batch(rows, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert one.dtype == torch.float32
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(source.train_batch(rows, torch.Generator())[1], source.train_labels[:20])


def test_batches_on_a_device_equal_those_on_the_cpu(tmp_path, cifar10, device):
    source = open_set(tmp_path)
    rows = torch.arange(6)
    there, labels = source.to(device).train_batch(rows, torch.Generator().manual_seed(1))
    here, _ = source.train_batch(rows, torch.Generator().manual_seed(1))
    assert there.device.type == labels.device.type == device.type
    torch.testing.assert_close(there.cpu(), here)


@pytest.mark.parametrize("size", [16, 128])
def test_inputs_have_the_size_that_is_asked_for(tmp_path, cifar10, size):
    source = open_set(tmp_path, image_size=size)
    assert source.example.shape == (1, 3, size, size)
    assert source.train_batch(torch.arange(4), torch.Generator())[0].shape == (4, 3, size, size)


def test_an_absent_set_is_one_error_with_its_remedy(tmp_path):
    with pytest.raises(UsageError) as error:
        open_set(tmp_path, "cifar100")
    line = str(error.value)
    assert "\n" not in line
    for part in (str(tmp_path / "cifar100"), "--download", f"{cifar.HOST}cifar-100-binary.tar.gz"):
        assert part in line


@pytest.mark.parametrize("name", ["data_batch_3.bin", "batches.meta.txt"])
def test_a_missing_file_is_named(tmp_path, cifar10, name):
    (cifar10 / name).unlink()
    with pytest.raises(UsageError, match=rf"{name} is missing.*--download"):
        open_set(tmp_path)


def test_a_truncated_file_is_named_with_both_sizes(tmp_path, cifar10):
    path = cifar10 / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"test_batch\.bin has 21,411 bytes instead of 21,511; .*--download"):
        open_set(tmp_path)


def test_a_label_out_of_range(tmp_path, cifar10):
    path = cifar10 / "data_batch_2.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(UsageError, match=r"data_batch_2\.bin' holds the label 10, and the last of 10 classes is 9"):
        open_set(tmp_path)


def test_too_few_class_names(tmp_path, cifar10):
    (cifar10 / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(UsageError, match=r"must name 10 classes and names 2"):
        open_set(tmp_path)


@pytest.mark.parametrize("before", ["absent", "truncated"])
def test_download_completes_a_set_and_leaves_no_archive(tmp_path, monkeypatch, before):
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    asked = []
    if before == "truncated":
        write_set(folder, "cifar10")
        (folder / "data_batch_1.bin").write_bytes(b"")

    def fetch(remote, into):
        asked.append(remote)
        write_set(tmp_path / "made" / "cifar-10-batches-bin", "cifar10")
        with tarfile.open(into / "cifar-10-binary.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "made" / "cifar-10-batches-bin", "cifar-10-batches-bin")
        return into / "cifar-10-binary.tar.gz"

    monkeypatch.setattr(cifar, "fetch", fetch)
    assert open_set(tmp_path, download=True).train_length == 5 * RECORDS
    assert open_set(tmp_path, download=True).train_length == 5 * RECORDS
    assert len(asked) == 1
    assert asked[0].url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert asked[0].checksum == "md5:c32a1d4ab5d03f1284b67883e8d87530"
    assert sorted(path.name for path in (tmp_path / "cifar10").iterdir()) == ["cifar-10-batches-bin"]


def test_a_root_that_cannot_be_written_to(tmp_path):
    (tmp_path / "cifar10").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match="--root must be a folder that can be written to"):
        open_set(tmp_path, download=True)


def test_the_published_sizes():
    """The sizes of the published archives' files: 30,730,000 bytes (CIFAR-10), 153,700,000 and 30,740,000 (100)."""
    ten, hundred = cifar.LAYOUTS["cifar10"], cifar.LAYOUTS["cifar100"]
    assert (10_000 * ten.record, 50_000 * hundred.record, 10_000 * hundred.record) == (30730000, 153700000, 30740000)


# --- augmentation ----------------------------------------------------------------------------------------------------


def images(n: int) -> torch.Tensor:
    """uint8 images without a zero, so that a border shows."""
    return torch.randint(1, 256, (n, 3, 9, 12), dtype=torch.uint8)


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    height, width = image.shape[-2:]
    padded = torch.zeros(3, height + 8, width + 8, dtype=image.dtype)
    padded[:, 4 : 4 + height, 4 : 4 + width] = image
    return padded[:, 4 + down :, 4 + right :][:, :height, :width]


def test_a_crop_is_a_shifted_copy_with_a_border_of_zeros():
    before = images(40)
    after = random_crop(before, 4, torch.Generator().manual_seed(0))
    assert after.dtype == torch.uint8
    shifts = [(down, right) for down in range(-4, 5) for right in range(-4, 5)]
    found = [
        [at for at in shifts if torch.equal(new, shifted(old, *at))] for old, new in zip(before, after, strict=True)
    ]
    assert all(len(matches) == 1 for matches in found)
    assert len({matches[0] for matches in found}) > 20


def test_every_shift_is_drawn_equally_often():
    ones = torch.ones(9000, 1, 9, 1, dtype=torch.uint8)
    ones[:, :, 4] = 2
    after = random_crop(torch.nn.functional.pad(ones, (4, 4)), 4, torch.Generator().manual_seed(0))
    where = (after.amax(dim=(1, 3)) == 2).int().argmax(1)
    counts = torch.bincount(where, minlength=9)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_a_flip_is_a_mirror_image_and_half_are_flipped():
    before = images(1000)
    after = random_flip(before, torch.Generator().manual_seed(0))
    kept = (after == before).all(dim=(1, 2, 3))
    mirrored = (after == before.flip(-1)).all(dim=(1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 440 < mirrored.sum() < 560


def test_augmentation_follows_from_the_generator_and_differs_between_rows(device):
    pixels = torch.randint(1, 256, (1, 3, 32, 32), dtype=torch.uint8)
    same_rows = pixels.expand(64, -1, -1, -1).to(device)
    one, same, other = (crop_and_flip(same_rows, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({tuple(image.flatten().tolist()) for image in one.cpu()}) > 40
    torch.manual_seed(0)
    state = torch.get_rng_state()
    crop_and_flip(same_rows, torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_normalise_gives_mean_zero_and_deviation_one():
    pixels = images(50)
    scaled = pixels.double() / 255
    mean, sd = scaled.mean(dim=(0, 2, 3)).tolist(), scaled.std(dim=(0, 2, 3)).tolist()
    after = normalise(pixels, mean, sd)
    torch.testing.assert_close(after.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(after.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)


def test_resize_keeps_a_constant_and_does_not_alias():
    assert torch.equal(resize(torch.full((1, 3, 32, 32), 0.5), 128), torch.full((1, 3, 128, 128), 0.5))
    unchanged = torch.rand(1, 3, 32, 32)
    assert resize(unchanged, 32) is unchanged
    stripes = torch.arange(32).remainder(2).float().expand(1, 3, 32, 32)
    inner = resize(stripes, 11)[..., 2:-2]
    assert (inner - 0.5).abs().max() < 0.1  # without a filter the stripes would come back, only wider


# --- what is done to files and to training images --------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48])
def test_a_file_alone_gives_the_input_that_the_test_has(tmp_path, cifar10, size):
    source = open_set(tmp_path, image_size=size)
    path = tmp_path / "image.png"
    Image.fromarray(source.test_images[2].permute(1, 2, 0).numpy()).save(path)
    how = json.loads(json.dumps(source.preprocessing))
    torch.testing.assert_close(read_inputs(path, how), source.test_batch(torch.tensor([2]))[0])


def test_augmentation_can_be_chosen(tmp_path, cifar10):
    rows = torch.tensor([0] * 300)
    plain, cropped, usual = (
        {tuple(image.flatten().tolist()) for image in batch}
        for batch in (
            open_set(tmp_path, augment=name).train_batch(rows, torch.Generator().manual_seed(0))[0]
            for name in ("none", "crop", "auto")
        )
    )
    assert len(plain) == 1
    assert 60 < len(cropped) <= 81 < len(usual) <= 162  # 9 x 9 shifts, and twice as many with mirror images


def test_shifts_of_the_release_bring_in_the_mean_colour():
    images = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    images[:, 0] = 200
    images[:, 1, :, :4] = 100  # half of the second channel: its mean is 50
    shifted = shift_and_flip(images, torch.Generator().manual_seed(0))
    assert (shifted[:, 0] == 200).all()
    assert set(shifted[:, 1].unique().tolist()) == {0.0, 50.0, 100.0}
    new = (shifted[:, 1] == 50).float().mean(dim=(1, 2))
    assert new.min() == 0
    assert new.max() <= 1 - (6 / 8) ** 2  # at most two rows and two columns
