"""The record of one table of `anystride bench`: what was measured, how, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMA = 1
_PLACE = ("commit", "uncommitted_changes", "versions", "hardware")


@dataclass(frozen=True)
class BenchRecord:
    """A measured table.

    Args:
        table: the name of the table.
        device: "cpu" or "cuda".
        command: the command line.
        found: what was measured, as JSON values: `settings`, `rows`, and what follows from the rows.
        provenance: commit, versions and hardware, as `lab.record.provenance` gives them.
    """

    table: str
    device: str
    command: list[str]
    found: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """How it was measured."""
        settings: dict[str, Any] = self.found["settings"]
        return settings

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One entry per measurement."""
        rows: list[dict[str, Any]] = self.found["rows"]
        return rows

    def to_json(self) -> dict[str, Any]:
        """The record as one level of JSON values."""
        head = {"schema": SCHEMA, "table": self.table, "device": self.device, "command": self.command}
        return {**head, **self.found, **self.provenance}

    @classmethod
    def from_json(cls, values: object, table: str) -> BenchRecord:
        """The inverse of `to_json`.

        Raises:
            ValueError: the values are no complete record of `table` of this schema.
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA or values.get("table") != table:
            raise ValueError(f"not a record of {table} of schema {SCHEMA}")
        if absent := [name for name in ("device", "command", "settings", "rows") if name not in values]:
            raise ValueError(f"not a complete record of {table}, see {', '.join(absent)}")
        rest = {name: value for name, value in values.items() if name not in ("schema", "table", "device", "command")}
        place = {name: rest.pop(name) for name in _PLACE if name in rest}
        return cls(table, values["device"], values["command"], rest, place)
