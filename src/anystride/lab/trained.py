"""A trained network in Python: what 'anystride train' left, ready to be used."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anystride.lab.data.inputs import as_file, kind, read_inputs
from anystride.lab.errors import UsageError
from anystride.lab.files import is_file
from anystride.lab.run import record as records
from anystride.lab.run.checkpoint import diverged, read_checkpoint
from anystride.lab.run.config import RunConfig
from anystride.lab.run.folder import BEST, CHECKPOINT, RECORD
from anystride.lab.run.record import Record
from anystride.lab.run.training import restored

BATCH = 64
"""Inputs that go through the network at once."""


class Prediction(NamedTuple):
    """The class of one example.

    Args:
        label: the most probable class.
        probability: of this class, in [0, 1].
        probabilities: of all classes, in their order.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]


class OneTask(nn.Module):
    """A network of several tasks, of whose logits those of one task are given."""

    def __init__(self, model: nn.Module, first: int, count: int) -> None:
        super().__init__()
        self.model, self.first, self.count = model, first, count

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits[:, self.first : self.first + self.count]


@dataclass(frozen=True)
class Trained:
    """A trained network and everything that is needed to use it.

    Args:
        model: the network, on the CPU and in evaluation mode: inputs (N, C, ...) to logits (N, classes).
        config: the configuration of the run.
        heads: the classes of each task.
        shape: of one input, without N.
        preprocessing: how a file becomes inputs; empty where the run did not learn from files.
        checkpoint: the file that was read.
        epoch: the epochs that the network was trained for.
        record: of the run; None where it is not finished.
        notes: what a user should know, a line each.
    """

    model: nn.Module
    config: RunConfig
    heads: Mapping[str, tuple[str, ...]]
    shape: tuple[int, ...]
    preprocessing: Mapping[str, Any]
    checkpoint: Path
    epoch: int
    record: Record | None
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(name for names in self.heads.values() for name in names)

    @property
    def kept(self) -> str:
        """Which epoch this is, as in `best epoch, 3`."""
        return f"{'best' if self.checkpoint.name == BEST else 'last'} epoch, {self.epoch}"

    def of_task(self, task: str) -> Trained:
        """The same with a single one of several tasks.

        Raises:
            UsageError: there is no such task.
        """
        if task not in self.heads:
            raise UsageError(f"--task must be one of {', '.join(self.heads)}, got {task!r}")
        names = list(self.heads)
        first = sum(len(self.heads[each]) for each in names[: names.index(task)])
        return replace(self, model=OneTask(self.model, first, len(self.heads[task])), heads={task: self.heads[task]})

    def preprocess(self, example: Any) -> Tensor:
        """One example as the network sees test examples.

        Args:
            example: a path; an image of Pillow; or an array or tensor: an image (H, W) or (H, W, 3) uint8, a sound
                (samples,) at 16 kHz with values in [-1, 1], or a series (C, T) or (T,).

        Returns:
            (M, C, ...) float32. M is 1, or the number of windows of a sound, whose logits are to be averaged.

        Raises:
            UsageError: the example cannot be read.
        """
        with as_file(example, kind(self.preprocessing)) as path:
            inputs = read_inputs(path, self.preprocessing)
        if tuple(inputs.shape[1:]) != self.shape:
            raise UsageError(
                f"the preprocessing of {str(self.checkpoint)!r} gives inputs of shape {tuple(inputs.shape[1:])}, and "
                f"its network learned from {self.shape}; the checkpoint was changed"
            )
        return inputs

    def predict(self, examples: Iterable[Any] | str | Path) -> list[Prediction]:
        """Classify files or other examples.

        Args:
            examples: several of what `preprocess` takes, or one path.

        Returns:
            For each example its class, the probability of that, and the probabilities of all classes.

        Raises:
            UsageError: an example cannot be read, or the network has several tasks, see `of_task`.
        """
        if isinstance(examples, (str, Path)):
            examples = [examples]
        results = []
        for outcome in self.attempts(examples):
            if isinstance(outcome, UsageError):
                raise outcome
            results.append(outcome)
        return results

    def attempts(self, examples: Iterable[Any]) -> Iterator[Prediction | UsageError]:
        """As `predict`, one after the other, with the error in place of an example that cannot be read."""
        kind(self.preprocessing)
        if len(self.heads) > 1:
            raise UsageError(
                "RUN_DIR holds a run on several tasks; choose one by --task, or of_task in Python: "
                f"{', '.join(self.heads)}"
            )
        waiting: list[Tensor | UsageError] = []
        for example in examples:
            try:
                waiting.append(self.preprocess(example))
            except UsageError as error:
                waiting.append(error)
            if sum(len(inputs) if isinstance(inputs, Tensor) else 0 for inputs in waiting) >= BATCH:
                yield from self._classified(waiting)
                waiting = []
        yield from self._classified(waiting)

    def _classified(self, waiting: list[Tensor | UsageError]) -> Iterator[Prediction | UsageError]:
        inputs = [each for each in waiting if isinstance(each, Tensor)]
        logits = iter(self.logits(torch.cat(inputs)).split([len(each) for each in inputs]) if inputs else ())
        for each in waiting:
            yield each if isinstance(each, UsageError) else self._prediction(next(logits).mean(dim=0))

    def _prediction(self, logits: Tensor) -> Prediction:
        probabilities = logits.double().softmax(dim=0)
        best = int(probabilities.argmax())
        return Prediction(self.classes[best], float(probabilities[best]), tuple(probabilities.tolist()))

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """The logits (N, classes) float32 of inputs (N, C, ...), computed in parts that fit into memory."""
        return torch.cat([self.model(part).float() for part in inputs.split(BATCH)])


