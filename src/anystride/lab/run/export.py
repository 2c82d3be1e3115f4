"""The command that takes a trained network out of PyTorch."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from anystride import __version__, freeze_
from anystride.lab.data.tree import printable
from anystride.lab.errors import UsageError
from anystride.lab.files import check_place, replacing
from anystride.lab.models.registry import ARCHITECTURES, IMAGE_AXES
from anystride.lab.trained import Trained, open_run

TOLERANCE = 1e-4
"""Largest difference from PyTorch's output that an export may have, relative to its largest entry."""
NAMES = {"vertical": "height", "horizontal": "width"}
"""Of axes of images, for people."""
LARGER = (19, 7)
"""By how much each axis of the second check is longer: odd numbers, since even sizes may hide a restriction."""
OUTPUT = "logits"
DETAILS = "anystride.json"
"""The name of the metadata within a file of torch.export."""


@dataclass(frozen=True)
class Opened:
    """A network, the name of its input, and which axes of the input may have any size, by their names."""

    model: nn.Module
    name: str
    axes: dict[int, str]


@dataclass(frozen=True)
class Target:
    """A format.

    Args:
        write: the file's content for an opened network, an example and metadata.
        run: the output of such a content for an input.
        read: the metadata of a file; None where it has none.
    """

    write: Callable[[Opened, Tensor, dict[str, Any]], bytes]
    run: Callable[[bytes, Tensor], Tensor]
    read: Callable[[Path], dict[str, Any] | None]


