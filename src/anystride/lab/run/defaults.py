"""What a run is when nothing is said: the network, its strides and its training follow from the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anystride.lab.data.names import SOUND, is_known
from anystride.lab.run.config import SCENES, RunConfig, Strides

LARGE = 64
"""Side of an image from which on the network's stem downsamples, as for ImageNet."""


def _both(*strides: float) -> Strides:
    return tuple((float(stride), float(stride)) for stride in strides)


STRIDES: dict[str, Strides] = {
    "resnet18": _both(2, 2, 2),
    "resnet18-imagenet": _both(1, 2, 2, 2),
    "resnet18-release": _both(1, 2, 2, 2),
    "densenet-bc": _both(2, 2),
    "efficientnet-b0": _both(1, 2, 2, 2, 1, 2, 1),
    "audio": _both(2, 2, 1, 2, 1, 2),
    "series": _both(2, 2, 2),
}
"""The usual strides of each network: a test holds that it takes them."""

METHOD = "cosine"
"""As `convert_` chooses; the paper's recipes say "outer" themselves."""
VALIDATION = 0.1
LIMITED = {"stride_until": 0.5}
"""With a budget: strides learn for half of the epochs, then end just within it and rest while the weights learn on."""
OWN = {"width": 16, "epochs": 20}
"""For one's own data, of which nothing is known: a network that two processors train in minutes."""
SOUND_TRAINING = {"model": "audio", "optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}


def usual(data: str, label_pattern: str = "", model: str = "") -> dict[str, Any]:
    """Fields of `RunConfig` for a data set or a folder, apart from those that every run has alike.

    Args:
        data: the value of `--data`.
        label_pattern: the value of `--label-pattern`.
        model: the value of `--model`; "" where the data are to decide.

    Raises:
        UsageError: a folder with nothing to learn from.
    """
    values: dict[str, Any] = {"data": data, "method": METHOD, "validation": VALIDATION, **_by_data(data, label_pattern)}
    values["model"] = model or values.get("model", RunConfig.model)
    return {**values, "strides": STRIDES[values["model"]]}


def _by_data(data: str, label_pattern: str) -> dict[str, Any]:
    if data == SCENES:
        return {}
    if data == "imagenet":
        return {**OWN, "model": "resnet18-imagenet", "image_size": 224}
    if is_known(data):
        return {**OWN, **SOUND_TRAINING} if data.partition("+")[0] in SOUND else dict(OWN)
    path = Path(data)
    if path.is_file():
        return {**OWN, "model": "series"}
    from anystride.lab.data.tree import kind_of, read_tree

    kind = kind_of(path)
    if kind == "sound":
        return {**OWN, **SOUND_TRAINING}
    if kind == "series":
        return {**OWN, "model": "series"}
    from anystride.lab.data.images import usual_size

    side = usual_size(read_tree(path, kind, label_pattern))
    return {**OWN, "image_size": side, "model": "resnet18-imagenet" if side > LARGE else "resnet18"}


def told(config: RunConfig) -> str:
    """What a run is, in a line, with the options that change it."""
    sized = config.model not in ("audio", "series")
    size = f" at {config.image_size}x{config.image_size}" if sized else ""
    best = f"the best epoch on {config.validation:.0%} set aside" if config.validation else "the last epoch is kept"
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
    return (
        f"{config.model} of width {config.width}{size}, {epochs}, {best}, on {threads}; "
        f"options such as --model, --width, {'--image-size ' * sized}and --epochs change this"
    )


def slow_precision(config: RunConfig) -> str:
    """A warning where this machine computes the run's precision slowly, with the remedy; "" where it does not."""
    import torch

    slow = torch.backends.cpu.get_cpu_capability() == "AVX2" and not torch.cuda.is_available()
    if not (slow and config.precision == "bf16-mixed"):
        return ""
    return (
        "--precision bf16-mixed: this processor has no AVX-512, without which bfloat16 is emulated: a step takes "
        "many times as long as with --precision 32-true"
    )