def load(run: str | Path) -> Trained:
    """Open the trained network of a run: of its best epoch where there were validation examples, else of its last one.

    A warning tells of weights that are not finite, and of a record that cannot be read.

    Args:
        run: the folder that was --out of 'anystride train', or a checkpoint in it.

    Raises:
        UsageError: there is no run, or its checkpoint is damaged.

    Example:
        The network of a run on a folder of photographs, and the class of two of them::

            import anystride.lab

            trained = anystride.lab.load("runs/photos")
            for label, probability, _ in trained.predict(["cat.jpg", "dog.jpg"]):
                print(label, probability)

            logits = trained.model(trained.preprocess("cat.jpg"))  # (1, len(trained.classes))
    """
    trained = open_run(Path(run))
    for note in trained.notes:
        warnings.warn(note, stacklevel=2)
    return trained


def open_run(run: Path) -> Trained:
    """As `load`; what is to be told stands in `notes`, and nothing warns."""
    checkpoint = next((path for path in (run / BEST, run / CHECKPOINT, run) if is_file(path)), None)
    if checkpoint is None:
        raise UsageError(
            f"the folder of a run must hold {CHECKPOINT}, as 'anystride train' leaves it, got {str(run)!r}"
        )
    saved = read_checkpoint(checkpoint)
    record, problem = _record(checkpoint.parent / RECORD)
    notes = [f"{str(checkpoint)!r}: {note}" for note in (diverged(saved),) if note]
    notes += [problem] if problem else []
    return trained_of(saved, checkpoint=checkpoint, epoch=_epochs(saved), record=record, notes=tuple(notes))


def trained_of(saved: Mapping[str, Any], **more: Any) -> Trained:
    """The network of what `checkpoint.read_checkpoint` gave; `more` are the fields of `Trained` that are not in it."""
    classifier = restored(saved)
    values = saved["hyper_parameters"]
    return Trained(
        model=classifier.model,
        config=classifier.config,
        heads={task: tuple(names) for task, names in values["heads"].items()},
        shape=classifier.shape,
        preprocessing=values["preprocessing"],
        **more,
    )


def _record(path: Path) -> tuple[Record | None, str]:
    if not is_file(path):
        return None, ""
    try:
        return records.load(path), ""
    except UsageError as error:
        return None, str(error)


def _epochs(saved: Mapping[str, Any]) -> int:
    """The epochs that a checkpoint has behind it; before the first step, as after the first epoch, Lightning says 0."""
    epoch = saved.get("epoch", 0)
    return epoch + 1 if type(epoch) is int and saved.get("global_step") else 0
