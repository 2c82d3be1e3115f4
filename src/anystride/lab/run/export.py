"""The command that takes a trained network out of PyTorch."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from anystride import freeze_
from anystride.lab.errors import UsageError
from anystride.lab.run.folder import CHECKPOINT
from anystride.lab.run.training import load_classifier

TOLERANCE = 1e-4
"""Largest difference from PyTorch's output that an export may have, relative to its largest entry."""


def export(run: Path, target: str, out: Path | None, console: Console) -> Path:
    """Freeze the network of `run`, write it for `target`, compare outputs; the batch size stays open."""
    checkpoint = run / CHECKPOINT
    if not checkpoint.is_file():
        raise UsageError(f"RUN_DIR must hold {CHECKPOINT}, which 'anystride train' leaves, got {str(run)!r}")
    classifier = load_classifier(checkpoint)
    model = classifier.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = torch.rand(3, *classifier.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)
    freeze_(model, images)
    path = out or run / f"model.{target}"
    if not path.parent.is_dir():
        raise UsageError(f"--out must be a file in a folder that exists, got {str(path)!r}")
    unfinished = path.with_name(f".part-{path.name}")
    try:
        with _quiet():
            result = TARGETS[target](model, images, unfinished)
        difference = ((result - expected).abs().max() / expected.abs().max()).item()
        if not difference <= TOLERANCE:
            raise UsageError(
                f"--to {target}: its output differs from PyTorch's by {difference:.1e}; nothing was written"
            )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    shape = ", ".join(map(str, classifier.shape))
    console.print(
        f"{path}: input 'images' (batch, {shape}), output 'logits' (batch, {len(expected[0])}); "
        f"differs from PyTorch by {difference:.1e}",
        highlight=False,
        soft_wrap=True,
    )
    return path


def _onnx(model: nn.Module, images: Tensor, path: Path) -> Tensor:
    import onnxruntime

    torch.onnx.export(
        model,
        (images,),
        path,
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _pt2(model: nn.Module, images: Tensor, path: Path) -> Tensor:
    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.export.save(program, path)
    logits: Tensor = torch.export.load(path).module()(images)
    return logits.detach()


TARGETS: dict[str, Callable[[nn.Module, Tensor, Path], Tensor]] = {"onnx": _onnx, "pt2": _pt2}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' notices about their own internals from the terminal; errors still show."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
