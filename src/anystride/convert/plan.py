"""What a conversion does to a model, as data: printed as a table, kept as JSON, applied again without the search."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from anystride.columns import shortly
from anystride.convert.agreements import check_plan
from anystride.convert.change import ROLES, Change
from anystride.convert.display import page, text
from anystride.convert.schema import CHANGE, PLAN, SCHEMA, check_fields, shown
from anystride.ops.cosine import ROLLOFF, TOLERANCE

# Times the former multiply-accumulates from which on a plan warns.
DEAR = 1.5


@dataclass(frozen=True, repr=False)
class Plan:
    """What `convert_` did, or would do.

    `print(plan)` shows what is replaced, what is tied to what and by which operation, what stays and why, sizes and
    multiply-accumulates before and after; a notebook shows a table with bars, `to_dicts` gives plain values.
    `to_json` and `from_json` keep it beside a checkpoint; `anystride.apply_(model, plan)` repeats it on a fresh model.

    Attributes:
        changes: one per place that changes the resolution, in the order of execution.
        method: "diffstride" or "spectral".
        ramp, smoothness, shared, grid, rolloff, tolerance, padding_mode: of the learned layers.
        whole: whether converted convolutions tell the stride that they had, as the network computes with whole ones.
        macs: multiply-accumulates for the example input before and after; None if they were not counted.
        batch: examples in the example input; None where its tensors do not tell.
    """

    changes: tuple[Change, ...] = ()
    method: str = "diffstride"
    ramp: str = "inner"
    smoothness: float = 4.0
    shared: bool = False
    grid: int | str = "free"
    whole: bool = False
    macs: tuple[int, int] | None = None
    notes: tuple[str, ...] = field(default=())
    rolloff: float = ROLLOFF
    tolerance: float = TOLERANCE
    padding_mode: str | None = None
    batch: int | None = None

    @property
    def replaced(self) -> tuple[Change, ...]:
        """The changes that touch the model."""
        return tuple(change for change in self.changes if change.role != "stay")

    @property
    def stays(self) -> tuple[Change, ...]:
        """The places that are left as they were, each with its reason."""
        return tuple(change for change in self.changes if change.role == "stay")

    def notes_on_cost(self, before: int, after: int) -> tuple[str, ...]:
        """What to do where a conversion multiplies the cost by more than `DEAR`."""
        if after <= DEAR * max(before, 1):
            return ()
        remedy = "leave narrow layers out with filter=, or let a Budget bring strides up"
        if self.method == "spectral" or self.ramp == "outer":
            remedy = f"ramp='cosine' with method='diffstride' costs less; or {remedy}"
        elif self.ramp == "inner":
            remedy = f"ramp='cosine' costs less; or {remedy}"
        return (f"warning: this conversion multiplies the cost by {after / max(before, 1):.1f}: {remedy}",)

    def grouped(self, groups: Sequence[Sequence[str]]) -> "Plan":
        """The plan with the strides of the modules in each of `groups` made one; a ValueError where they cannot be."""
        plan = self
        for names in groups:
            chosen = [change for change in plan.changes if change.name in names and change.group is not None]
            missing = sorted(set(names) - {change.name for change in chosen})
            if missing:
                raise ValueError(f"groups: no stride is learned at {', '.join(map(repr, missing))}; see the plan")
            if len({change.stride for change in chosen}) > 1:
                raise ValueError(f"groups: {', '.join(names)} have strides that differ: {[c.stride for c in chosen]}")
            numbers = [change.group for change in chosen if change.group is not None]
            one = [dataclasses.replace(c, group=min(numbers)) if c.group in numbers else c for c in plan.changes]
            plan = dataclasses.replace(plan, changes=tuple(one))
        return plan

    def to_json(self) -> str:
        """The plan as JSON."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote.

        Raises:
            ValueError: `text` is something else; the message names the change, the field and the value.
        """
        try:
            data: Any = json.loads(text)
            if not isinstance(data, dict) or data.get("schema") not in (*range(1, SCHEMA + 1),):
                raise ValueError(f"its 'schema' must be a number from 1 to {SCHEMA}, got {shown(data)}")
            schema, values = data.pop("schema"), _tuples(data)
            check_fields(values, PLAN, "in the plan", schema)
            for number, change in enumerate(values["changes"]):
                name = change.get("name")
                where = f"in the change {shown(name)}" if isinstance(name, str) else f"in change number {number}"
                check_fields(change, CHANGE, where, schema)
            plan = cls(**{**values, "changes": tuple([Change(**change) for change in values["changes"]])})
            check_plan(plan)
        except (RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"text must be a plan as Plan.to_json writes it, but {error}; undo the edit, or convert the model again"
            ) from None
        return plan

    def check(self) -> None:
        """Raise a ValueError unless every field has one of its values, and all of them fit each other."""
        check_fields({**vars(self), "changes": ()}, PLAN, "in the plan")
        for number, change in enumerate(self.changes):
            check_fields(dict(vars(change)), CHANGE, f"in change number {number}")
        check_plan(self)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary of plain values per place, in the order of execution, for a table: `pandas.DataFrame(...)`.

        Keys: "layer", "was", "stride", "becomes", "stride_of" (the layer whose stride or size it takes, or None),
        "size_in", "size_out", "size_now" (that of the converted network), and "why".
        """
        return [
            {
                "layer": change.key,
                "was": change.kind,
                "stride": change.stride,
                "becomes": ROLES[change.role],
                "stride_of": change.leader,
                "size_in": change.before[0],
                "size_out": change.before[1],
                "size_now": change.before[1] if change.after is None else change.after,
                "why": change.why,
            }
            for change in self.changes
        ]

    def __str__(self) -> str:
        return text(self.changes, self._in_words())

    def __repr__(self) -> str:
        return f"<Plan: {self._in_words()[0]}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return page(self.changes, self._in_words())

    def _in_words(self) -> list[str]:
        """What stands below the places: how many strides they have, what they cost, and the notes."""
        if not self.changes:
            return [*self.notes] or ["Nothing in this model changes the resolution by a fixed factor."]
        strides = len({change.group for change in self.changes if change.role in ("learn", "share")})
        kind = ("learned stride" if self.method == "diffstride" else "spectral pooling") + "s" * (strides != 1)
        told = [f"{strides} {kind} for {len(self.replaced)} of {len(self.changes)} places ({self.ramp} ramp)"]
        if self.macs is not None:
            before, after = (value / (self.batch or 1) for value in self.macs)
            each = "per example" if self.batch else "for the example input"
            ratio = after / max(before, 1)
            told.append(f"multiply-accumulates {each}: {shortly(before)} before, {shortly(after)} after ({ratio:.2f}x)")
        return [*told, *self.notes]


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
