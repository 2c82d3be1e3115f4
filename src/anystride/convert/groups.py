"""Which maps of a model have one resolution, as far as it is known."""

from typing import Any

# A map whose size may move, by what it comes from; classes of such maps are known by their first member.
Resolution = tuple[Any, ...]


class Groups:
    """Union-find over classes of resolution, with what was learned about each class.

    Attributes:
        parent, order, size: per item, the class that it was merged into, when it came, and its size in the example.
        fixed: per class that cannot change its size, the reason.
        freed: per fixed class, the axes on which it can nevertheless.
        held: per class, the axes that the user wants to stay; and `held_sites`, what he named.
        ties: per class, the operations that tied it.
    """

    def __init__(self) -> None:
        self.parent: dict[Resolution, Resolution] = {}
        self.order: dict[Resolution, int] = {}
        self.size: dict[Resolution, tuple[int, ...]] = {}
        self.fixed: dict[Resolution, str] = {}
        self.freed: dict[Resolution, frozenset[int]] = {}
        self.held: dict[Resolution, frozenset[int]] = {}
        self.held_sites: dict[Any, frozenset[int]] = {}
        self.ties: dict[Resolution, list[str]] = {}

    def add(self, item: Resolution, size: tuple[int, ...]) -> Resolution:
        """The class of an item, made if new."""
        if item not in self.parent:
            self.parent[item] = item
            self.order[item] = len(self.order)
            self.size[item] = size
        return self.find(item)

    def find(self, item: Resolution) -> Resolution:
        """The root of an item's class: its member that ran first."""
        while self.parent[item] != item:
            item = self.parent[item]
        return item

    def merge(self, a: Resolution, b: Resolution, why: str) -> None:
        """Make two classes one. Members keep the distance that their sizes had in the example."""
        a, b = sorted((self.find(a), self.find(b)), key=self.order.__getitem__)
        if a == b:
            return
        self.parent[b] = a
        reasons = self.ties.setdefault(a, [])
        reasons.extend(r for r in [*self.ties.pop(b, []), why] if r not in reasons)
        if b in self.held:
            self.hold(a, self.held.pop(b))
        if b in self.fixed:
            freed = self.freed.pop(b, frozenset())
            both = a in self.fixed
            self.fixed.setdefault(a, self.fixed.pop(b))
            self.freed[a] = freed & self.freed.get(a, frozenset()) if both else freed

    def fix(self, item: Resolution, why: str, axes: frozenset[int] | None = None) -> None:
        """This class cannot change its size, or its size along some axes."""
        root = self.find(item)
        every = frozenset(range(len(self.size[root])))
        free = self.freed.get(root, frozenset()) if root in self.fixed else every
        self.fixed.setdefault(root, why)
        self.freed[root] = free - (every if axes is None else axes)

    def hold(self, item: Resolution, axes: frozenset[int]) -> None:
        """The user wants this class to stay along some axes."""
        root = self.find(item)
        self.held[root] = self.held.get(root, frozenset()) | axes

    def moves(self, root: Resolution) -> frozenset[int]:
        """The axes along which the size of a class may change."""
        if root[0] == "input":
            return frozenset()
        free = frozenset(range(len(self.size[root])))
        if root in self.fixed:  # an axis of one sample has nowhere to move
            free = frozenset([axis for axis in self.freed[root] if self.size[root][axis] > 1])
        return free - self.held.get(root, frozenset())

    def why(self, root: Resolution) -> str:
        """Why a class cannot move."""
        return self.fixed.get(root, "left out by axes")

    def free(self, root: Resolution) -> bool:
        """Whether the size of a class may change along any axis."""
        return bool(self.moves(root))

    def state(self) -> tuple[Any, ...]:
        """All that another run could have changed, to compare or to come back to."""
        ties = {root: list(reasons) for root, reasons in self.ties.items()}
        return dict(self.parent), dict(self.fixed), dict(self.freed), dict(self.held), ties

    def restore(self, state: tuple[Any, ...]) -> None:
        """Come back to an earlier `state`; items that came later stay, each a class of its own."""
        parent, fixed, freed, held, ties = state
        self.parent = {item: parent.get(item, item) for item in self.parent}
        self.fixed, self.freed, self.held = dict(fixed), dict(freed), dict(held)
        self.ties = {root: list(reasons) for root, reasons in ties.items()}
