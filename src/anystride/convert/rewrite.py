"""A module's `forward` with some of its calls handed to children: the source of its methods, written anew.

What torch.fx cannot follow (branches on sizes, lists, strings, loops) stays as it is written; only the calls themselves
change. `forward` and the methods that it calls are compiled again from their source, in the class that the module gets,
so that Python's own rules hold: flags are read when it runs, and each call of one line goes to one child.
"""

import ast
import functools
import linecache
from types import FunctionType
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from anystride import unstrided
from anystride.convert.source import Found, UnwritableError, candidates, own_function, parsed
from anystride.frozen import FrozenPlace
from anystride.hosts import space

Children = tuple[tuple[str, str], ...]
_CALL, _SLICE, _PART = "_anystride_call", "_anystride_slice", "_anystride_part"


def check(owner: nn.Module, found: Found | None) -> str:
    """The place of a call in the class of a module.

    Raises:
        UnwritableError: the call cannot be replaced.
    """
    if isinstance(owner, fx.GraphModule):
        raise UnwritableError("copies of a torch.fx.GraphModule would forget the change")
    if found is None:
        raise UnwritableError("the source of its forward is not at hand")
    kind: Any = type(owner)
    _written(kind, ((found.call, "resample"),))
    return found.call


def ordinary(owner: nn.Module, index: int) -> str:
    """The place of a call that a plan of version 0.1 tells by its number among those of torch in `forward`."""
    function, _ = own_function(type(owner), "forward")
    nodes = candidates(parsed(function))
    by_end = sorted(range(len(nodes)), key=lambda n: (nodes[n].end_lineno, nodes[n].end_col_offset))
    found = [n for n in by_end if _is_family(nodes[n], function, owner)]
    if index >= len(found):
        raise UnwritableError(f"its forward has {len(found)} calls that change the resolution")
    return f"forward:{found[index]}"


def check_call(owner: nn.Module, call: str, kind: str) -> None:
    """Raise an UnwritableError where a call of a class is one that never changes the resolution, or another kind's.

    Args:
        owner: a module of the class.
        call: as `check` returns it.
        kind: what the plan says that it is.
    """
    method, _, number = call.rpartition(":")
    function, _ = own_function(type(owner), method)
    nodes = candidates(parsed(function))
    if int(number) >= len(nodes):
        raise UnwritableError(f"{method!r} has {len(nodes)} calls, and no number {number}")
    node: Any = nodes[int(number)]
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if kind != "a slice with a step" or not any(isinstance(part, (ast.Slice, ast.Name)) for part in parts):
            raise UnwritableError(f"{ast.unparse(node)} is no {kind}")
        return
    if not _is_named(node):
        return
    called = _called(node, function, owner)
    if called is None:
        called = getattr(Tensor, getattr(node.func, "attr", ""), None)
    found = [words for words, functions in _FUNCTIONS.items() if any(called is each for each in functions)]
    kinds = {word for words in found for word in words}
    own = (getattr(called, "__module__", None) or "").partition(".")[0]
    other = not kinds and (own in ("torch", "builtins") or isinstance(called, nn.Module))
    if called is not None and (other or (kinds and kind not in kinds)):
        raise UnwritableError(f"{ast.unparse(node.func)} is no {kind}")


# By kinds, the functions of torch that are one of them.
_FUNCTIONS: dict[tuple[str, ...], tuple[Any, ...]] = {
    ("max pooling", "average pooling", "convolution", "blur pooling"): tuple(unstrided.ARGUMENTS),
    ("adaptive pooling", "average pooling", "max pooling"): tuple(unstrided.ADAPTIVE),
    ("interpolation",): unstrided.INTERPOLATES,
    ("space to depth",): unstrided.UNSHUFFLES,
    ("transposed convolution", "pixel shuffle"): unstrided.ENLARGES[len(unstrided.INTERPOLATES) :],
}


def _is_family(node: ast.AST, function: FunctionType, owner: nn.Module) -> bool:
    called = _called(node, function, owner) if isinstance(node, ast.Call) else None
    return called in unstrided.ARGUMENTS or called in unstrided.ENLARGES


def _is_named(node: ast.Call) -> bool:
    """Whether a call tells its function by names alone, so that nothing runs to find it."""
    return all(isinstance(part, (ast.Name, ast.Attribute, ast.expr_context)) for part in ast.walk(node.func))


def _called(node: ast.Call, function: FunctionType, owner: nn.Module) -> Any:
    """What a call calls; None where its name is known to the call alone."""
    try:
        return eval(ast.unparse(node.func), function.__globals__, {"self": owner}) if _is_named(node) else None
    except Exception:  # whatever looking up a name raises
        return None


class Calls(NamedTuple):
    """The role of a module some of whose calls pass through a child each.

    Attributes:
        children: the calls, as `find` tells them, and the name of the child.
        frozen: whether the children are constant: calls are then written as TorchScript reads them, where that can be.
    """

    children: tuple[tuple[str, str], ...]
    frozen: bool = False

    def derive(self, owner: nn.Module) -> type[nn.Module]:
        """A class like that of `owner`, whose methods hand these calls to children."""
        kind: Any = type(owner)
        plain = tuple([(call, child) for call, child in self.children if self.frozen and _is_plain(owner, call, child)])
        return _derived(kind, self, plain)

    def froze(self) -> "Calls":
        """The same role once the children are constant."""
        return self._replace(frozen=True)


