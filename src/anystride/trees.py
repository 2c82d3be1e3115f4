"""Nested arguments and results of models: their leaves, each with its path, and a copy with other leaves.

What nests: dictionaries and other mappings (also Hugging Face's), lists, tuples, named tuples, deques, dataclasses,
classes that are registered with `torch.utils._pytree`, and objects that hold tensors as attributes.
"""

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import SUPPORTED_NODES


def leaves_with_paths(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of nested containers, each with its path.

    Args:
        tree: of containers, in any of the kinds above. Whatever else is a leaf, None also.

    Returns:
        Pairs of a path and a leaf, in order. Paths are those of `torch.utils._pytree.keystr`: "['image'][0].mask".
    """
    return list(_walk(tree, "", ()))


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in nested arguments or results."""
    return [leaf for _, leaf in _walk(tree, "", ()) if isinstance(leaf, Tensor)]


def batch_of(example: Any, rows: int | None) -> int | None:
    """Examples in an example input, where `rows` stand in the map that a place is given; None where that is not clear.

    It is the first length of the tensors that stand side by side: as many as the map has, or a part of them where the
    model folds another axis into the batch. A map of one example tells that there was no batch.
    """
    values = example.values() if isinstance(example, Mapping) else example if isinstance(example, tuple) else [example]
    lengths = {len(value) for value in values if isinstance(value, Tensor) and value.dim() > 1}
    if rows == 1 or rows in lengths:
        return rows
    folded = rows is not None and len(lengths) == 1 and rows % min(lengths) == 0
    return lengths.pop() if folded else None


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """A copy of nested containers with `function(tensor)` in the place of each tensor; other leaves are the same.

    The lengths in a `PackedSequence` stay, as they are no data: torch wants them on the host.
    """
    return _map(function, tree, ())


def _walk(tree: Any, path: str, around: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    found = None if id(tree) in around else _children(tree)
    if found is None:
        yield path, tree
        return
    for key, child in found:
        yield from _walk(child, path + key, (*around, id(tree)))


def _children(tree: Any) -> list[tuple[str, Any]] | None:
    """What a container holds, each with its part of a path; None for a leaf."""
    if tree is None or isinstance(tree, (Tensor, nn.Module, type, str, bytes, int, float, complex)):
        return None
    if isinstance(tree, Mapping):
        return [(f"[{key!r}]", value) for key, value in tree.items()]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return [(f".{name}", value) for name, value in zip(tree._fields, tree, strict=True)]
    if isinstance(tree, (list, tuple, deque)):
        return [(f"[{number}]", value) for number, value in enumerate(tree)]
    if dataclasses.is_dataclass(tree):
        return [(f".{field.name}", getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    if type(tree) in SUPPORTED_NODES:
        return [(f"[{number}]", value) for number, value in enumerate(SUPPORTED_NODES[type(tree)].flatten_fn(tree)[0])]
    own = getattr(tree, "__dict__", {})
    if any(isinstance(value, Tensor) for value in own.values()):
        return [(f".{name}", value) for name, value in own.items()]
    return None


def _map(function: Callable[[Tensor], Any], tree: Any, around: tuple[int, ...]) -> Any:
    if isinstance(tree, Tensor):
        return function(tree)
    found = None if id(tree) in around else _children(tree)
    if found is None:
        return tree
    new = [_map(function, child, (*around, id(tree))) for _, child in found]
    if all(a is b for a, (_, b) in zip(new, found, strict=True)):
        return tree if not isinstance(tree, (MutableMapping, list, deque)) else copy.copy(tree)
    return _with_children(tree, new)


def _with_children(tree: Any, new: list[Any]) -> Any:
    """A copy of a container that holds other values."""
    if isinstance(tree, PackedSequence):
        return PackedSequence(new[0], tree.batch_sizes, *new[2:])
    if isinstance(tree, Mapping):
        values = dict(zip(tree, new, strict=True))
        if not isinstance(tree, MutableMapping):
            made: Any = type(tree)
            return made(values)
        twin = copy.copy(tree)
        for key, value in values.items():
            twin[key] = value
        return twin
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)._make(new)  # type: ignore[attr-defined]
    if isinstance(tree, tuple):
        return type(tree)(new)
    if isinstance(tree, (list, deque)):
        twins = copy.copy(tree)
        for number, value in enumerate(new):
            twins[number] = value
        return twins
    if type(tree) in SUPPORTED_NODES and not dataclasses.is_dataclass(tree):
        node = SUPPORTED_NODES[type(tree)]
        return node.unflatten_fn(new, node.flatten_fn(tree)[1])
    twin = copy.copy(tree)
    names = [field.name for field in dataclasses.fields(tree)] if dataclasses.is_dataclass(tree) else list(vars(tree))
    for name, value in zip(names, new, strict=True):
        object.__setattr__(twin, name, value)  # a dataclass may be frozen
    return twin
