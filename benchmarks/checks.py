"""The checks of one network, in order; what is known early is sent early."""

import copy
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from anystride import Plan, apply_, freeze_, macs
from anystride.convert import convert_
from anystride.layers import DiffStrideNd
from anystride.trees import tensors
from examine import (
    TOLERANCE,
    Examination,
    Network,
    agree,
    described,
    error,
    onnx_outputs,
    plan_difference,
    randomise,
    same,
    shapes,
    snapshot,
)

STEPS = ("look", "train", "sizes", "freeze", "save", "onnx")


def examine(network: Network, steps: Sequence[str], send: Callable[[Any], None]) -> dict[str, Any]:
    """All that is known of one network after the given steps; what is known early goes to `send` as well."""
    case = Examination(network)
    x = case.examples[0]
    record: dict[str, Any] = {"family": network.family, "checks": case.checks}
    record["inputs"] = [["x".join(map(str, t.shape)) for t in tensors(e)] for e in case.examples]
    try:
        plain = case.built()
    except ImportError as missing:
        return record | {"missing": str(missing)}
    record["parameters"] = sum(p.numel() for p in plain.parameters())
    if refused := case.refuses(plain, 0):
        return record | {"plain": refused}
    if not case.depends(plain):
        return record | {"plain": "its output does not depend on its input"}
    plain = case.built()
    case.before = [case.outputs(plain, x)]
    case.refused = case.refuses(plain, 1)
    record["other_sizes"] = not case.refused
    if not case.refused:
        case.before.append(case.outputs(case.built(), case.examples[1]))
    if "look" in steps:
        case.attempt("looking", lambda: looking(case))
    model, start = case.built(), time.perf_counter()

    def convert() -> None:
        case.plan = convert_(model, x)

    if not case.attempt("convert", convert):
        return record
    record |= described(case.plan) | {"seconds": round(time.perf_counter() - start, 1)}
    send((False, record))
    if "look" in steps:
        case.attempt("history", lambda: history(case))
    if record["strides"]:
        converted(case, model, steps)
    return record


def converted(case: Examination, model: nn.Module, steps: Sequence[str]) -> None:
    """All checks of a converted network."""
    x, y = case.examples
    other = f"n/a: the plain network does not take the second size: {case.refused}"
    if "train" in steps:
        case.attempt("shapes", lambda: same_shapes(case, model, 0))
        if "sizes" in steps:
            case.attempt("shapes2", lambda: other if case.refused else same_shapes(case, model, 1))
        case.attempt("train", lambda: case.gradients(model, x))
        case.attempt("twice", lambda: twice(model, x))
    count = sum(isinstance(m, DiffStrideNd) for m in model.modules())
    torch.manual_seed(case.seed)
    assert randomise(model) == count
    if "train" in steps:
        case.attempt("random", lambda: case.gradients(model, x))
        case.attempt("size2", lambda: other if case.refused else case.gradients(model, y))
    if "sizes" in steps:
        case.attempt("dense", lambda: dense(case, model))
    model.zero_grad(set_to_none=True)
    if "save" in steps:
        case.attempt("apply", lambda: applied(case, model))
        case.attempt("pickle", lambda: pickled(case, model))
    if "freeze" in steps or "onnx" in steps:
        if "sizes" in steps:
            case.attempt("freeze2", lambda: other if case.refused else frozen(case, copied(case, model), 1))
        if case.attempt("freeze", lambda: frozen(case, model, 0)) and "onnx" in steps:
            case.attempt("onnx", lambda: onnx(case, model))


def looking(case: Examination) -> None:
    """`macs` and a dry run leave a fresh model as it was."""
    model, x = case.built(), case.examples[0]
    before = snapshot(model)
    macs(model, x)
    case.looked = convert_(model, x, dry_run=True)
    after = snapshot(model)
    changed = [key for key in {**before, **after} if not same(before.get(key), after.get(key))]
    assert not changed, f"{len(changed)} things changed: {changed[:3]}"
    outputs = case.outputs(model, x)
    assert len(outputs) == len(case.before[0]), f"{len(outputs)} outputs, before {len(case.before[0])}"
    assert all(map(same, outputs, case.before[0])), "other outputs"


def history(case: Examination) -> None:
    """A network that ran before is converted as a fresh one is, and as a dry run says."""
    model = case.built()
    case.outputs(model, case.examples[0])
    warm = convert_(model, case.examples[0], dry_run=True)
    difference = plan_difference(case.plan, warm)
    assert not difference, f"fresh and warm: {difference}"
    difference = plan_difference(case.plan, case.looked) if case.looked else ""
    assert not difference, f"done and planned: {difference}"


