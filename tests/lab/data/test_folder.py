"""A folder of images: what is read, and one clear error for each thing that can be wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anystride.lab.data.folder import folder_task
from anystride.lab.errors import UsageError


def write_class(folder: Path, count: int, value: int, size: tuple[int, int] = (20, 12)) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    write_class(tmp_path / "dark", 10, 0)
    write_class(tmp_path / "light", 10, 255)
    return tmp_path


def test_images_are_resized_and_labelled(two_classes: Path) -> None:
    task = folder_task(two_classes, 16, seed=0)
    assert task.classes == ("dark", "light")
    assert task.train_images.shape == (16, 3, 16, 16)
    assert task.test_images.shape == (4, 3, 16, 16)
    assert torch.equal(task.train_images.mean(dim=(1, 2, 3)), task.train_labels.float())


def test_the_split_is_stratified_and_follows_from_the_seed(two_classes: Path) -> None:
    for number, path in enumerate(sorted((two_classes / "dark").iterdir())):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    one, same, other = (folder_task(two_classes, 8, seed=seed) for seed in (0, 0, 1))
    assert one.test_labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(one.test_images, same.test_images)
    assert not torch.equal(one.test_images, other.test_images)


@pytest.mark.parametrize("name", ["test", "val"])
def test_given_splits_are_kept(tmp_path: Path, name: str) -> None:
    for split, count in (("train", 3), (name, 2)):
        write_class(tmp_path / split / "a", count, 10)
        write_class(tmp_path / split / "b", count, 20)
    task = folder_task(tmp_path, 8, seed=0)
    assert (len(task.train_images), len(task.test_images)) == (6, 4)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.*is neither"):
        folder_task(tmp_path / "nowhere", 8, seed=0)


def test_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"at least two classes.*has 0"):
        folder_task(tmp_path, 8, seed=0)


def test_an_empty_class(two_classes: Path) -> None:
    (two_classes / "nothing").mkdir()
    with pytest.raises(UsageError, match="no image of class 'nothing'"):
        folder_task(two_classes, 8, seed=0)


def test_too_few_to_split(two_classes: Path) -> None:
    write_class(two_classes / "scarce", 1, 0)
    with pytest.raises(UsageError, match=r"at least two images.*'scarce'"):
        folder_task(two_classes, 8, seed=0)


def test_train_without_test(tmp_path: Path) -> None:
    write_class(tmp_path / "train" / "a", 1, 0)
    with pytest.raises(UsageError, match="neither test/ nor val/"):
        folder_task(tmp_path, 8, seed=0)


def test_a_class_that_only_the_test_folder_has(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b", "test/c"):
        write_class(tmp_path / name, 1, 0)
    with pytest.raises(UsageError, match="train/ lacks: c"):
        folder_task(tmp_path, 8, seed=0)


@pytest.mark.parametrize("damage", [b"not an image", b""])
def test_a_corrupt_image_is_named(two_classes: Path, damage: bytes) -> None:
    (two_classes / "dark" / "3.png").write_bytes(damage)
    with pytest.raises(UsageError, match=r"not a readable image: .*3\.png"):
        folder_task(two_classes, 8, seed=0)


def test_a_truncated_image_is_named(two_classes: Path) -> None:
    victim = two_classes / "light" / "5.png"
    Image.effect_noise((64, 64), 80).save(victim)
    victim.write_bytes(victim.read_bytes()[:500])
    with pytest.raises(UsageError, match=r"5\.png"):
        folder_task(two_classes, 8, seed=0)
