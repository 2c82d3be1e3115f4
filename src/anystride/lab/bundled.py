"""Small networks that come with the package, trained: weights as safetensors, with what opens them in the header."""

from __future__ import annotations

import json
from pathlib import Path

from anystride.lab.errors import UsageError
from anystride.lab.trained import Trained, trained_of

WEIGHTS = Path(__file__).parent / "weights"
HEADER = "anystride"
"""The entry of the header that holds configuration, classes, shape and preprocessing, as JSON."""


def names() -> list[str]:
    """The networks that there are."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def pretrained(name: str = "resnet18-cifar10") -> Trained:
    """A small trained network that learned its strides, ready to be used or tuned.

    Args:
        name: "resnet18-cifar10": a ResNet-18 of width 8 for images of 32x32 in ten classes, whose strides were learned
            within the costs of strided convolutions. Its card stands beside its weights, in `lab/weights`.

    Returns:
        The network on the CPU, in evaluation mode, with its classes, `preprocess` and `predict`, as from `load`.

    Raises:
        UsageError: there is no network of that name.
        ImportError: safetensors is not installed.

    Example:
        >>> import torch
        >>> trained = pretrained()
        >>> trained.model(torch.zeros(1, 3, 32, 32)).shape, trained.classes[:2]
        (torch.Size([1, 10]), ('airplane', 'automobile'))
    """
    if name not in names():
        raise UsageError(f"name must be one of {', '.join(names())}, got {name!r}")
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError("pretrained weights need safetensors: pip install 'anystride[lab]'") from error
    path = WEIGHTS / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        values = json.loads(file.metadata()[HEADER])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
    saved = {"hyper_parameters": values, "state_dict": weights}
    return trained_of(saved, checkpoint=path, epoch=values["epoch"], record=None)
