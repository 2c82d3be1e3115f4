"""The pictures of a demonstration and of a single run, and the numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from anystride import DiffStride1d, DiffStride2d
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.source import Source
from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.measure import entering_length
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.report import examples, maps, pictures
from anystride.lab.report.terminal import Group, group
from anystride.lab.run.folder import BEST, CHECKPOINT
from anystride.lab.run.record import Record
from anystride.lab.run.training import Classifier, load_classifier

SPECTRUM_EXAMPLES, SPECTRUM_VALUES = 256, 2**22
"""Test examples over which a spectrum's energy is averaged, and the values that they have together: at most so many."""

Report = Callable[[str], object]
Work = dict[str, Callable[[Path], object]]
"""What draws a picture, by the picture's name."""


class TrainedRun:
    """A run with its network and its data, which are read when they are first needed.

    Args:
        record: of the run.
        folder: where its checkpoint lies.
        root: of the data sets.
    """

    def __init__(self, record: Record, folder: Path, root: Path | None = None) -> None:
        self.record, self.config, self.folder, self.root = record, record.config, folder, root

    @cached_property
    def classifier(self) -> Classifier:
        """The network that the run ended with: its best epoch's where there is one."""
        best = self.folder / BEST
        return load_classifier(best if best.is_file() else self.folder / CHECKPOINT)

    @cached_property
    def source(self) -> Source:
        """What the run learned from."""
        return open_source(self.config, self.root)

    def test_inputs(self, count: int) -> Tensor:
        """Inputs of the first test examples."""
        return self.source.test_batch(torch.arange(min(count, self.source.test_length)))[0]


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
    work: Work = {
        "accuracy.png": partial(pictures.accuracy_chart, groups),
        "strides.png": partial(pictures.stride_trajectories, learning),
    }
    poor = [each.records[0] for each in learning if each.start == groups[-1].start]
    trained = [TrainedRun(record, folder / record.config.name) for record in poor]
    for run in trained:
        work[f"windows-{run.config.method}.png"] = partial(_windows, run)
    work["maps.png"] = partial(_maps, trained[0])
    work["examples.png"] = partial(_examples, trained[0])
    return _drawn(work, folder, report)


def draw_run(record: Record, folder: Path, root: Path | None, report: Report) -> list[Path]:
    """Draw the pictures of one run whose checkpoint lies in `folder`.

    Args:
        record: of the run.
        folder: of the run.
        root: of the data sets.
        report: is told in a line of each picture that is left out or cannot be drawn: the run is worth more.

    Returns:
        Their paths.
    """
    run = TrainedRun(record, folder, root)
    work: Work = {}
    if DOWNSAMPLERS[run.config.method].learns:
        work["strides.png"] = partial(pictures.stride_trajectories, group([record]))
        work["windows.png"] = partial(_windows, run)
    work["maps.png"] = partial(_maps, run)
    work["examples.png"] = partial(_examples, run)
    return _drawn(work, folder, report)


def _drawn(work: Work, folder: Path, report: Report) -> list[Path]:
    made = []
    for name, draw in work.items():
        try:
            draw(folder / name)
            made.append(folder / name)
        except maps.LeftOutError as reason:
            report(f"picture {name} is left out: {reason}")
        except Exception as error:  # whatever a picture fails with, the run and the other pictures stay
            lines = str(error).splitlines() or [""]
            report(f"picture {name} could not be drawn: {type(error).__name__}: {lines[0]}")
    return made


def _windows(run: TrainedRun, path: Path) -> None:
    """The learned windows of a run, over the energy of what reaches them."""
    record, config, classifier = run.record, run.config, run.classifier
    layers = [layer for layer in classifier.modules() if isinstance(layer, DiffStride1d | DiffStride2d)]
    if not layers:
        raise maps.LeftOutError("the windows of the release's layers are others than those that it draws")
    count = min(SPECTRUM_EXAMPLES, max(1, SPECTRUM_VALUES // run.source.example.numel()))
    energies = _energies(layers, classifier, run.test_inputs(count))
    axes = ARCHITECTURES[config.model].axes
    spectra = [
        [
            pictures.AxisSpectrum(
                name=name,
                energy=energy,
                length=length,
                start_length=entering_length(record.start_map_sizes, record.start_strides, number, axis),
                start_stride=record.start_strides[number][axis],
                stride=record.strides[number][axis],
            )
            for axis, (name, (energy, length)) in enumerate(zip(axes, energies[layer], strict=True))
        ]
        for number, layer in enumerate(layers)
    ]
    title = f"{DOWNSAMPLERS[config.method].title}: energy that reaches each downsampler, and the window that it learned"
    pictures.windows_over_spectrum(spectra, config.smoothness, config.method, title, path)


@torch.no_grad()
def _maps(run: TrainedRun, path: Path) -> None:
    """The map that the first downsampler of a run reduces, after each of the methods: whatever the run's own is."""
    example = run.test_inputs(1)[:1]
    found = maps.first_maps(run.classifier.model, example)
    image = examples.displayed(example, run.source, run.config)[0]
    maps.draw(image, examples.kind_of(run.config), found, run.config.smoothness, path)


@torch.no_grad()
def _examples(run: TrainedRun, path: Path) -> None:
    """Some test examples of each class, with their classes and what the network says."""
    source, classifier = run.source, run.classifier
    rows = examples.chosen(source)
    inputs, labels, *windows = source.test_batch(rows)
    logits = torch.cat([classifier(part) for part in inputs.split(source.test_rows)])
    first = torch.arange(len(rows))
    if windows:  # of a sound: its first window is shown, and all of them count
        sums = logits.new_zeros(len(rows), logits.shape[1]).index_add(0, windows[0], logits)
        logits, first = sums, torch.searchsorted(windows[0].sort().values, torch.arange(len(rows)))
    guesses = classifier.own(logits, labels).argmax(dim=1)
    sheet = examples.Sheet(
        images=examples.displayed(inputs[first], source, run.config),
        labels=labels.tolist(),
        guesses=guesses.tolist(),
        classes=source.classes,
        kind=examples.kind_of(run.config),
    )
    examples.draw(sheet, path)


@torch.no_grad()
def _energies(
    layers: Sequence[nn.Module], classifier: Classifier, inputs: Tensor
) -> dict[nn.Module, list[tuple[pictures.Floats, int]]]:
    """For each layer and axis, the energy of the first map that enters it, and the map's length.

    A pooling layer may serve two branches: its first call counts.
    """
    seen: dict[nn.Module, list[tuple[pictures.Floats, int]]] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if module not in seen:
            found = arguments[0]
            seen[module] = [(_energy(found, axis), found.shape[axis]) for axis in range(2, found.ndim)]

    handles = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        classifier(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _energy(found: Tensor, axis: int) -> pictures.Floats:
    """Energy of maps (N, C, ...) per frequency 0 .. L // 2 of one axis, averaged over everything else."""
    spectrum = np.abs(np.fft.rfft(found.numpy(), axis=axis)) ** 2
    energy: pictures.Floats = spectrum.mean(axis=tuple(other for other in range(found.ndim) if other != axis))
    return energy
