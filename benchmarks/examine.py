"""What `convert_` must do to a network, checked; benchmarks/zoo.py and benchmarks/field.py share it."""

import copy
import dataclasses
import importlib
import json
import math
import re
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anystride import Plan
from anystride.layers import DiffStrideNd
from anystride.trees import tensors

# Largest difference, as a part of the largest value, at which two outputs are the same.
TOLERANCE = 1e-4
GROWING = ("transposed convolution", "interpolation", "pixel shuffle")
ROLES = ("learn", "share", "follow", "keep", "stay")


class Network(NamedTuple):
    """A network to convert.

    Attributes:
        name: unique; the row's name.
        family: library or kind of network.
        build: the network with random weights; it uses torch's global random state.
        example: the arguments at the first input size, `example(0)`, or at the second, `example(1)`: a tensor, a tuple
            of positional or a dict of keyword arguments (a list of images is `([image, ...],)`). Batches have two
            examples. Where the network refuses the second size, the harness finds that out and writes down why.
        trains: False where training mode needs what the example does not have; gradients are then those of evaluation.
        watch: names of modules whose outputs stand for the network's own in comparisons, where those are a selection
            (boxes that are left after suppression).
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    example: Callable[[int], Any]
    trains: bool = True
    watch: tuple[str, ...] = ()


def fine(result: str) -> bool:
    return result.startswith(("ok", "n/a"))


def maps(output: Any) -> list[Tensor]:
    """The maps in what a network gives, whatever holds them."""
    tree = vars(output) if dataclasses.is_dataclass(output) else output
    found = [t for t in tensors(tree) if t.is_floating_point()]
    if not found:
        raise TypeError(f"no tensor in an output of type {type(output).__name__}")
    return found


def shapes(tensors: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in tensors]


def call(model: nn.Module, example: Any) -> Any:
    """Run a model on arguments in any form."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def randomise(model: nn.Module) -> int:
    """Another stride for every operator, between 0.6 and 1.2 of its own; how many there are."""
    pools = [m for m in model.modules() if isinstance(m, DiffStrideNd)]
    with torch.no_grad():
        for pool in pools:
            pool.stride.mul_(torch.empty_like(pool.stride).uniform_(0.6, 1.2)).clamp_(min=1.05)
    return len(pools)