def same_shapes(case: Examination, model: nn.Module, scale: int) -> None:
    now, before = shapes(case.outputs(model, case.examples[scale])), shapes(case.before[scale])
    assert now == before, f"outputs {now}, before {before}"


def twice(model: nn.Module, x: Any) -> None:
    again = [c.key for c in convert_(model, x).replaced]
    assert not again, f"a second conversion changes {again[:3]}"


def dense(case: Examination, model: nn.Module) -> str:
    """Where strides moved, an output that had the input's size has it still, or the plan warned."""
    scales = range(len(case.before))
    wanted = [all(flags) for flags in zip(*(case.dense(s, case.before[s]) for s in scales), strict=False)]
    for scale in scales:
        found = case.outputs(model, case.examples[scale])
        assert len(found) == len(case.before[scale]), f"{len(found)} outputs, before {len(case.before[scale])}"
        for now, plain, must in zip(found, case.before[scale], wanted, strict=True):
            if must and not all(case.dense(scale, [now])):
                warning = next((note for note in case.plan.notes if "size" in note.lower()), "")
                if warning:
                    return f"ok: warned: {warning}"[:200]
                raise AssertionError(f"silently another size: {tuple(now.shape)}, before {tuple(plain.shape)}")
    return "ok" if any(wanted) else "ok: not dense"


def applied(case: Examination, model: nn.Module) -> str:
    """A fresh network with the plan and the weights gives the same."""
    return agree(case.outputs(loaded(case, model), case.examples[0]), case.outputs(model, case.examples[0]))


def loaded(case: Examination, model: nn.Module) -> nn.Module:
    """A copy by plan and state dict."""
    torch.manual_seed(case.seed + 1)
    fresh = apply_(case.network.build(), Plan.from_json(case.plan.to_json()))
    fresh.load_state_dict(model.state_dict())
    return fresh


def pickled(case: Examination, model: nn.Module) -> str:
    """The whole network saved and loaded gives the same."""

    def reread(module: nn.Module) -> nn.Module:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    try:
        again = reread(model)
    except Exception as failure:
        return unless_plain(case, reread, failure)
    return agree(case.outputs(again, case.examples[0]), case.outputs(model, case.examples[0]))


def copied(case: Examination, model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as failure:
        unless_plain(case, copy.deepcopy, failure)
        return loaded(case, model)


def frozen(case: Examination, model: nn.Module, scale: int) -> str:
    """`freeze_` gives what the learned network gives."""
    example = case.examples[scale]
    wanted = case.outputs(model, example)
    assert case.depends(model, scale), "its output does not depend on its input"
    learned = copied(case, model)
    freeze_(model, example)
    left = sum(isinstance(m, DiffStrideNd) for m in model.modules())
    assert not left, f"{left} learned layers are left"
    results = case.outputs(model, example)
    worst = error(results, wanted)
    if worst <= TOLERANCE or shapes(results) != shapes(wanted):
        return agree(results, wanted)
    return in_double(case, learned, example, worst)


def in_double(case: Examination, model: nn.Module, example: Any, worst: float) -> str:
    """As `frozen` in float64, for a network that multiplies rounding: without freezing it differs from itself, too."""
    if not isinstance(example, torch.Tensor):
        raise AssertionError(f"differs by {worst:.1e} of the largest value")
    single = case.outputs(model, example)
    model, example = model.double(), example.double()
    wanted = case.outputs(model, example)
    rounding = error([t.double() for t in single], wanted)
    if worst > 10 * rounding:
        raise AssertionError(f"differs by {worst:.1e} of the largest value")
    freeze_(model, example)
    return f"{agree(case.outputs(model, example), wanted)} in float64; in float32 {worst:.0e}, unfrozen {rounding:.0e}"


def onnx(case: Examination, model: nn.Module) -> str:
    """The frozen network gives the same in onnxruntime."""
    x = case.examples[0]

    def exported(module: nn.Module) -> None:
        wanted = case.outputs(module, x)
        agree(onnx_outputs(module, x), wanted)

    try:
        return agree(onnx_outputs(model, x), case.outputs(model, x))
    except Exception as failure:
        return unless_plain(case, exported, failure)


def unless_plain(case: Examination, action: Callable[[nn.Module], Any], failure: Exception) -> str:
    """n/a where the unconverted network fails in the same action; else the failure is raised."""
    try:
        model = case.built()
        case.outputs(model, case.examples[0])
        action(model)
    except Exception as reason:
        return f"n/a: nor does the plain network: {type(reason).__name__}: {reason}"[:200]
    raise failure