def _is_plain(owner: nn.Module, call: str, child: str) -> bool:
    """Whether a call of torch can be written out: a pooling at a constant stride, or what its place does alone."""
    method, _, number = call.rpartition(":")
    function, _ = own_function(type(owner), method)
    node: Any = candidates(parsed(function))[int(number)]
    place = owner._modules.get(child)
    if (
        not isinstance(place, FrozenPlace)
        or not _is_family(node, function, owner)
        or any(n > 1 for n in place.layer_stride)
    ):
        return False
    interpolates = _called(node, function, owner) in unstrided.INTERPOLATES
    sized = len(node.args) > 1 or any(keyword.arg == "size" for keyword in node.keywords)
    return not sized if interpolates else place.mode is None and not getattr(place.geometry, "ceil", False)


@functools.cache
def _derived(kind: Any, role: Calls, plain: tuple[tuple[str, str], ...]) -> type[nn.Module]:
    own = {_CALL: unstrided.call, _SLICE: unstrided.decimate, _PART: slice, **_written(kind, role.children, plain)}
    return type(kind.__name__, (kind,), {**space(kind, role), **own})


@functools.cache
def _written(kind: Any, children: Children, plain: Children = ()) -> dict[str, Any]:
    """The methods of a class with calls replaced, by name."""
    by_method: dict[str, dict[int, str]] = {}
    for call, child in children:
        method, _, number = call.rpartition(":")
        by_method.setdefault(method, {})[int(number)] = child
    written = {child for _, child in plain}
    return {method: _compiled(kind, method, numbers, written) for method, numbers in by_method.items()}


def _compiled(kind: Any, method: str, children: dict[int, str], plain: set[str]) -> Any:
    """One method, compiled anew in the module that it was written in, with the variables that it closes over."""
    function, owner = own_function(kind, method)
    tree = parsed(function)
    definition: Any = tree.body[0]
    _Writer(children, definition.args, owner.__name__, function, plain).write(tree)
    make: Any = ast.parse(f"def make({', '.join(function.__code__.co_freevars)}):\n    return {method}").body[0]
    make.body.insert(0, definition)
    text = ast.unparse(ast.fix_missing_locations(ast.Module([make], [])))
    filename = f"<{owner.__module__}.{owner.__qualname__}.{method}, converted {hash(text):x}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    variables: dict[str, Any] = {}
    try:
        exec(compile(text, filename, "exec", dont_inherit=True), function.__globals__, variables)
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        return variables["make"](*cells)
    except Exception as error:
        raise UnwritableError(f"its method {method!r} cannot be written anew ({error})") from error


class _Writer(ast.NodeTransformer):
    """Replaces calls and slices, by their numbers, and writes private names out."""

    def __init__(
        self, children: dict[int, str], arguments: ast.arguments, owner: str, function: FunctionType, plain: set[str]
    ) -> None:
        self.children, self.function, self.plain = children, function, plain
        self.me = (arguments.posonlyargs + arguments.args)[0].arg
        self.owner = owner.lstrip("_")
        self.chosen: dict[ast.AST, str] = {}

    def write(self, tree: ast.Module) -> None:
        nodes = candidates(tree)
        if max(self.children) >= len(nodes):
            raise UnwritableError(
                f"{self.function.__name__!r} has {len(nodes)} calls, and no number {max(self.children)}"
            )
        self.chosen = {nodes[number]: child for number, child in self.children.items()}
        for node in ast.walk(tree):  # annotations may name what exists for type checkers alone
            if isinstance(node, ast.arg):
                node.annotation = None
            elif isinstance(node, ast.FunctionDef):
                node.returns = None
        self.visit(tree)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        child = self.chosen.get(node)
        self.generic_visit(node)
        if child is None:
            return node
        if child in self.plain:
            return self._plain(node, child)
        return ast.Call(self._mine(_CALL), [ast.Constant(child), node.func, *node.args], node.keywords)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        child = self.chosen.get(node)
        self.generic_visit(node)
        if child is None:
            return node
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        index = ast.Tuple([self._part(part) for part in parts], ast.Load())
        return ast.Call(self._mine(_SLICE), [ast.Constant(child), node.value, index], [])

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr.startswith("__") and not node.attr.endswith("__"):
            node.attr = f"_{self.owner}{node.attr}"
        return node

    def _plain(self, node: ast.Call, child: str) -> ast.AST:
        """The call at stride 1, and its child; the child alone where it interpolates."""
        called = eval(ast.unparse(node.func), self.function.__globals__)
        names = unstrided.ARGUMENTS.get(called, ())
        given = [ast.keyword(name, value) for name, value in zip(names, node.args, strict=False)] + node.keywords
        if called in unstrided.INTERPOLATES:
            first = node.args[0] if node.args else next(k.value for k in node.keywords if k.arg == "input")
            return ast.Call(self._mine(child), [first], [])
        if names:
            given = [keyword for keyword in given if keyword.arg not in ("stride", "ceil_mode")]
            node = ast.Call(node.func, [], [*given, ast.keyword("stride", ast.Constant(1))])
        return ast.Call(self._mine(child), [node], [])

    def _part(self, part: ast.expr) -> ast.expr:
        if not isinstance(part, ast.Slice):
            return part
        values = [value or ast.Constant(None) for value in (part.lower, part.upper, part.step)]
        return ast.Call(self._mine(_PART), values, [])

    def _mine(self, name: str) -> ast.expr:
        return ast.Attribute(ast.Name(self.me, ast.Load()), name, ast.Load())
