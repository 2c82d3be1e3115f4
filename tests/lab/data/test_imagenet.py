"""ImageNet's folders with a few small images: batches, the kept list of files, and one clear error for each mistake."""

import json
import os
import shutil
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from torch.utils.data import DataLoader, Dataset

from anystride.lab.data import imagenet
from anystride.lab.data.images import read_inputs
from anystride.lab.data.listing import find_images
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

CLASSES = ("n01440764", "n01443537", "n01484850")


def write_image(path: Path, seed: int, size: tuple[int, int] = (50, 40), mode: str = "RGB") -> None:
    """A JPEG of (width, height): coarse noise, which survives compression and resizing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(256, size=(6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, "JPEG", quality=95)


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                write_image(tmp_path / "imagenet" / split / name / f"{name}_{number}.JPEG", 10 * label + number)
    return tmp_path


def open_set(root: Path, size: int = 32, download: bool = False) -> imagenet.ImageNet:
    return imagenet.open_imagenet(RunConfig(data="imagenet", image_size=size), root, download)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_are_found_and_labelled(root):
    source = open_set(root)
    assert source.heads == {"class": CLASSES}
    assert (source.train_length, source.test_length) == (12, 6)
    assert source.counts == (
        "imagenet: 12 training and 6 validation images, 3 classes; as published it has 1,281,167, 50,000 and 1,000"
    )
    assert 1 <= source.workers <= 8
    assert source.example.shape == (1, 3, 32, 32)
    inputs, labels = source.test_batch(torch.arange(6))
    assert (inputs.shape, inputs.dtype) == ((6, 3, 32, 32), torch.float32)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.train_batch(torch.tensor([11, 0, 5]), generator(0))[1].tolist() == [2, 0, 1]


def test_the_published_set_is_recognised():
    assert imagenet.counts_line(*imagenet.PUBLISHED).endswith("1,000 classes, as published")


def test_training_batches_follow_from_the_generator_alone(root):
    source = open_set(root)
    rows = torch.tensor([0, 0, 0, 0, 7])
    state = torch.get_rng_state()
    one, same, other = (source.train_batch(rows, generator(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({tuple(image.flatten().tolist()) for image in one[:4]}) == 4


def test_testing_views_equal_torchvision(root):
    transforms = pytest.importorskip("torchvision.transforms")
    reference = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(imagenet.MEAN, imagenet.SD),
        ]
    )
    sizes = [(500, 375), (333, 500), (255, 256), (120, 91), (256, 300), (301, 257)]
    val = root / "imagenet" / "val" / CLASSES[0]
    shutil.rmtree(val)
    for number, size in enumerate(sizes):
        write_image(val / f"{number}.JPEG", number, size)
    inputs, _ = open_set(root, 224).test_batch(torch.arange(len(sizes)))
    expected = torch.stack([reference(Image.open(val / f"{number}.JPEG")) for number in range(len(sizes))])
    torch.testing.assert_close(inputs, expected)


def test_a_training_view_is_a_crop_resized_as_torchvision_does(root):
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = imagenet.read_image(root / "imagenet" / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG")
    draws = torch.rand(imagenet.DRAWS, generator=generator(0), dtype=torch.float64).tolist()
    left, top, right, bottom = imagenet.random_box(*image.size, draws)
    expected = functional.resized_crop(image, top, left, bottom - top, right - left, [32, 32])
    for last, view in ((0.7, expected), (0.2, functional.hflip(expected))):
        assert np.array_equal(imagenet.training_view(image, 32, [*draws[:-1], last]), view)


def test_crops_are_distributed_as_torchvision_draws_them():
    transforms = pytest.importorskip("torchvision.transforms")
    width, height, n = 500, 375, 8000
    draws = torch.rand(n, imagenet.DRAWS, generator=generator(0), dtype=torch.float64).tolist()
    ours = torch.tensor([imagenet.random_box(width, height, numbers) for numbers in draws]).double()
    ours = torch.stack([ours[:, 1], ours[:, 0], ours[:, 3] - ours[:, 1], ours[:, 2] - ours[:, 0]], dim=1)
    image = torch.empty(3, height, width)
    arguments = (list(imagenet.AREA), list(imagenet.RATIO))
    theirs = torch.tensor([transforms.RandomResizedCrop.get_params(image, *arguments) for _ in range(n)]).double()
    for own, other in zip(ours.T.contiguous(), theirs.T.contiguous(), strict=True):
        at = torch.cat([own, other])
        shares = [torch.searchsorted(values.sort().values, at, right=True) / n for values in (own, other)]
        assert (shares[0] - shares[1]).abs().max() < 1.95 * (2 / n) ** 0.5  # Kolmogorov and Smirnov, at 0.1 %


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (500, 20), (20, 500), (37, 64)])
def test_boxes_stay_inside_whatever_the_shape(size):
    transforms = pytest.importorskip("torchvision.transforms")
    width, height = size
    for seed in range(50):
        draws = torch.rand(imagenet.DRAWS, generator=generator(seed), dtype=torch.float64).tolist()
        left, top, right, bottom = imagenet.random_box(width, height, draws)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    if max(size) / min(size) > 20:  # no attempt fits: the centre, without any chance
        top, left, h, w = transforms.RandomResizedCrop.get_params(
            torch.empty(3, height, width), [0.9, 1], [0.75, 4 / 3]
        )
        full = [0.999] * imagenet.DRAWS
        assert imagenet.random_box(width, height, full) == (left, top, left + w, top + h)


def test_a_file_alone_gives_the_input_that_the_test_has(root):
    source = open_set(root, 48)
    inputs, _ = source.test_batch(torch.tensor([3]))
    path = root / "imagenet" / "val" / CLASSES[1] / f"{CLASSES[1]}_1.JPEG"
    assert torch.equal(read_inputs(path, json.loads(json.dumps(source.preprocessing))), inputs)


def test_augmentation_can_be_chosen(root):
    def batch(augment):
        config = RunConfig(data="imagenet", image_size=32, augment=augment)
        return imagenet.open_imagenet(config, root, False).train_batch(torch.tensor([5] * 40), generator(0))[0]

    usual, cropped, plain = (batch(name) for name in ("auto", "crop", "none"))
    same = (usual == cropped).all(dim=3).all(dim=2).all(dim=1)
    assert torch.equal(torch.where(same[:, None, None, None], cropped, cropped.flip(-1)), usual)
    assert 8 < same.sum() < 32
    assert torch.equal(plain, open_set(root).plain_batch(torch.tensor([5] * 40))[0])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_images_become_rgb(root, mode):
    path = root / "imagenet" / "val" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG"
    before = np.asarray(imagenet.read_image(path)).astype(float)
    write_image(path, 0, mode=mode)
    with Image.open(path) as stored:
        assert stored.mode == mode
    after = np.asarray(imagenet.read_image(path)).astype(float)
    assert after.shape == before.shape
    grey = before @ (0.299, 0.587, 0.114)
    assert np.abs(after - (before if mode == "CMYK" else grey[..., None])).mean() < 4
    assert open_set(root).test_batch(torch.tensor([0]))[0].shape == (1, 3, 32, 32)


# --- the list of files -----------------------------------------------------------------------------------------------


def age(folder: Path, seconds: float = 60) -> None:
    """Let every class folder have changed that long ago."""
    then = time.time() - seconds
    for path in folder.iterdir():
        os.utime(path, (then, then))


def test_a_second_call_lists_nothing_but_what_changed(root, monkeypatch):
    folder = root / "imagenet" / "train"
    age(folder)
    first = find_images(folder)
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(Path(path).name) or scandir(path))
    assert find_images(folder) == first
    assert listed == ["train"]

    write_image(folder / CLASSES[1] / "new.JPEG", 0)
    assert "new.JPEG" in find_images(folder)[CLASSES[1]]
    assert listed == ["train", "train", CLASSES[1]]


def test_a_folder_that_just_changed_is_not_taken_from_the_list(root):
    folder = root / "imagenet" / "train"
    find_images(folder)
    changed = folder.joinpath(CLASSES[0]).stat()
    write_image(folder / CLASSES[0] / "new.JPEG", 0)
    os.utime(folder / CLASSES[0], ns=(changed.st_atime_ns, changed.st_mtime_ns))  # a clock of coarse steps
    assert "new.JPEG" in find_images(folder)[CLASSES[0]]


def test_classes_come_and_go(root):
    folder = root / "imagenet" / "train"
    age(folder)
    find_images(folder)
    shutil.rmtree(folder / CLASSES[2])
    write_image(folder / "n99999999" / "a.jpg", 0)
    assert list(find_images(folder)) == [*CLASSES[:2], "n99999999"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"classes": 3}', '{"classes": {"n01440764": 5}}'])
def test_a_damaged_list_is_made_anew(root, damage):
    folder = root / "imagenet" / "train"
    age(folder)
    first = find_images(folder)
    (root / "imagenet" / ".train-files.json").write_text(damage)
    assert find_images(folder) == first


def test_a_data_set_that_cannot_be_written_to(root, monkeypatch):
    def refuse(values, path):
        raise PermissionError(path)

    monkeypatch.setattr("anystride.lab.data.listing.write", refuse)
    age(root / "imagenet" / "train")
    assert open_set(root).train_length == 12
    assert sorted(path.name for path in (root / "imagenet").iterdir()) == ["train", "val"]


def test_what_is_no_image_is_passed_over(root):
    train = root / "imagenet" / "train"
    (train / CLASSES[0] / "notes.txt").write_text("none")
    (train / CLASSES[0] / "._x.JPEG").write_text("none")
    (train / ".hidden").mkdir()
    assert open_set(root).train_length == 12


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_says_where_to_get_it(root, split):
    shutil.rmtree(root / "imagenet" / split)
    with pytest.raises(UsageError, match=rf"{split}/ is missing there; get it from https://image-net\.org"):
        open_set(root)
    with pytest.raises(UsageError, match="--download cannot"):
        open_set(root, download=True)


def test_a_split_without_class_folders(root):
    shutil.rmtree(root / "imagenet" / "val")
    write_image(root / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG", 0)
    with pytest.raises(UsageError, match=r"no class folder in .*val.*val/<class>/"):
        open_set(root)


def test_a_single_class(root):
    for split in ("train", "val"):
        for name in CLASSES[1:]:
            shutil.rmtree(root / "imagenet" / split / name)
    with pytest.raises(UsageError, match="at least two classes"):
        open_set(root)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_class(root, split):
    for path in (root / "imagenet" / split / CLASSES[1]).iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=rf"no image of class '{CLASSES[1]}'.*{split}"):
        open_set(root)


def test_a_class_that_only_val_has(root):
    for number in range(5):
        write_image(root / "imagenet" / "val" / f"n1000000{number}" / "a.JPEG", 0)
    with pytest.raises(UsageError, match=r"train/ lacks: n10000000, n10000001, n10000002 and 2 more"):
        open_set(root)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "gone"])
def test_an_unreadable_image_is_named(root, damage):
    path = root / "imagenet" / "train" / CLASSES[1] / f"{CLASSES[1]}_2.JPEG"
    source = open_set(root)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "text": b"not an image", "truncated": path.read_bytes()[:700]}[damage])
    with pytest.raises(UsageError, match=rf"{path.name}' is not a readable image \(.*repair or remove it"):
        source.train_batch(torch.tensor([6]), generator(0))


class Batches(Dataset):
    def __init__(self, source):
        self.source = source

    def __getitem__(self, rows):
        return self.source.train_batch(rows, generator(0))


def test_worker_processes_give_the_same_batches_and_one_line_of_error(root):
    source = open_set(root)
    rows = [torch.tensor([0, 5]), torch.tensor([6, 1])]
    here = [source.train_batch(part, generator(0))[0] for part in rows]
    loader = DataLoader(Batches(source), batch_size=None, sampler=rows, num_workers=1)
    assert all(torch.equal(one, other) for one, (other, _) in zip(here, loader, strict=True))

    path = root / "imagenet" / "train" / CLASSES[1] / f"{CLASSES[1]}_2.JPEG"
    path.write_bytes(b"")
    with pytest.raises(UsageError) as error:
        list(loader)
    assert str(error.value).startswith(f"{str(path)!r} is not a readable image (")
    assert "\n" not in str(error.value)
    traceback.clear_frames(error.tb)  # it holds the loader, whose workers end at once only outside garbage collection
