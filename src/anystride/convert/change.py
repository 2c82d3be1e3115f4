"""One place of a plan."""

from dataclasses import dataclass
from typing import Any

ROLES = {
    "learn": "learns",
    "share": "tied",
    "follow": "follows",
    "keep": "keeps size",
    "stay": "stays",
}


@dataclass(frozen=True)
class Change:
    """One place that changes the resolution, and what becomes of it.

    Attributes:
        name: qualified name of the module.
        index: which of the module's resolution-changing operations; -1 for the module's output.
        kind: what it was, in words.
        how: how it is replaced: "stride" (the module's stride is set to 1, the operator follows), "replace" (the module
            is the operator), "call" (a call in the module's forward), "output" (the operator follows the
            module), "enlarge" (interpolation to another size), "note" (nothing but its size is read); "" if it stays.
        role: "learn" (a stride of its own), "share" (the stride of `leader`, whose maps it meets), "follow" (the size
            of `leader`, no stride), "keep" (a fixed size), "stay".
        leader: key of the change it is tied to, or "input" for the model's input ("input:" and a path, for one of
            several).
        scope: for "follow", the name of the innermost module that the leader runs in, too.
        group: number of the operator that it shares with all changes of that number.
        stride, span, padding, same, ceil: as in `geometry.Geometry`.
        before: spatial sizes of its input and output.
        call: for "call", the method of the module's class and the number of the call in it.
        axes: spatial axes that the role changes; along all others the layer keeps its stride. None for all.
        rules: per axis, the size that it keeps: a number, or how it follows from the input's (`geometry.SizeRule`).
        shift: for "follow", samples per axis by which its map is longer than the leader's.
        turns: where it runs several times and follows another place each time: these, in turn.
        grows: whether it enlarges the map.
        after: spatial size of its output in the converted model.
        why: operations that tie it, or the reason for which it stays.
        mode, align_corners: of what enlarges.
        copies: whether its output is copied, because the next operation works in place.
    """

    name: str
    index: int
    kind: str
    how: str
    role: str
    stride: tuple[int, ...]
    span: tuple[int, ...]
    padding: tuple[int, ...]
    before: tuple[tuple[int, ...], tuple[int, ...]]
    leader: str | None = None
    group: int | None = None
    same: bool = False
    ceil: bool = False
    after: tuple[int, ...] | None = None
    why: str = ""
    mode: str | None = None
    align_corners: bool | None = None
    copies: bool = False
    scope: str = ""
    call: str = ""
    axes: tuple[int, ...] | None = None
    rules: tuple[Any, ...] | None = None
    shift: tuple[int, ...] | None = None
    turns: tuple[str, ...] = ()
    grows: bool = False

    @property
    def key(self) -> str:
        """Identity: the module's name, and a number where that is not enough."""
        return self.name if self.index <= 0 else f"{self.name}#{self.index}"
