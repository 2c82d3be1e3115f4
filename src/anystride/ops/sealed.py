"""Gradients that cannot themselves be differentiated, and say so when somebody tries."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

Gradients = tuple[Tensor | None, ...]


def sealed(make: Callable[[], Gradients], given: Sequence[Tensor | None], grad: Tensor, learns: bool) -> Gradients:
    """What `make` gives, outside of autocast; where a stride learns, the result depends on `given` and `grad` in name.

    Where no stride learns, a backward pass consists of operations that can be differentiated.
    """
    autocasts = torch.is_autocast_enabled(grad.device.type)
    with torch.autocast(grad.device.type, enabled=False) if autocasts else contextlib.nullcontext():
        if not learns or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make()
        with torch.no_grad():
            once = make()
        known = [g for g in once if g is not None]
        left = iter(_NoSecond.apply(1 + len(given), grad, *given, *known))  # type: ignore[no-untyped-call]
        return tuple([None if g is None else next(left) for g in once])


class _NoSecond(torch.autograd.Function):
    """Gradients, which cannot be differentiated, with what they depend on before them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(given: int, *tensors: Any) -> tuple[Tensor, ...]:
        return tuple([gradient.view_as(gradient) for gradient in tensors[given:]])

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "a second derivative through a learned stride is not available; fix the stride by "
            "stride.requires_grad_(False) where a gradient is differentiated again"
        )