def export(run: Path, target: str, out: Path | None, console: Console, *, overwrite: bool = False) -> Path:
    """Freeze the network of a run, write it, and compare outputs.

    The file carries the classes, the preprocessing and the run as metadata. The batch size is open, and so are the
    other sizes where the network takes any. Nothing is written before the outputs agree.

    Args:
        run: the folder of the run.
        target: of `TARGETS`.
        out: the file; None for one in the run's folder.
        console: where the result is told.
        overwrite: whether `out` may be something else than an earlier export of this run.

    Returns:
        The path of the file.

    Raises:
        UsageError: there is no run, the network cannot be exported, or `out` cannot be written to.
    """
    trained, form = open_run(run), TARGETS[target]
    path = out or trained.checkpoint.parent / f"model.{target}"
    details = _details(trained)
    check_place(path, lambda there: _same_run(form.read(there), details), overwrite)
    for note in trained.notes:
        console.print(printable(note), highlight=False, markup=False, soft_wrap=True)
    content, opened, sizes, difference = _exported(trained, target, details)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)
    given = ", ".join(opened.axes.get(axis, str(size)) for axis, size in enumerate((0, *trained.shape)))
    fixed = len(opened.axes) == 1
    console.print(
        f"{printable(str(path))}: {trained.kept}; input {opened.name!r} ({given}), output {OUTPUT!r} (batch, "
        f"{len(trained.classes)}){', for this size of inputs only' if fixed else ''}; differs from PyTorch by "
        f"{difference:.1e} at {' and '.join('x'.join(map(str, size)) for size in sizes)}; classes and preprocessing "
        "are in its metadata",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return path


def _details(trained: Trained) -> dict[str, Any]:
    """What whoever uses the file needs, as JSON values."""
    return {
        "anystride": __version__,
        "run": trained.config.key,
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
        "classes": list(trained.classes),
        "heads": {task: list(names) for task, names in trained.heads.items()},
        "shape": list(trained.shape),
        "preprocessing": dict(trained.preprocessing),
        "configuration": trained.config.to_json(),
    }


def _same_run(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether two files come from one run, which may have been given more epochs in between."""
    configurations = [values.get("configuration") if values else None for values in (one, other)]
    return (
        all(isinstance(each, dict) for each in configurations)
        and len({json.dumps({**each, "epochs": 0}, sort_keys=True) for each in configurations if each}) == 1
    )


def _exported(
    trained: Trained, target: str, details: dict[str, Any]
) -> tuple[bytes, Opened, list[Sequence[int]], float]:
    """The content of the file, what is open, the sizes that were compared, and the largest difference there."""
    model: nn.Module = trained.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    random = torch.Generator().manual_seed(0)
    larger = [size + more for size, more in zip(trained.shape[1:], LARGER, strict=False)]
    examples = [torch.rand(2, *trained.shape, generator=random), torch.rand(1, trained.shape[0], *larger)]
    with torch.no_grad():
        expected = [model(example) for example in examples]
    freeze_(model, examples[0])
    axes = ARCHITECTURES[trained.config.model].axes
    name = "images" if axes == IMAGE_AXES else "inputs"
    by_axis = {0: "batch", **{axis: NAMES.get(each, each) for axis, each in enumerate(axes, start=2)}}
    attempts = [(Opened(model, name, {0: "batch"}), examples[:1])]
    if _takes(model, examples[1], expected[1]):
        every = {axis: by_axis[axis] for axis in (0, *range(2, 1 + len(trained.shape)))}
        attempts.insert(0, (Opened(model, name, every), examples))
    problem = ""
    for opened, given in attempts:
        try:
            with _quiet():
                content = TARGETS[target].write(opened, examples[0], details)
                results = [TARGETS[target].run(content, example) for example in given]
        except ModuleNotFoundError:
            raise
        except Exception as error:  # exporters raise whatever they meet
            problem = f"it fails ({' '.join(str(error).split())[:200] or type(error).__name__})"
            continue
        differences = [_difference(*pair) for pair in zip(results, expected, strict=False)]
        if all(difference <= TOLERANCE for difference in differences):
            return content, opened, [example.shape[2:] for example in given], max(differences)
        problem = f"its output differs from PyTorch's by {' and '.join(f'{each:.1e}' for each in differences)}"
    raise UsageError(f"--to {target} cannot export this network: {problem}; nothing was written, try another --to")


def _takes(model: nn.Module, example: Tensor, expected: Tensor) -> bool:
    """Whether a frozen network gives what the learned one gave for an input of another size."""
    try:
        with torch.no_grad():
            return _difference(model(example), expected) <= TOLERANCE
    except (RuntimeError, ValueError):  # it was frozen for one size
        return False


def _difference(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).abs().max() / expected.abs().max()).item()


def _write_onnx(opened: Opened, example: Tensor, details: dict[str, Any]) -> bytes:
    program = torch.onnx.export(
        opened.model,
        (example,),
        dynamo=True,
        dynamic_shapes=(opened.axes,),
        input_names=[opened.name],
        output_names=[OUTPUT],
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for name, value in details.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    content: bytes = proto.SerializeToString()
    return content


def _run_onnx(content: bytes, inputs: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])


def _read_onnx(path: Path) -> dict[str, Any] | None:
    import onnx

    try:
        entries = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
        return {**entries, "configuration": json.loads(entries.get("configuration", "null"))}
    except Exception:  # protobuf has errors of its own; whatever it is, it is no export
        return None


def _write_pt2(opened: Opened, example: Tensor, details: dict[str, Any]) -> bytes:
    sizes: dict[int, Any] = dict.fromkeys(opened.axes, torch.export.Dim.DYNAMIC)
    program = torch.export.export(
        opened.model, (example,), dynamic_shapes=({**sizes, 0: torch.export.Dim("batch", min=1)},)
    )
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={DETAILS: json.dumps(details)})
    return file.getvalue()


def _run_pt2(content: bytes, inputs: Tensor) -> Tensor:
    logits: Tensor = torch.export.load(io.BytesIO(content)).module()(inputs)
    return logits.detach()


def _read_pt2(path: Path) -> dict[str, Any] | None:
    """The metadata without the network: nothing of a file that may come from anywhere is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(f"/{DETAILS}"))
            values = json.loads(archive.read(name))
    except (OSError, StopIteration, ValueError, zipfile.BadZipFile):
        return None
    return values if isinstance(values, dict) else None


TARGETS = {"onnx": Target(_write_onnx, _run_onnx, _read_onnx), "pt2": Target(_write_pt2, _run_pt2, _read_pt2)}


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