def error(results: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference, as a part of the largest value."""
    if shapes(results) != shapes(wanted) or not all(t.isfinite().all() for t in wanted):
        return math.inf
    top = max(float(t.abs().max()) for t in wanted)
    return max(float((a - b).abs().max()) for a, b in zip(results, wanted, strict=True)) / max(top, 1e-30)


def agree(results: Sequence[Tensor], wanted: Sequence[Tensor]) -> str:
    worst = error(results, wanted)
    if shapes(results) != shapes(wanted):
        raise AssertionError(f"outputs {shapes(results)}, not {shapes(wanted)}")
    if not worst <= TOLERANCE:
        raise AssertionError(f"differs by {worst:.1e} of the largest value")
    return f"ok: {worst:.0e}"


def onnx_outputs(model: nn.Module, example: Any) -> list[Tensor]:
    """What the network gives in onnxruntime."""
    ort = importlib.import_module("onnxruntime")
    args = example if isinstance(example, tuple) else () if isinstance(example, dict) else (example,)
    kwargs = example if isinstance(example, dict) else None
    given = tensors(example)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(model, args, path, kwargs=kwargs, dynamo=True, verbose=False)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {put.name: t.numpy() for put, t in zip(session.get_inputs(), given, strict=True)}
        return [t for y in session.run(None, feed) if (t := torch.from_numpy(y)).is_floating_point()]


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that looking at a model must leave as it is."""
    known: dict[str, Any] = {"the random state": torch.get_rng_state()}
    known |= {f"state {name}": copy.deepcopy(value) for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        known[f"attributes of {name!r}"] = sorted(vars(module))
        known[f"training of {name!r}"] = module.training
        hooks = {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks") and value is not None}
        known[f"hooks of {name!r}"] = hooks
    return known


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def plan_difference(one: Plan, other: Plan) -> str:
    """Where two plans differ, in words; empty where they do not."""
    a, b = (json.loads(dataclasses.replace(plan, macs=None).to_json()) for plan in (one, other))
    if a == b:
        return ""
    for left, right in zip(a["changes"], b["changes"], strict=False):
        for key in left:
            if left[key] != right[key]:
                return f"{left['name']!r} has {key} {left[key]!r} or {right[key]!r}"
    if len(a["changes"]) != len(b["changes"]):
        return f"{len(a['changes'])} changes or {len(b['changes'])}"
    return next(f"{key} {a[key]!r} or {b[key]!r}" for key in a if a[key] != b[key])


class Examination:
    """One network and what was found out about it so far.

    Attributes:
        checks: per check, "ok", "ok: ...", "n/a: ..." or what went wrong.
        examples: arguments at the first and at the second size.
        before: outputs of the unconverted network at the sizes that it takes.
        refused: why the unconverted network does not take the second size; empty if it does.
        plan, looked: of the conversion, and of a dry run before it.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.seed = zlib.crc32(network.name.encode())
        self.checks: dict[str, str] = {}
        torch.manual_seed(self.seed)
        self.examples = [network.example(0), network.example(1)]
        self.before: list[list[Tensor]] = []
        self.refused = ""
        self.plan = Plan()
        self.looked: Plan | None = None
        self._statistics: dict[str, Tensor] | None = None

    def built(self) -> nn.Module:
        """The network, with the same weights each time, and the statistics of its input in its batch norms."""
        model = self._made()
        if self._statistics is None:
            other = self._made()
            try:
                with torch.no_grad():
                    call(other.train(self.network.trains), self.examples[0])
            except Exception:  # it refuses, and will say so
                other = model
            found = ((n, b) for n, b in other.named_buffers() if n.endswith(("running_mean", "running_var")))
            self._statistics = {name: buffer for name, buffer in found if buffer.isfinite().all()}
        for name, buffer in model.named_buffers():
            if name in self._statistics:
                buffer.copy_(self._statistics[name])
        return model

    def _made(self) -> nn.Module:
        """Weights that start at zero (last scale of a branch, head) would hide the branches: they become random too."""
        torch.manual_seed(self.seed)
        model = self.network.build()
        for name, parameter in model.named_parameters():
            if not name.endswith("bias") and not parameter.detach().any():
                nn.init.normal_(parameter.data, std=0.1)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the mean over all passes: with the statistics at 0 and 1, signals would fade
        return model

    def attempt(self, name: str, check: Callable[[], Any]) -> bool:
        """Run a check and write down how it went."""
        try:
            result = check()
            self.checks[name] = result if isinstance(result, str) else "ok"
        except Exception as failure:
            self.checks[name] = re.sub(r"\s+", " ", f"{type(failure).__name__}: {failure}")[:300]
        return fine(self.checks[name])

    @torch.no_grad()
    def outputs(self, model: nn.Module, example: Any) -> list[Tensor]:
        """What the network gives in evaluation mode, from the same random state each time."""
        with self._watched(model) as seen:
            torch.manual_seed(0)
            output = call(model.eval(), example)
        return [t.clone() for t in seen or maps(output)]

    def gradients(self, model: nn.Module, example: Any) -> None:
        """Forward and backward; raises if a stride has no finite gradient other than zero."""
        model.train(self.network.trains).zero_grad()
        with self._watched(model) as seen:
            torch.manual_seed(0)
            found = [*maps(call(model, example)), *seen]
        torch.stack([t.square().mean() for t in found if t.numel()]).sum().backward()
        for name, module in model.named_modules():
            if isinstance(module, DiffStrideNd):
                weights = model.get_submodule(name.partition(".resample")[0]).parameters()
                if (unused := [p.grad is None for p in weights if p is not module.stride]) and all(unused):
                    continue  # the network makes no use of its output
                if module.stride.grad is None or (
                    not module.stride.grad.any() and self._matters(model, example, module)
                ):
                    raise AssertionError(f"no gradient at {name}.stride")
                if not module.stride.grad.isfinite().all():
                    raise AssertionError(f"a gradient that is not finite at {name}.stride")

    def _matters(self, model: nn.Module, example: Any, pool: DiffStrideNd) -> bool:
        """Whether another stride gives another output: a mean of the whole map right after it would not."""
        was, before = self.outputs(model, example), pool.stride.detach().clone()
        with torch.no_grad():
            pool.stride.mul_(1.3)
            now = self.outputs(model, example)
            pool.stride.copy_(before)
        return error(now, was) > 1e-6

    def _watched(self, model: nn.Module) -> "Watch":
        return Watch([model.get_submodule(name) for name in self.network.watch])

    def refuses(self, model: nn.Module, scale: int) -> str:
        """Why the network as it is does not take an input; empty if it does."""
        try:
            with torch.no_grad():
                call(model.train(self.network.trains), self.examples[scale])
            self.outputs(model, self.examples[scale])
        except Exception as failure:
            return re.sub(r"\s+", " ", f"{type(failure).__name__}: {failure}")[:200]
        return ""

    def depends(self, model: nn.Module, scale: int = 0) -> bool:
        """Whether another input gives another output."""
        torch.manual_seed(self.seed + 1)
        other = self.network.example(scale)
        return error(self.outputs(model, other), self.outputs(model, self.examples[scale])) > TOLERANCE / 10

    def dense(self, scale: int, found: Sequence[Tensor]) -> list[bool]:
        """Which outputs have the spatial size of the largest input."""
        given = [t for t in tensors(self.examples[scale]) if t.dim() > 1]
        largest = max(given, key=Tensor.numel)
        size = largest.shape[-min(max(largest.dim() - 2, 1), 3) :]
        return [t.dim() > 1 and t.shape[-len(size) :] == size for t in found]


class Watch:
    """Collects the outputs of modules, or nothing where there are none to watch."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules

    def __enter__(self) -> list[Tensor]:
        seen: list[Tensor] = []
        self.handles = [m.register_forward_hook(lambda m, args, out: seen.extend(maps(out))) for m in self.modules]
        return seen

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


def described(plan: Plan) -> dict[str, Any]:
    """What a record says of a plan."""
    places = [change for change in plan.changes if change.kind not in GROWING]
    still = [change for change in places if change.role in ("stay", "keep")]
    return {
        "roles": {role: sum(c.role == role for c in plan.changes) for role in ROLES},
        "places": len(places),
        "staying": len(still),
        "strides": len({c.group for c in plan.changes if c.group is not None}),
        "macs": plan.macs,
        "why": sorted({c.why for c in still}),
        "notes": plan.notes,
    }
