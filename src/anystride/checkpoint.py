"""One file for a converted network: its tensors, and the plan that makes a fresh network fit them."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from anystride.convert.plan import Plan
from anystride.convert.surgery import Surgery
from anystride.frozen import Frozen, FrozenConv, FrozenPlace

# The key of the plan in the file's metadata; the other keys there are names of shared tensors (safetensors' own).
_PLAN = "anystride.plan"
_SHOWN = 8


def save(model: nn.Module, plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a converted model as one safetensors file that carries its plan; whole or not at all.

    Needs safetensors (`pip install 'anystride[export]'`). A tensor with several names is written once.

    Args:
        model: what `convert_` or `apply_` changed, trained or not; without a wrapper that renames its modules.
        plan: what `convert_` returned for it.
        path: of the file; one that is there is replaced.

    Raises:
        ValueError: the plan is not this model's, the model is frozen, or its state dict holds more than tensors.
        ModuleNotFoundError: safetensors is not installed.
    """
    safetensors = _safetensors()
    names = dict(model.named_modules())
    if any(isinstance(module, (Frozen, FrozenConv, FrozenPlace)) for module in names.values()):
        raise ValueError(
            "model is frozen, so its plan does not fit it; save the learned model and freeze it after load_"
        )
    absent = [change.name for change in plan.changes if change.how and change.name not in names]
    if absent:
        raise ValueError(
            f"plan does not fit the model, which has no {_some(absent)}; if the model is wrapped (torch.compile, "
            "DistributedDataParallel), save what is inside"
        )
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        tensors, aliases = _unshared(model.state_dict())
        safetensors.torch.save_file(tensors, str(part), metadata={**aliases, _PLAN: plan.to_json()})
        part.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def load_(model: nn.Module, path: str | os.PathLike[str]) -> Plan:
    """Convert a fresh model as the one that was saved, in place, and fill it with the saved tensors.

    Needs safetensors (`pip install 'anystride[export]'`). Tensors take the model's devices and dtypes.

    Args:
        model: an unconverted model of the architecture that was saved.
        path: a file that `save` wrote.

    Returns:
        The plan.

    Raises:
        ValueError: the file does not fit; the message says what differs, and the model is as it was.
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: safetensors is not installed.
    """
    safetensors = _safetensors()
    if not Path(path).is_file():
        raise FileNotFoundError(f"path must be a file that anystride.checkpoint.save wrote, got {str(path)!r}")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except safetensors.SafetensorError as error:
        raise ValueError(f"path must be a safetensors file, got {str(path)!r} ({error})") from None
    if _PLAN not in metadata:
        raise ValueError(f"path must be a file that anystride.checkpoint.save wrote, got {str(path)!r}, without a plan")
    plan = Plan.from_json(metadata.pop(_PLAN))
    state |= {name: state[kept] for name, kept in metadata.items() if kept in state}
    with Surgery(model, plan) as surgery:
        _check_fit(
            {name: tuple(tensor.shape) for name, tensor in state.items()},
            {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        )
        model.load_state_dict(state)
        surgery.keep()
    return plan


def _unshared(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a state dict, none of which shares memory with another, and by further name the name of its own.

    safetensors' `save_model` would drop also what is only a part or another view of a tensor.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[tuple[object, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"model's state dict must hold tensors only, got {type(tensor).__name__} at {name!r}")
        if hasattr(tensor, "full_tensor"):
            raise ValueError(
                f"model must be whole, and FSDP has sharded {name!r}: load get_model_state_dict(model, options="
                "StateDictOptions(full_state_dict=True)) into a copy that is not wrapped, and save that"
            )
        identity = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and identity in names:
            aliases[name] = names[identity]
            continue
        names[identity] = name
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.detach().clone() if storage in storages else tensor.detach()
        tensors[name] = tensors[name].cpu().contiguous()
        storages.add(storage)
    return tensors, aliases


def _check_fit(saved: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    faults = []
    if missing := [name for name in wanted if name not in saved]:
        faults.append(f"it lacks {_some(missing)}")
    if more := [name for name in saved if name not in wanted]:
        faults.append(f"the model has no {_some(more)}")
    if other := [name for name in wanted if name in saved and saved[name] != wanted[name]]:
        faults.append(f"{_some([f'{name} {saved[name]} for {wanted[name]}' for name in other])} differ in shape")
    if faults:
        raise ValueError(f"file does not fit the model: {'; '.join(faults)}")


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("saving and loading need safetensors: pip install 'anystride[export]'") from error
    return safetensors
