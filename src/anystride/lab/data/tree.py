"""The labelled files of a folder: one folder per class, or the class in the files' names; and what is no such file."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from anystride.lab.errors import UsageError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
SOUNDS = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc"),
    *(".au", ".w64", ".rf64", ".caf", ".mp3"),
)
SERIES = (".npy", ".npz", ".csv")
KINDS = {"image": IMAGES, "sound": SOUNDS, "series": SERIES}
"""Endings of the files of each kind, in small letters."""

TEST_SHARE = 0.2
SPLIT_SEED = 0
"""The same test examples for every run, whatever its seed."""
SHOWN = 100
"""Bad files that a message names."""

Rows = npt.NDArray[np.int64]

Bad = list[tuple[Path, str]]
"""Files that cannot be read, each with the reason."""


@dataclass(frozen=True)
class Files:
    """`paths` and their `labels` (n,) int64, which count through the classes of the tree."""

    paths: tuple[Path, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Tree:
    """The files of a data folder.

    Args:
        classes: names, sorted.
        train: files to train on.
        test: files to test on.
        validation: files to choose the best epoch on; None where the folder does not set any aside.
        bad: what has the right ending and is no regular file, such as a broken link or a pipe.
        others: how many files of each other ending were passed over; hidden ones are not counted.
    """

    classes: tuple[str, ...]
    train: Files
    test: Files
    validation: Files | None
    bad: tuple[tuple[Path, str], ...]
    others: dict[str, int]

    @property
    def passed_over(self) -> str:
        """The other files in words, as in `; 2 other files passed over (.txt)`; empty where there are none."""
        count = sum(self.others.values())
        noun = "file" if count == 1 else "files"
        return f"; {count:,} other {noun} passed over ({', '.join(sorted(self.others))})" if count else ""


def kind_of(folder: Path) -> str:
    """Of which kind of `KINDS` most files of a folder are.

    Raises:
        UsageError: it has no file of any kind.
    """
    if "\0" in str(folder) or not folder.is_dir():
        raise UsageError(f"--data must be a data set or a folder, got {str(folder)!r}, which is neither")
    endings = Counter(path.suffix.lower() for path in _visible(folder))
    counts = {kind: sum(endings[ending] for ending in known) for kind, known in KINDS.items()}
    kind = max(counts, key=counts.__getitem__)
    if not counts[kind]:
        known = ", ".join(ending for every in KINDS.values() for ending in every)
        raise UsageError(f"--data finds no image, sound or series in {str(folder)!r}; it reads {known}")
    return kind


def read_tree(folder: Path, kind: str, label_pattern: str = "") -> Tree:
    """List a folder, laid out as `<class>/<file>` at any depth, or with `train`, `test` and `val` above that.

    With `train` the test files are those of `test`, and those of `val` are for validation; without `test`, `val` is the
    test. Without `train` a fifth of the files is for testing, of each class the same share. Hidden files and folders
    are left out.

    Args:
        folder: what to list.
        kind: of `KINDS`.
        label_pattern: with it classes are not folders: it is matched with the beginning of each file's name.

    Raises:
        UsageError: the folder is missing or has a single class, a class has no file, or the parts do not agree.
    """
    listing = _Listing(kind, label_pattern)
    if not folder.is_dir():
        raise UsageError(f"--data must be a data set or a folder, got {str(folder)!r}, which is neither")
    if not (folder / "train").is_dir():
        classes, found = listing.labelled(folder, None)
        train, test = _split(found, classes, kind)
        return Tree(classes, train, test, None, tuple(listing.bad), listing.others)
    names = [name for name in ("test", "val") if (folder / name).is_dir()]
    if not names:
        raise UsageError(f"--data {str(folder)!r} has train/ but neither test/ nor val/; add one of them")
    classes, train = listing.labelled(folder / "train", None)
    parts = [listing.labelled(folder / name, classes)[1] for name in names]
    validation = parts[1] if len(parts) > 1 else None
    return Tree(classes, train, parts[0], validation, tuple(listing.bad), listing.others)


def read_part(folder: Path, kind: str, label_pattern: str = "") -> Tree:
    """List what a folder has for testing, as `test` of the tree: all files, where it has no `train`; nothing is split.

    Classes without a file are left out, and a single class is enough.

    Args:
        folder: laid out as `read_tree` says.
        kind: of `KINDS`.
        label_pattern: as of `read_tree`.

    Raises:
        UsageError: there is no such folder, or no labelled file in it.
    """
    listing = _Listing(kind, label_pattern)
    if not folder.is_dir():
        raise UsageError(f"DATA must be a data set or a folder, got {str(folder)!r}, which is neither")
    part = folder
    if (folder / "train").is_dir():
        part = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), folder)
        if part == folder:
            raise UsageError(f"DATA {str(folder)!r} has train/ but neither test/ nor val/; name the folder to test on")
    found = {name: paths for name, paths in sorted(listing.found(part).items()) if paths}
    if not found:
        raise UsageError(
            f"DATA must have a folder for each class, with {kind} files in it, got {str(part)!r}; "
            "or give --label-pattern, which finds classes in file names"
        )
    labels = [label for label, paths in enumerate(found.values()) for _ in paths]
    files = Files(tuple(path for paths in found.values() for path in paths), torch.tensor(labels))
    return Tree(tuple(found), Files((), torch.tensor([])), files, None, tuple(listing.bad), listing.others)


def list_files(folder: Path, kind: str) -> tuple[list[Path], Bad]:
    """All files of a kind below a folder, whatever their class, and what has the ending of one and is none."""
    listing = _Listing(kind, "")
    return list(listing.files(folder)), listing.bad


def refuse(bad: Sequence[tuple[Path, str]], kind: str, skip: bool) -> None:
    """Raise one error that names all files that cannot be read, unless they are to be skipped."""
    if not bad or skip:
        return
    noun = f"file that is not a readable {kind}" if len(bad) == 1 else f"files that are not readable {plural(kind)}"
    count = "a" if len(bad) == 1 else f"{len(bad):,}"
    lines = [f"{str(path)!r} ({reason})" for path, reason in bad[:SHOWN]]
    lines += [f"and {len(bad) - SHOWN:,} more"] if len(bad) > SHOWN else []
    listed = lines[0] if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
    remedy = "repair or remove it" if len(bad) == 1 else "repair or remove them"
    raise UsageError(f"--data holds {count} {noun}; {remedy}, or leave them out with --skip-bad: {listed}")


class _Listing:
    """Collects what the parts of one folder have in common."""

    def __init__(self, kind: str, label_pattern: str) -> None:
        self.kind, self.pattern = kind, re.compile(label_pattern) if label_pattern else None
        self.bad: Bad = []
        self.others: dict[str, int] = {}

    def labelled(self, folder: Path, classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], Files]:
        """The classes of a part and its files; with `classes` given these must be its classes."""
        found = self.found(folder)
        names = tuple(sorted(found))
        if classes is None and len(names) < 2:
            layout = "one per group of --label-pattern" if self.pattern else "one folder each"
            hint = "" if self.pattern else "; --label-pattern finds classes in file names"
            raise UsageError(f"--data needs at least two classes, {layout}, and {str(folder)!r} has {len(names)}{hint}")
        if classes is not None and (unknown := sorted(set(names) - set(classes))):
            raise UsageError(f"--data has classes in {folder.name}/ that train/ lacks: {', '.join(unknown)}")
        for name in classes or names:
            if not found.get(name):
                raise UsageError(f"--data has no {self.kind} of class {name!r}: add some to {str(folder / name)!r}")
        paths = [path for name in classes or names for path in found[name]]
        labels = [label for label, name in enumerate(classes or names) for _ in found[name]]
        return classes or names, Files(tuple(paths), torch.tensor(labels))

    def found(self, folder: Path) -> dict[str, list[Path]]:
        """The files of each class of a part."""
        return self._by_name(folder) if self.pattern else self._by_folder(folder)

    def _by_folder(self, folder: Path) -> dict[str, list[Path]]:
        entries = sorted(entry for entry in folder.iterdir() if _is_visible(entry.name) and entry.is_dir())
        return {printable(entry.name): list(self.files(entry)) for entry in entries}

    def _by_name(self, folder: Path) -> dict[str, list[Path]]:
        assert self.pattern is not None
        found: dict[str, list[Path]] = {}
        strange: list[str] = []
        for path in self.files(folder):
            match = self.pattern.match(path.name)
            label = match and match.group("label" if "label" in self.pattern.groupindex else 1)
            if label:
                found.setdefault(printable(label), []).append(path)
            else:
                strange.append(path.name)
        if strange:
            shown = ", ".join(repr(printable(name)) for name in strange[:3])
            raise UsageError(
                f"--label-pattern {self.pattern.pattern!r} gives no class for {len(strange):,} files such as {shown}; "
                "change it, or move them away"
            )
        return found

    def files(self, folder: Path) -> Iterator[Path]:
        for path in _visible(folder):
            ending = path.suffix.lower()
            if ending not in KINDS[self.kind]:
                self.others[ending] = self.others.get(ending, 0) + 1
            elif path.is_file():
                yield path
            else:
                self.bad.append((path, "a broken link" if path.is_symlink() else "not a regular file"))


def _visible(folder: Path) -> Iterator[Path]:
    """All entries below a folder that are no folders, in the order of their names; links are followed, once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(_is_visible, folders))
        yield from (Path(parent, name) for name in sorted(filter(_is_visible, files)))


