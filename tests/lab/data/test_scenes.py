"""The scenes: no leak between the splits, reproducible, and what they say they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate

from anystride.lab.data.images import read_inputs
from anystride.lab.data.scenes import CANVAS, DIGIT, FRAGMENTS, MARGIN, digits_of, make_scenes, scene_task


def test_no_digit_is_in_both_splits() -> None:
    train, test = make_scenes("train", 500, seed=0), make_scenes("test", 500, seed=0)
    assert not set(train.digits.flatten().tolist()) & set(test.digits.flatten().tolist())
    assert set(digits_of("train")) | set(digits_of("test")) == set(range(1797))


def test_the_split_of_digits_does_not_depend_on_the_seed() -> None:
    assert set(make_scenes("test", 300, seed=7).digits.flatten().tolist()) <= set(digits_of("test").tolist())


def test_shapes_and_range() -> None:
    scenes = make_scenes("train", 20, seed=0)
    assert scenes.images.shape == (20, 1, CANVAS, CANVAS)
    assert scenes.images.dtype == torch.float32
    assert scenes.digits.shape == (20, 1 + FRAGMENTS)
    assert 0 <= scenes.images.min() < scenes.images.max() <= 1


def test_masks_cover_the_whole_digit_and_nothing_else() -> None:
    pixels = (load_digits().images / 16).astype(np.float32)
    scenes = make_scenes("train", 20, seed=2)
    assert scenes.masks.shape == scenes.images.shape
    assert scenes.masks.dtype == torch.bool
    for image, mask, row in zip(scenes.images, scenes.masks, scenes.digits[:, 0].tolist(), strict=True):
        assert torch.equal(image[mask], torch.from_numpy(pixels[row][pixels[row] > 0]))


def test_scenes_of_two_scales() -> None:
    pixels = torch.from_numpy((load_digits().images / 16).astype(np.float32))
    scenes = make_scenes("test", 60, seed=2, scales=(1, 2))
    assert set(scenes.scales.tolist()) == {1, 2}
    for image, mask, row, scale in zip(scenes.images, scenes.masks, scenes.digits[:, 0], scenes.scales, strict=True):
        rows, columns = mask[0].any(1).nonzero().flatten(), mask[0].any(0).nonzero().flatten()
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) < DIGIT * scale
        shown = interpolate(pixels[row][None, None], scale_factor=int(scale), mode="bilinear")[0]
        torch.testing.assert_close(image[mask].sum(), shown.sum())


def test_same_arguments_same_scenes_other_seed_other_scenes() -> None:
    one, same, other = (make_scenes("train", 50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)


def test_the_whole_digit_is_shown_unharmed_on_a_clear_square() -> None:
    pixels = (load_digits().images / 16).astype(np.float32)
    scenes = make_scenes("train", 30, seed=1)
    side = DIGIT + 2 * MARGIN
    for image, rows in zip(scenes.images[:, 0].numpy(), scenes.digits[:, 0].tolist(), strict=True):
        expected = np.pad(pixels[rows], MARGIN)
        squares = np.lib.stride_tricks.sliding_window_view(image, (side, side))
        assert (squares == expected).all(axis=(2, 3)).any()


def test_labels_are_the_whole_digits_class_and_fragments_come_from_others() -> None:
    target = torch.from_numpy(load_digits().target)
    scenes = make_scenes("test", 200, seed=0)
    assert torch.equal(target[scenes.digits[:, 0]], scenes.labels)
    assert (target[scenes.digits[:, 1:]] != scenes.labels[:, None]).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_task_holds_both_splits(split: str) -> None:
    task = scene_task(12, 8, seed=0)
    assert len(getattr(task, f"{split}_images")) == {"train": 12, "test": 8}[split]
    assert len(task.classes) == 10


def test_scenes_can_be_larger() -> None:
    small, large = (scene_task(4, 2, seed=0, image_size=size).test_batch(torch.arange(2)) for size in (32, 64))
    assert large[0].shape == (2, 1, 64, 64)
    assert torch.equal(large[1], small[1])
    assert torch.allclose(large[0].mean(), small[0].mean(), atol=0.01)


@pytest.mark.parametrize("size", [32, 64])
def test_a_file_alone_gives_the_input_that_the_test_has(tmp_path: Path, size: int) -> None:
    task = scene_task(4, 2, seed=0, image_size=size)
    scene = (255 * task.test_images[1, 0]).round().to(torch.uint8).numpy()
    Image.fromarray(scene).save(tmp_path / "scene.png")
    expected, _ = task.test_batch(torch.tensor([1]))
    inputs = read_inputs(tmp_path / "scene.png", task.preprocessing)
    torch.testing.assert_close(inputs, expected, atol=0.5 / 255 + 1e-6, rtol=0)


def test_scenes_are_shifted_where_it_is_asked_for() -> None:
    rows = torch.tensor([0] * 100)
    plain, shifted = (
        scene_task(4, 2, seed=0, augment=name).train_batch(rows, torch.Generator().manual_seed(0))[0]
        for name in ("auto", "crop")
    )
    assert (plain == plain[0]).all()
    assert len({tuple(scene.flatten().tolist()) for scene in shifted}) > 30
