"""The pictures of a demonstration and of a single run, and the numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from anystride import DiffStride1d, DiffStride2d, SpectralPool2d
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.source import Source
from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.registry import ARCHITECTURES, SOUND_AXES
from anystride.lab.models.resnet import ResNet
from anystride.lab.report import examples, pictures
from anystride.lab.report.terminal import Group, group
from anystride.lab.run.folder import BEST, CHECKPOINT
from anystride.lab.run.record import Record
from anystride.lab.run.training import Classifier, load_classifier

SPECTRUM_EXAMPLES = 256
"""Test examples over which a spectrum's energy is averaged."""
COMPARED_STRIDES = (2, 3)

Report = Callable[[str], object]


def draw_demo(groups: Sequence[Group], folder: Path, report: Report) -> list[Path]:
    """Draw all pictures of a demonstration, from its records and checkpoints.

    Args:
        groups: of its runs.
        folder: where the runs lie, and the pictures will.
        report: is told in a line of each picture that cannot be drawn.

    Returns:
        Their paths.
    """
    learning = [each for each in groups if DOWNSAMPLERS[each.method].learns]
    work: dict[str, Callable[[Path], object]] = {
        "accuracy.png": partial(pictures.accuracy_chart, groups),
        "strides.png": partial(pictures.stride_trajectories, learning),
    }
    poor = [each.records[0] for each in learning if each.start == groups[-1].start]
    for record in poor:
        work[f"windows-{record.config.method}.png"] = partial(_windows, record, folder / record.config.name, None)
    run_folder = folder / poor[0].config.name
    work["maps.png"] = partial(_maps, poor[0], run_folder, None)
    work["examples.png"] = partial(_examples, poor[0], run_folder, None)
    return _drawn(work, folder, report)


def draw_run(record: Record, folder: Path, root: Path | None, report: Report) -> list[Path]:
    """Draw the pictures of one run whose checkpoint lies in `folder`.

    Args:
        record: of the run.
        folder: of the run.
        root: of the data sets.
        report: is told in a line of each picture that cannot be drawn: the run is worth more.

    Returns:
        Their paths.
    """
    config = record.config
    work: dict[str, Callable[[Path], object]] = {}
    if DOWNSAMPLERS[config.method].learns:
        work["strides.png"] = partial(pictures.stride_trajectories, group([record]))
        work["windows.png"] = partial(_windows, record, folder, root)
    if config.model == "resnet18":
        work["maps.png"] = partial(_maps, record, folder, root)
    work["examples.png"] = partial(_examples, record, folder, root)
    return _drawn(work, folder, report)


def _drawn(work: dict[str, Callable[[Path], object]], folder: Path, report: Report) -> list[Path]:
    made = []
    for name, draw in work.items():
        try:
            draw(folder / name)
            made.append(folder / name)
        except Exception as error:  # whatever a picture fails with, the run and the other pictures stay
            reason = (str(error).splitlines() or [""])[0]
            report(f"The picture {name} could not be drawn ({type(error).__name__}: {reason}).")
    return made


def trained(folder: Path) -> Classifier:
    """The network that a run ended with: its best epoch's where there is one."""
    best = folder / BEST
    return load_classifier(best if best.is_file() else folder / CHECKPOINT)


def _windows(record: Record, folder: Path, root: Path | None, path: Path) -> None:
    """The learned windows of the run in `folder`, over the energy of what reaches them."""
    config = record.config
    classifier = trained(folder)
    layers = [layer for layer in classifier.modules() if isinstance(layer, DiffStride1d | DiffStride2d)]
    inputs = _inputs_of(layers, classifier, _test_batch(open_source(config, root), SPECTRUM_EXAMPLES)[0])
    axes = ARCHITECTURES[config.model].axes
    spectra = []
    for number, layer in enumerate(layers):
        maps = inputs[layer]
        spectra.append(
            [
                pictures.AxisSpectrum(
                    name=axes[axis],
                    energy=_energy(maps, axis=2 + axis),
                    length=maps.shape[2 + axis],
                    start_stride=record.start_strides[number][axis],
                    stride=record.strides[number][axis],
                )
                for axis in range(maps.ndim - 2)
            ]
        )
    title = f"{DOWNSAMPLERS[config.method].title}: energy that reaches each downsampler, and the window that it learned"
    pictures.windows_over_spectrum(spectra, config.smoothness, config.method, title, path)


