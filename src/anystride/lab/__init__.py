"""Experiments with learned strides; needs the extra `lab` (`pip install 'anystride[lab]'`).

`load` opens what 'anystride train' left, `pretrained` a small network that comes along. They are imported when first
used, since the commands' help must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anystride.lab.bundled import pretrained
    from anystride.lab.trained import Trained, load

__all__ = ["Trained", "load", "pretrained"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file = "bundled" if name == "pretrained" else "trained"
    value: object = getattr(importlib.import_module(f"{__name__}.{file}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
