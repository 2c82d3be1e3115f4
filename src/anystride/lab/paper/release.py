"""The experiment of the authors' release (github.com/google-research/diffstride): another protocol than the paper's.

It trains a pre-activation ResNet-18 with the release's own layers (`models.release`) for 400 epochs of batches of 128.
Mixup (0.2) makes one image of two, with a share for each pair: an epoch is 25,000 mixed images, 195 batches. Keras adds
5e-4 |w|^2 to the loss for the kernels of convolutions, which is a weight decay of 1e-3 here; norms do not decay. The
learning rate follows batches: 0.01 for the first 400, 0.1 until 18,000, 0.01 until 32,000, and 0.001 to the end.

Its settings name a label smoothing of 0.2, and its code has shifts by 2 pixels with flips, but what it runs reads
neither. So it is here; `--label-smoothing 0.2 --augment release` turns them on. "DiffStride" is the layer of the paper
in the same network. What is left: the release divides channels by smaller deviations (0.20 for 0.25).
"""

from __future__ import annotations

from dataclasses import replace

from anystride.lab.paper.protocols import SCENES, Protocol, cifar
from anystride.lab.paper.recipe import TITLES, Cell, Recipe, Setting, both, transcribed

STARTS = {"(1, 1, 2, 2, 2)": (1, 2, 2, 2), "(1, 1, 3, 2, 3)": (1, 3, 2, 3)}
"""Rows as the release writes them, and the strides: its second number, of the first stage, is not used there."""

METHODS = ("strided", "release-spectral", "release", "outer", "inner")
_PUBLISHED = METHODS[:3]
PUBLISHED = {
    "cifar10": transcribed(
        """
        (1, 1, 2, 2, 2): 91.06 0.04, 93.49 0.05, 94.20 0.06
        (1, 1, 3, 2, 3): 89.21 0.27, 92.00 0.08, 94.19 0.15
        """,
        _PUBLISHED,
    ),
    "cifar100": transcribed(
        """
        (1, 1, 2, 2, 2): 65.75 0.39, 72.86 0.23, 76.08 0.23
        (1, 1, 3, 2, 3): 60.82 0.42, 67.74 0.43, 76.09 0.06
        """,
        _PUBLISHED,
    ),
}

MIXUP = 0.2
WEIGHT_DECAY = 2 * 5e-4
EPOCHS = 400


def protocol_for(data: str) -> Protocol:
    """What the release trains; a stand-in keeps its network and its loss."""
    protocol = cifar(data)
    base = replace(protocol.base, model="resnet18-release", mixup=MIXUP)
    if not protocol.small:
        base = replace(base, batch_size=128, weight_decay=WEIGHT_DECAY, schedule="release", epochs=EPOCHS)
        base = replace(base, mixup_by="pair", decay="weights", augment="none")
    note = "The protocol of the authors' release, not the paper's."
    if protocol.stands_in_for:
        note = protocol.note if protocol.small else f"Own images. {note}"
    return replace(protocol, base=base, note=note)


def settings(dataset: str) -> Setting:
    protocol = protocol_for(dataset)
    table = PUBLISHED[protocol.stands_in_for or dataset]
    cells = tuple(
        Cell(
            row,
            TITLES[method],
            (replace(protocol.base, method=method, strides=both(start)),),
            published=table[row].get(method),
        )
        for row, start in STARTS.items()
        for method in METHODS
    )
    return Setting(cells, protocol.note, protocol.stands_in_for)


RECIPE = Recipe(
    "release",
    "CIFAR as in the authors' release",
    "the README of github.com/google-research/diffstride",
    ("cifar10", "cifar100", SCENES),
    SCENES,
    settings,
)
