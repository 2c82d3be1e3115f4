"""Every data set by its name, and where data sets lie."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from anystride.lab.data.holdout import hold_out
from anystride.lab.data.names import CIFAR_JPEG, is_known
from anystride.lab.data.source import Source
from anystride.lab.data.tree import kind_of
from anystride.lab.errors import UsageError
from anystride.lab.run.config import SCENES, RunConfig

ROOT = "ANYSTRIDE_DATA"
"""The environment variable that names the folder of all data sets."""


def default_root() -> Path:
    """The folder of all data sets where none is given: the environment's, or one in the user's cache."""
    given = os.environ.get(ROOT)
    return Path(given) if given else Path.home() / ".cache" / "anystride"


def open_source(config: RunConfig, root: Path | None = None, download: bool = False) -> Source:
    """The examples that a configuration asks for; `download` fetches a data set that is not under `root`.

    Raises UsageError for data that are missing or broken, before any training starts.
    """
    # What decides the examples, and nothing else: runs that share them share one copy.
    shared = RunConfig(
        data=config.data,
        image_size=config.image_size,
        train_size=config.train_size,
        test_size=config.test_size,
        seed=config.seed if config.data == SCENES else 0,
        augment=config.augment,
        skip_bad=config.skip_bad,
        label_pattern=config.label_pattern,
        label_column=config.label_column,
    )
    try:
        source = _open(shared, root or default_root(), download)
    except OSError as error:  # a path that is too long, a folder without permission: no loader can do anything about it
        raise UsageError(f"--data {config.data!r} cannot be read: {error}") from error
    return hold_out(source, config.validation)


@lru_cache(maxsize=2)
def _open(config: RunConfig, root: Path, download: bool) -> Source:
    # Loaders import what they need, which a command that needs them not should not pay for.
    if config.data == SCENES:
        from anystride.lab.data.scenes import scene_task

        return scene_task(config.train_size, config.test_size, config.seed, config.image_size, config.augment)
    if config.data in ("cifar10", "cifar100"):
        from anystride.lab.data.cifar import open_cifar

        return open_cifar(config, root, download)
    if config.data == CIFAR_JPEG:
        return _cifar_jpeg(config, root)
    if config.data == "imagenet":
        from anystride.lab.data.imagenet import open_imagenet

        return open_imagenet(config, root, download)
    if is_known(config.data):
        from anystride.lab.data.audio import open_audio

        return open_audio(config, root, download)
    return _open_folder(config, root)


def _cifar_jpeg(config: RunConfig, root: Path) -> Source:
    """A folder of images whose place is not a part of a run's configuration: its records hold on every machine."""
    from anystride.lab.data.folder import folder_task

    folder = root / CIFAR_JPEG
    if not folder.is_dir():
        raise UsageError(
            f"--data {CIFAR_JPEG} is read from {str(folder)!r}, and there is no such folder; put CIFAR-10's images "
            "there as files, train/CLASS/ and test/CLASS/, name another folder by --root, or take --data cifar10"
        )
    source = folder_task(replace(config, data=str(folder)))
    source.counts = f"{CIFAR_JPEG}: {source.counts}"
    return source


def _open_folder(config: RunConfig, root: Path) -> Source:
    """A folder of images, of sounds or of series, whatever most of its files are; or one table of series."""
    path = Path(config.data)
    kind = "series" if path.is_file() else kind_of(path)
    if kind == "image":
        from anystride.lab.data.folder import folder_task

        return folder_task(config)
    if kind == "sound":
        from anystride.lab.data.audio.folder import sound_folder

        return sound_folder(config, root)
    from anystride.lab.data.series import series_folder

    return series_folder(config)
