"""One file for a converted network: its tensors, and the plan that makes a fresh network fit them."""

import contextlib
import ctypes
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from anystride.convert.fit import check_fit
from anystride.convert.plan import Plan
from anystride.convert.surgery import Surgery
from anystride.frozen import Frozen, FrozenConv, FrozenPlace
from anystride.snapshot import Snapshot, is_lazy

# Keys of our own in the file's metadata; the other keys there are names of shared tensors (safetensors' own).
_OURS = "anystride."
_PLAN, _DIGEST = f"{_OURS}plan", f"{_OURS}digest"
_SHOWN = 8
_REMEDY = "fetch the file again, or save it again"


def save(model: nn.Module, plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a converted model as one safetensors file that carries its plan; whole or not at all.

    Needs safetensors (`pip install 'anystride[export]'`). A tensor with several names is written once. The file holds
    a digest (SHA-256) of its tensors and of the plan, by which `load_` notices damage.

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
        metadata = {**aliases, _PLAN: plan.to_json()}
        metadata[_DIGEST] = _digest(tensors, metadata)
        safetensors.torch.save_file(tensors, str(part), metadata=metadata)
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
        ValueError: the file does not fit, or is damaged; the message says what differs, and the model is as it was.
        RuntimeError: torch could not copy a tensor; the model is as it was, too.
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: safetensors is not installed.
    """
    state, plan = _read(Path(path))
    _check_model(model)
    check_fit(model, plan)
    with Surgery(model, plan) as surgery:
        wanted = model.state_dict()
        _check_tensors(state, wanted)
        before = Snapshot(model, values=True)
        try:
            model.load_state_dict(state)
        except BaseException:
            before.put_back()
            raise
        surgery.keep()
    return plan


def _read(path: Path) -> tuple[dict[str, Tensor], Plan]:
    """The tensors of a file by all their names, and its plan."""
    safetensors = _safetensors()
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file that anystride.save wrote, got {str(path)!r}")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (safetensors.SafetensorError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"path must be a safetensors file, got {str(path)!r}, which cannot be read ({reason}); {_REMEDY}"
        ) from None
    digest = metadata.pop(_DIGEST, None)
    damaged = digest is not None and digest != _digest(state, metadata)
    if damaged or any(key.startswith(_OURS) and key != _PLAN for key in metadata):
        raise ValueError(
            f"path must be a file as anystride.save wrote it, got {str(path)!r}, whose contents do not "
            f"match its digest: it is damaged; {_REMEDY}"
        )
    if _PLAN not in metadata:
        raise ValueError(
            f"path must be a file that anystride.save wrote, got {str(path)!r}, without a plan; save it again"
        )
    text = metadata.pop(_PLAN)
    try:
        plan = Plan.from_json(text)
    except ValueError as error:
        raise ValueError(f"path must be a file with a whole plan, got {str(path)!r}; {_REMEDY} ({error})") from None
    return state | {name: state[kept] for name, kept in metadata.items() if kept in state}, plan


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of tensors, each with its name, dtype and shape, and of metadata.

    Args:
        tensors: on the CPU and contiguous.
        metadata: the plan, and the names of shared tensors.
    """
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        size = tensor.nbytes
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape), size]).encode())
        if size:  # the memory itself, not a copy of it
            digest.update((ctypes.c_ubyte * size).from_address(tensor.data_ptr()))
    return digest.hexdigest()


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


def _check_model(model: nn.Module) -> None:
    """Raise a ValueError unless tensors can be copied into the model."""
    if any(is_lazy(module) for module in model.modules()):
        raise ValueError("model has parameters without a shape; run it once on an example before load_")
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"model's state dict must hold tensors only, got {type(tensor).__name__} at {name!r}")
        if hasattr(tensor, "full_tensor"):
            raise ValueError(f"model must be whole, and FSDP has sharded {name!r}; shard it after load_")
        if tensor.is_meta:
            raise ValueError(f"model must hold data, and {name!r} is on the device 'meta'; call model.to_empty first")


def _check_tensors(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless each tensor of the model has one in the file, of its shape and a dtype that fits."""
    faults = []
    both = [name for name in wanted if name in saved]
    if missing := [name for name in wanted if name not in saved]:
        faults.append(f"it lacks {_some(missing)}")
    if more := [name for name in saved if name not in wanted]:
        faults.append(f"the model has no {_some(more)}")
    shapes = {name: (tuple(saved[name].shape), tuple(wanted[name].shape)) for name in both}
    if other := [f"{name} {own} for {to}" for name, (own, to) in shapes.items() if own != to]:
        faults.append(f"{_some(other)} differ in shape")
    kinds = {name: (saved[name].dtype, wanted[name].dtype) for name in both}
    if other := [f"{name} {own} for {to}" for name, (own, to) in kinds.items() if not torch.can_cast(own, to)]:
        faults.append(f"{_some(other)} have a dtype that the model's cannot hold")
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