@torch.no_grad()
def _maps(record: Record, folder: Path, root: Path | None, path: Path) -> None:
    """The map that the first shortcut block of the run in `folder` downsamples, after each of the methods."""
    config = record.config
    classifier = trained(folder)
    assert isinstance(classifier.model, ResNet)
    block = classifier.model.shortcut_blocks[0]
    source = open_source(config, root)
    example = _test_batch(source, 1)[0][:1]
    # Whatever the method of the run: its weights at stride 1, as in Figure 2b.
    maps = conv2d(_inputs_of([block], classifier, example)[block], block.conv1.weight, padding=1)
    channel = int(maps.var(dim=(2, 3)).argmax())
    before = maps[:, channel : channel + 1]
    rows = []
    for stride in COMPARED_STRIDES:
        pools: dict[str, nn.Module] = {
            "spectral": SpectralPool2d(stride),
            "outer": DiffStride2d(stride, smoothness=config.smoothness, ramp="outer"),
            "inner": DiffStride2d(stride, smoothness=config.smoothness, ramp="inner"),
            "cosine": DiffStride2d(stride, ramp="cosine"),
        }
        # A strided convolution is the same convolution, of which every S-th value is kept.
        after = {"strided": before[..., ::stride, ::stride], **{name: pool(before) for name, pool in pools.items()}}
        named = [(DOWNSAMPLERS[name].title, image[0, 0].numpy()) for name, image in after.items()]
        rows.append((f"stride {stride}", named))
    image = examples.displayed(example, source, config)[0]
    pictures.feature_maps(image, before[0, 0].numpy(), rows, path)


@torch.no_grad()
def _examples(record: Record, folder: Path, root: Path | None, path: Path) -> None:
    """Some test examples of each class, with their classes and what the network says."""
    config, source = record.config, open_source(record.config, root)
    rows = examples.chosen(source)
    inputs, labels, *windows = source.test_batch(rows)
    classifier = trained(folder)
    logits = classifier(inputs)
    first = torch.arange(len(rows))
    if windows:  # of a sound: its first window is shown, and all of them count
        sums = logits.new_zeros(len(rows), logits.shape[1]).index_add(0, windows[0], logits)
        logits, first = sums, torch.searchsorted(windows[0].sort().values, torch.arange(len(rows)))
    guesses = classifier.own(logits, labels).argmax(dim=1)
    sheet = examples.Sheet(
        images=examples.displayed(inputs[first], source, config),
        labels=labels.tolist(),
        guesses=guesses.tolist(),
        classes=source.classes,
        is_sound=ARCHITECTURES[config.model].axes == SOUND_AXES,
    )
    examples.draw(sheet, path)


def _test_batch(source: Source, count: int) -> tuple[Tensor, ...]:
    """The first test examples of a source."""
    return source.test_batch(torch.arange(min(count, source.test_length)))


@torch.no_grad()
def _inputs_of(modules: Sequence[nn.Module], classifier: Classifier, inputs: Tensor) -> dict[nn.Module, Tensor]:
    """The first input of each module in one forward pass: a pooling layer may serve two branches."""
    seen: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.setdefault(module, arguments[0])

    handles = [module.register_forward_pre_hook(keep) for module in modules]
    classifier(inputs)
    for handle in handles:
        handle.remove()
    return seen


def _energy(maps: Tensor, axis: int) -> pictures.Floats:
    """Energy of maps (N, C, ...) per frequency 0 .. L // 2 of one axis, averaged over everything else."""
    spectrum = np.abs(np.fft.rfft(maps.numpy(), axis=axis)) ** 2
    energy: pictures.Floats = spectrum.mean(axis=tuple(other for other in range(maps.ndim) if other != axis))
    return energy