def _is_visible(name: str) -> bool:
    """Whether a file or folder is somebody's; `__MACOSX` is what macOS adds to an archive."""
    return name[0] != "." and name != "__MACOSX"


def printable(name: str) -> str:
    """A name that can be printed and written: bytes of another encoding are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _split(files: Files, classes: tuple[str, ...], kind: str) -> tuple[Files, Files]:
    train, test = split_rows(files.labels, classes, kind)
    return _chosen(files, train), _chosen(files, test)


def split_rows(labels: Tensor, classes: Sequence[str], kind: str) -> tuple[Rows, Rows]:
    """The rows to train on and the rows to test on: a fifth of all, of each class the same share, always the same ones.

    Raises:
        UsageError: a class has a single example.
    """
    counts = np.bincount(labels.numpy(), minlength=len(classes))
    if counts.min() < 2:
        name = classes[int(counts.argmin())]
        raise UsageError(
            f"--data needs at least two {plural(kind)} per class to split off a test set, class {name!r} has "
            f"{counts.min()}"
        )
    size = max(len(classes), round(TEST_SHARE * len(labels)))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=size, stratify=labels.numpy(), random_state=SPLIT_SEED
    )
    return np.sort(train), np.sort(test)


def plural(kind: str) -> str:
    return kind if kind.endswith("s") else f"{kind}s"


def _chosen(files: Files, rows: Rows) -> Files:
    return Files(tuple(files.paths[row] for row in rows), files.labels[rows])
