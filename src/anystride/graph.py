"""Resolution changes that a module's `forward` calls as functions: its traced graph, with those calls replaced."""

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

POOLS = {F.max_pool1d, F.max_pool2d, F.max_pool3d}
AVERAGES = {F.avg_pool1d, F.avg_pool2d, F.avg_pool3d}
CONVOLUTIONS = {F.conv1d, F.conv2d, F.conv3d}
OTHERS = {F.interpolate, F.pixel_shuffle, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
FAMILY: set[Any] = {*POOLS, *AVERAGES, *CONVOLUTIONS, *OTHERS}
ARGUMENTS: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys(POOLS, ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")),
    **dict.fromkeys(AVERAGES, ("input", "kernel_size", "stride", "padding", "ceil_mode")),
    **dict.fromkeys(CONVOLUTIONS, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
}


class _Shallow(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class UntraceableError(Exception):
    """Why a module's graph cannot be had."""


def trace(owner: nn.Module) -> fx.Graph:
    """The graph of `owner.forward`, its children left whole.

    Raises:
        UntraceableError: fx cannot follow it, or it does one thing in training and another in evaluation.
    """
    before = owner.training
    graphs = []
    try:
        for mode in (False, True):
            owner.training = mode
            graphs.append(_Shallow().trace(owner))
    except Exception as error:
        raise UntraceableError(f"torch.fx cannot trace it ({str(error).splitlines()[0][:80]})") from error
    finally:
        owner.training = before
    if graphs[0].python_code("self").src != graphs[1].python_code("self").src:
        raise UntraceableError("its forward differs between training and evaluation")
    return graphs[0]


def family(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that may change the resolution, in order."""
    return [node for node in graph.nodes if node.op == "call_function" and node.target in FAMILY]


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """A call's arguments by name."""
    target: Any = node.target
    if target in ARGUMENTS:
        return dict(zip(ARGUMENTS[target], node.args, strict=False)) | dict(node.kwargs)
    bound = inspect.signature(target).bind(*node.args, **node.kwargs)
    return dict(bound.arguments)


def check(owner: nn.Module, count: int, index: int) -> dict[str, Any]:
    """Arguments of the function call that is the `index`-th of `count` in a module.

    Raises:
        UntraceableError: the call cannot be replaced.
    """
    nodes = family(trace(owner))
    if len(nodes) != count:
        raise UntraceableError("its graph shows other calls than its execution")
    node = nodes[index]
    named = named_arguments(node)
    if node.target is F.interpolate:
        return {"mode": named.get("mode", "nearest"), "align_corners": named.get("align_corners")}
    if node.target in OTHERS:
        raise UntraceableError("it enlarges by a function call that cannot meet another size")
    if named.get("ceil_mode") or named.get("return_indices"):
        raise UntraceableError("ceil_mode and return_indices are supported in modules, not in function calls")
    return {}


def rewrite(owner: nn.Module, children: Mapping[int, str]) -> Callable[[], None]:
    """Let `owner` run its graph with some calls replaced; returns what takes this back.

    Args:
        owner: the module whose forward calls the functions.
        children: by number of the call, the child that its stride-1 result passes through; interpolation is replaced
            by its child.
    """
    graph = trace(owner)
    nodes = family(graph)
    for index, child in children.items():
        node = nodes[index]
        named = named_arguments(node)
        if node.target is F.interpolate:
            with graph.inserting_after(node):
                new = graph.call_module(child, (named["input"],))
            node.replace_all_uses_with(new)
            graph.erase_node(node)
            continue
        node.args, node.kwargs = (named.pop("input"),), {**named, "stride": 1}
        with graph.inserting_after(node):
            new = graph.call_module(child, (node,))
        node.replace_all_uses_with(new)
        new.args = (node,)
    graph.lint()
    forward = type(fx.GraphModule(owner, graph)).forward
    had = owner.__dict__.get("forward")
    owner.forward = types.MethodType(forward, owner)

    def undo() -> None:
        if had is None:
            del owner.__dict__["forward"]
        else:
            owner.__dict__["forward"] = had

    return undo
