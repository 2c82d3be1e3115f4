"""Which maps of a model have one resolution, as far as it is known."""

from typing import Any

# A map whose size may move, by what it comes from; classes of such maps are known by their first member.
Resolution = tuple[Any, ...]


class Groups:
    """Union-find over classes of resolution, with what was learned about each class."""

    def __init__(self) -> None:
        self.parent: dict[Resolution, Resolution] = {}
        self.order: dict[Resolution, int] = {}
        self.size: dict[Resolution, tuple[int, ...]] = {}
        self.fixed: dict[Resolution, str] = {}
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
        """Make two classes one."""
        a, b = sorted((self.find(a), self.find(b)), key=self.order.__getitem__)
        if a == b:
            return
        self.parent[b] = a
        reasons = self.ties.setdefault(a, [])
        reasons.extend(r for r in [*self.ties.pop(b, []), why] if r not in reasons)
        if b in self.fixed:
            self.fixed.setdefault(a, self.fixed.pop(b))

    def fix(self, item: Resolution, why: str) -> None:
        """This class cannot change its size."""
        self.fixed.setdefault(self.find(item), why)

    def free(self, root: Resolution) -> bool:
        """Whether the size of a class may change."""
        return root[0] != "input" and root not in self.fixed
