"""The pictures of a demonstration and of a single run, and the numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from anystride import DiffStride2d, SpectralPool2d
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.images import displayed
from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.resnet import Block, ResNet
from anystride.lab.report import pictures
from anystride.lab.report.terminal import Group, group
from anystride.lab.run.config import RunConfig
from anystride.lab.run.experiment import CHECKPOINT
from anystride.lab.run.record import Record
from anystride.lab.run.training import Classifier, load_classifier

SHEET = 30
"""Images on the sheet of examples."""
BLOCKS = 3
"""Downsamplers of the ResNet-18 for small images."""
SPECTRUM_IMAGES = 256
"""Test images over which a spectrum's energy is averaged."""
COMPARED_STRIDES = (2, 3)


def draw_demo(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Draw all pictures of a demonstration, from its records and checkpoints. Returns their paths."""
    learning = [each for each in groups if DOWNSAMPLERS[each.method].learns]
    drawn = [folder / "accuracy.png", folder / "strides.png"]
    pictures.accuracy_chart(groups, drawn[0])
    pictures.stride_trajectories(learning, drawn[1])
    poor = [each.records[0] for each in learning if each.start == groups[-1].start]
    for record in poor:
        config = record.config
        drawn.append(_draw_windows(record, folder / config.name, folder / f"windows-{config.method}.png"))
    run_folder = folder / poor[0].config.name
    return [*drawn, _draw_maps(poor[0], run_folder, folder / "maps.png"), _draw_sheet(poor[0], folder / "examples.png")]


def draw_run(record: Record, folder: Path, root: Path | None = None) -> list[Path]:
    """Draw the pictures of one run whose checkpoint lies in `folder`. Returns their paths.

    Windows and maps are drawn for the ResNet-18 for small images only.
    """
    config = record.config
    small = config.model == "resnet18" and len(config.strides) == BLOCKS
    drawn = []
    if DOWNSAMPLERS[config.method].learns:
        pictures.stride_trajectories(group([record]), folder / "strides.png")
        drawn.append(folder / "strides.png")
        if small:
            drawn.append(_draw_windows(record, folder, folder / "windows.png"))
    if small:
        drawn.append(_draw_maps(record, folder, folder / "maps.png"))
    return [*drawn, _draw_sheet(record, folder / "examples.png", root)]


def _draw_windows(record: Record, folder: Path, path: Path) -> Path:
    """The learned windows of the run in `folder`, over the energy of what reaches them."""
    config = record.config
    classifier = load_classifier(folder / CHECKPOINT)
    images = _test_images(config, SPECTRUM_IMAGES).inputs
    spectra = []
    for stage, block in enumerate(_blocks(classifier)):
        maps = _input_of(block.pool, classifier, images)
        start_sizes = record.start_map_sizes[stage]
        pair = [
            pictures.AxisSpectrum(
                energy=_energy(maps, axis=2 + direction),
                start_length=start_sizes[direction],
                start_stride=record.start_strides[stage][direction],
                length=maps.shape[2 + direction],
                stride=record.strides[stage][direction],
            )
            for direction in (0, 1)
        ]
        spectra.append((pair[0], pair[1]))
    title = f"{DOWNSAMPLERS[config.method].title}: energy that reaches each downsampler, and the window that it learned"
    pictures.windows_over_spectrum(spectra, config.smoothness, config.method, title, path)
    return path


@torch.no_grad()
def _draw_maps(record: Record, folder: Path, path: Path) -> Path:
    """The map that the first shortcut block of the run in `folder` downsamples, after each of the four methods."""
    config = record.config
    classifier = load_classifier(folder / CHECKPOINT)
    example = _test_images(config, 1)
    scene = example.inputs
    block = _blocks(classifier)[0]
    # Whatever the method of the run: its weights at stride 1, as in Figure 2b.
    maps = conv2d(_input_of(block, classifier, scene), block.conv1.weight, padding=1)
    channel = int(maps.var(dim=(2, 3)).argmax())
    before = maps[:, channel : channel + 1]
    rows = []
    for stride in COMPARED_STRIDES:
        pools: dict[str, nn.Module] = {
            "spectral": SpectralPool2d(stride),
            "outer": DiffStride2d(stride, smoothness=config.smoothness, ramp="outer"),
            "inner": DiffStride2d(stride, smoothness=config.smoothness, ramp="inner"),
        }
        # A strided convolution is the same convolution, of which every S-th value is kept.
        after = {"strided": before[..., ::stride, ::stride], **{name: pool(before) for name, pool in pools.items()}}
        named = [(DOWNSAMPLERS[name].title, image[0, 0].numpy()) for name, image in after.items()]
        rows.append((f"stride {stride}", named))
    pictures.feature_maps(_for_matplotlib(example.shown)[0], before[0, 0].numpy(), rows, path)
    return path


def _draw_sheet(record: Record, path: Path, root: Path | None = None) -> Path:
    """Some test images with their classes."""
    images = _test_images(record.config, SHEET, root)
    pictures.image_sheet(_for_matplotlib(images.shown), images.classes, "Test images and their classes", path)
    return path


def _blocks(classifier: Classifier) -> list[Block]:
    assert isinstance(classifier.model, ResNet)
    return classifier.model.shortcut_blocks


class _Images(NamedTuple):
    """Test images (n, C, H, W) as the network sees them and as they look, and the names of their classes."""

    inputs: Tensor
    shown: Tensor
    classes: list[str]


def _test_images(config: RunConfig, count: int, root: Path | None = None) -> _Images:
    """The first test images of a run."""
    source = open_source(config, root)
    inputs, labels, *_ = source.test_batch(torch.arange(min(count, source.test_length)))
    is_image = source.preprocessing.get("kind") == "image"
    shown = displayed(inputs, source.preprocessing) if is_image else inputs
    return _Images(inputs, shown, [source.classes[label] for label in labels.tolist()])


@torch.no_grad()
def _input_of(module: nn.Module, classifier: Classifier, images: Tensor) -> Tensor:
    """The first input of a module in one forward pass: a pooling layer serves two branches."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    classifier(images)
    handle.remove()
    return seen[0]


def _energy(maps: Tensor, axis: int) -> pictures.Floats:
    """Energy of maps (N, C, H, W) per frequency 0 .. L // 2 of one axis, averaged over everything else."""
    spectrum = np.abs(np.fft.rfft(maps.numpy(), axis=axis)) ** 2
    energy: pictures.Floats = spectrum.mean(axis=tuple(other for other in range(4) if other != axis))
    return energy


def _for_matplotlib(images: Tensor) -> pictures.Floats:
    """Images (n, C, H, W) as matplotlib wants them: (n, H, W) for one channel, (n, H, W, 3) for three."""
    array: pictures.Floats = images.permute(0, 2, 3, 1).numpy()
    return array[..., 0] if array.shape[-1] == 1 else array
