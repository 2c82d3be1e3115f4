"""The examples on which a trained network is evaluated, with the logits that it gives them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from anystride.lab.data.catalogue import open_source
from anystride.lab.data.inputs import kind
from anystride.lab.data.meter import progress
from anystride.lab.data.names import is_known
from anystride.lab.data.source import Source
from anystride.lab.data.tree import read_part
from anystride.lab.errors import UsageError
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.trained import Trained


@dataclass(frozen=True)
class Labelled:
    """Examples of known classes.

    Args:
        logits: (n, classes) of the network.
        labels: (n,) int64, which count through the classes of the network.
        left_out: how many examples there are of each class that the network does not know.
        missing: classes of the network of which there is no example.
        problems: a line for each file that could not be read.
    """

    logits: Tensor
    labels: Tensor
    left_out: dict[str, int]
    missing: tuple[str, ...]
    problems: tuple[str, ...] = ()


def is_own(trained: Trained, data: str) -> bool:
    """Whether the run learned from these data."""
    own = trained.config.data
    return data == own or (not is_known(data) and Path(data).exists() and Path(data).resolve() == Path(own).resolve())


def labelled(trained: Trained, data: str, label_pattern: str, environment: RunEnvironment) -> Labelled:
    """Classify labelled examples.

    Args:
        trained: the network.
        data: a data set; a folder; or the run's own data, whose test examples are those of the training.
        label_pattern: as of `tree.read_tree`.
        environment: where data sets lie.

    Raises:
        UsageError: there are no such data, they do not fit the network, or no class has a name that it knows.
    """
    if is_own(trained, data) or is_known(data):
        config = trained.config if is_own(trained, data) else replace(trained.config, data=data, validation=0.0)
        return _of_source(trained, open_source(config, environment.root, environment.download), data)
    if Path(data).is_file():
        raise UsageError(
            f"DATA must be a folder, a data set or what the run learned from, got the file {data!r}; put its examples "
            "into files, in one folder per class"
        )
    name = kind(trained.preprocessing)
    tree = read_part(Path(data), name, label_pattern)
    bad = tuple(f"{str(path)!r} is {reason}" for path, reason in tree.bad)
    return _of_files(trained, tree.test.paths, [tree.classes[label] for label in tree.test.labels.tolist()], bad)


def _of_source(trained: Trained, source: Source, data: str) -> Labelled:
    shape = tuple(source.example.shape[1:])
    if shape != trained.shape:
        raise UsageError(f"DATA {data!r} has inputs of shape {shape}, and the network learned from {trained.shape}")
    logits, labels = [], []
    with progress("evaluating", source.test_length) as advance:
        for rows in torch.arange(source.test_length).split(source.test_rows):
            inputs, right, *group = source.test_batch(rows)
            found = trained.logits(inputs)
            logits.append(_by_example(found, group[0], len(right)) if group else found)
            labels.append(right)
            advance(len(rows))
    names = [source.classes[label] for label in torch.cat(labels).tolist()]
    if dict(source.heads) == dict(trained.heads):
        return Labelled(torch.cat(logits), torch.cat(labels), {}, ())
    return _matched(trained, torch.cat(logits), names, ())


def _by_example(logits: Tensor, group: Tensor, count: int) -> Tensor:
    """The mean of the logits of each example's windows, as in the evaluation of a training."""
    sums = logits.new_zeros(count, logits.shape[1]).index_add(0, group, logits)
    return sums / torch.bincount(group, minlength=count)[:, None]


def _of_files(trained: Trained, paths: Sequence[Path], names: Sequence[str], bad: tuple[str, ...]) -> Labelled:
    logits, found, problems = [], [], list(bad)
    with progress("evaluating", len(paths)) as advance:
        for name, outcome in zip(names, trained.attempts(paths), strict=True):
            if isinstance(outcome, UsageError):
                problems.append(str(outcome))
            else:
                logits.append(torch.tensor(outcome.probabilities, dtype=torch.float64).log())
                found.append(name)
            advance(1)
    if not found:
        raise UsageError(f"DATA has no file that can be read: {problems[0]}" if problems else "DATA has no file")
    return _matched(trained, torch.stack(logits), found, tuple(problems))


def _matched(trained: Trained, logits: Tensor, names: Sequence[str], problems: tuple[str, ...]) -> Labelled:
    """Match classes by name. File systems write accents in two ways, which count as one."""
    if len(trained.heads) > 1:
        raise UsageError("DATA must be what the run learned from, since the run has several tasks; leave it out")
    numbers = {_plain(name): number for number, name in enumerate(trained.classes)}
    known = [row for row, name in enumerate(names) if _plain(name) in numbers]
    if not known:
        raise UsageError(
            f"DATA has no class that the run knows: it has {_some(sorted(set(names)))}, and the run "
            f"{_some(trained.classes)}"
        )
    labels = torch.tensor([numbers[_plain(names[row])] for row in known])
    left_out = Counter(name for name in names if _plain(name) not in numbers)
    there = set(labels.tolist())
    missing = tuple(name for number, name in enumerate(trained.classes) if number not in there)
    return Labelled(logits[known], labels, dict(left_out), missing, problems)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
