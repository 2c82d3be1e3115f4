"""Resolution changes that a module's `forward` calls as functions: its traced graph, with those calls replaced."""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import fx, nn
from torch.nn import functional as F

from anystride.hosts import space

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


def trace(owner: nn.Module, absent: Sequence[str] = ()) -> fx.Graph:
    """The graph of `owner.forward`, its children left whole. Arguments named in `absent` are None.

    Raises:
        UntraceableError: fx cannot follow it, or it does one thing in training and another in evaluation.
    """
    if "forward" in owner.__dict__:
        raise UntraceableError("its forward was set on the object")
    if isinstance(owner, fx.GraphModule):
        raise UntraceableError("copies of a torch.fx.GraphModule would forget the change")
    kept = dict(owner.__dict__)
    graphs = []
    try:
        for mode in (False, True):
            owner.training = mode
            graphs.append(_Shallow().trace(owner, dict.fromkeys(absent)))
    except Exception as error:
        raise UntraceableError(f"torch.fx cannot trace it ({str(error).splitlines()[0][:80]})") from error
    finally:
        owner.__dict__.clear()
        owner.__dict__.update(kept)
    if graphs[0].python_code("self").src != graphs[1].python_code("self").src:
        raise UntraceableError("its forward differs between training and evaluation")
    return graphs[0]


def optional(owner: nn.Module) -> list[str]:
    """Arguments of a module that may be None. What its forward does with None, a graph for all calls cannot show."""
    parameters = inspect.signature(owner.forward).parameters
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return []
    return [name for name, p in parameters.items() if p.default is None]


def variants(owner: nn.Module) -> dict[tuple[str, ...], fx.Graph]:
    """Graphs by the arguments that are None, for each choice of the optional ones."""
    names = optional(owner)
    if len(names) > 3:
        raise UntraceableError("its forward has many arguments that may be None")
    choices = [c for n in range(len(names) + 1) for c in itertools.combinations(names, n)]
    graphs = {choice: trace(owner, choice) for choice in choices}
    calls = {tuple(node.target for node in family(graph)) for graph in graphs.values()}
    if len(calls) > 1:
        raise UntraceableError("its forward calls other functions where an argument is None")
    return graphs


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
    nodes = family(variants(owner)[()])
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


class Functions(NamedTuple):
    """The role of a module whose `forward` calls functions: some of these calls pass through a child each.

    Attributes:
        children: by number of the call, the child that its stride-1 result passes through; interpolation is replaced
            by its child.
    """

    children: tuple[tuple[int, str], ...]

    def derive(self, owner: nn.Module) -> type[nn.Module]:
        """A class like that of `owner`, which runs the graph of its `forward` with the calls replaced."""
        kind: Any = type(owner)
        forwards = {absent: _forward(owner, graph, dict(self.children)) for absent, graph in variants(owner).items()}
        forward = forwards[()] if len(forwards) == 1 else _by_arguments(kind.forward, forwards)
        return type(kind.__name__, (kind,), {**space(kind, self), "forward": forward})


def _by_arguments(original: Any, forwards: Mapping[tuple[str, ...], Any]) -> Any:
    """A `forward` that chooses among graphs by the arguments that are None."""
    signature = inspect.signature(original)
    names, last = list(signature.parameters)[1:], max(forwards, key=len)

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        absent = tuple([name for name in last if given[name] is None])
        return forwards[absent](self, *[given[name] for name in names])

    return forward


def _forward(owner: nn.Module, graph: fx.Graph, children: Mapping[int, str]) -> Callable[..., Any]:
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
    return type(fx.GraphModule(owner, graph)).forward
