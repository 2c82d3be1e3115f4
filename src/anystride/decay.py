"""A warning where an optimiser decays strides: that pulls them towards 1, whatever the loss says."""

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

_met: "weakref.WeakSet[Optimizer]" = weakref.WeakSet()
"""Optimisers whose groups were looked at: each is, once, at its first step."""


@functools.cache
def watch_optimisers(is_stride: Callable[[Tensor], bool]) -> None:
    """From now on, look at the groups of every optimiser at its first step."""

    def look(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer in _met:
            return
        _met.add(optimizer)
        for group in optimizer.param_groups:
            decay = group.get("weight_decay") or 0.0
            if decay and any(map(is_stride, group["params"])):
                warnings.warn(
                    f"{type(optimizer).__name__} decays learned strides (weight_decay={decay:g}), which pulls them "
                    "towards 1 whatever the loss says: give it anystride.param_groups(model, lr=..., weight_decay=...)",
                    stacklevel=3,
                )
                return

    register_optimizer_step_pre_hook(look)
