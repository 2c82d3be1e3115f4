"""python benchmarks/zoo.py [--onnx] [--workers 2]      about an hour on two CPU cores, and as long again with --onnx

`convert_` on public network definitions with random weights: one small network for each model module of timm, variants
of timm that downsample differently, torchvision, segmentation_models_pytorch and MONAI. Each runs in a process of its
own, with a time limit; finished rows are kept, so that the command goes on where it was stopped. Writes
results/zoo.json and docs/compatibility.md (`--page` writes only the page).
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import re
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from anystride.convert import convert_
from anystride.layers import DiffStrideNd
from zoo_models import build, family_of, listed
from zoo_page import ROLES, TOLERANCE, fine, header, page, passed, save, verdict

ROOT = Path(__file__).resolve().parents[1]
GROWING = ("transposed convolution", "interpolation", "pixel shuffle")
STEPS = ("train", "freeze", "onnx")


def maps(output: Any) -> list[Tensor]:
    """The maps in what a network gives, whatever holds them."""
    tree = vars(output) if dataclasses.is_dataclass(output) else output
    found = [t for t in tree_leaves(tree) if isinstance(t, Tensor) and t.is_floating_point()]
    if not found:
        raise TypeError(f"no tensor in an output of type {type(output).__name__}")
    return found


def gradients(model: nn.Module, x: Tensor) -> None:
    """Forward and backward in training mode; raises if a stride has no finite gradient other than zero."""
    model.train().zero_grad()
    torch.stack([t.square().mean() for t in maps(model(x))]).sum().backward()
    for name, parameter in model.named_parameters():
        if name.endswith("pool.stride"):
            if parameter.grad is None or not parameter.grad.any():
                raise AssertionError(f"no gradient at {name}")
            if not parameter.grad.isfinite().all():
                raise AssertionError(f"a gradient that is not finite at {name}")


def randomise(model: nn.Module) -> int:
    """Another stride for every operator, between 0.6 and 1.2 of its own; how many there are."""
    pools = [m for m in model.modules() if isinstance(m, DiffStrideNd)]
    with torch.no_grad():
        for pool in pools:
            pool.stride.mul_(torch.empty_like(pool.stride).uniform_(0.6, 1.2)).clamp_(min=1.05)
    return len(pools)


def error(results: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference, as a part of the largest value."""
    if [t.shape for t in results] != [t.shape for t in wanted] or not all(t.isfinite().all() for t in wanted):
        return math.inf
    top = max(float(t.abs().max()) for t in wanted)
    return max(float((a - b).abs().max()) for a, b in zip(results, wanted, strict=True)) / max(top, 1e-30)


def agree(results: Sequence[Tensor], wanted: Sequence[Tensor]) -> str:
    worst = error(results, wanted)
    if not worst <= TOLERANCE:
        raise AssertionError(f"differs by {worst:.1e} of the largest value")
    return f"ok: {worst:.0e}"


def onnx_outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What the network gives in onnxruntime."""
    ort = importlib.import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return [torch.from_numpy(y) for y in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


def attempt(checks: dict[str, str], name: str, check: Any) -> bool:
    """Run a check and write down how it went."""
    try:
        result = check()
        checks[name] = result if isinstance(result, str) else "ok"
    except Exception as failure:
        checks[name] = re.sub(r"\s+", " ", f"{type(failure).__name__}: {failure}")[:300]
    return fine(checks[name])


def runs(model: nn.Module, size: Sequence[int]) -> str:
    """Why the network as it is does not take this size; empty if it does."""
    try:
        with torch.no_grad():
            model.train()(torch.randn(2, *size))
    except Exception as failure:
        return f"{type(failure).__name__}: {failure}"[:200]
    return ""


def examine(row: str, steps: Sequence[str], send: Callable[[Any], None]) -> dict[str, Any]:
    """All that is known of one network after the given steps; what is known early goes to `send` as well."""
    torch.manual_seed(zlib.crc32(row.encode()))
    checks: dict[str, str] = {}
    record: dict[str, Any] = {"family": family_of(row), "checks": checks}
    model, sizes = build(row)
    refusals = [runs(model, size) for size in sizes]
    if "" not in refusals:
        return record | {"plain": refusals[-1]}
    size = sizes[refusals.index("")]
    larger = (size[0], size[1] + 32, *size[2:])
    refused = runs(model, larger)
    x = torch.randn(2, *size)
    with torch.no_grad():
        shapes = [tuple(t.shape) for t in maps(model.eval()(x))]
    reductions = {str(f.get("reduction")) for f in getattr(model, "feature_info", None) or [] if isinstance(f, dict)}
    record |= {"input": size, "levels": len(reductions), "parameters": sum(p.numel() for p in model.parameters())}
    record["other_sizes"] = not refused
    start = time.perf_counter()
    plan = None

    def convert() -> None:
        nonlocal plan
        plan = convert_(model, x)

    if not attempt(checks, "convert", convert):
        return record
    assert plan is not None
    record |= {
        "seconds": round(time.perf_counter() - start, 1),
        "roles": {role: sum(c.role == role for c in plan.changes) for role in ROLES},
        "places": sum(c.kind not in GROWING for c in plan.changes),
        "staying": sum(c.role in ("stay", "keep") and c.kind not in GROWING for c in plan.changes),
        "strides": len({c.group for c in plan.changes if c.group is not None}),
        "macs": plan.macs,
        "why": sorted({c.why for c in plan.changes if c.role in ("stay", "keep") and c.kind not in GROWING}),
        "notes": plan.notes,
    }
    send((False, record))
    if not record["strides"]:
        return record

    def same_shapes() -> None:
        with torch.no_grad():
            now = [tuple(t.shape) for t in maps(model.eval()(x))]
        assert now == shapes, f"outputs {now}, before {shapes}"

    def twice() -> None:
        again = [c.key for c in convert_(model, x).replaced]
        assert not again, f"a second conversion changes {again[:3]}"

    if "train" in steps:
        attempt(checks, "shapes", same_shapes)
        attempt(checks, "train", lambda: gradients(model, x))
        attempt(checks, "twice", twice)
    assert randomise(model) == record["strides"]
    if "train" in steps:
        attempt(checks, "random", lambda: gradients(model, x))
        if refused:
            checks["size2"] = f"n/a: the plain network does not take {larger}"
        else:
            attempt(checks, "size2", lambda: gradients(model, torch.randn(2, *larger)))
    model.zero_grad(set_to_none=True)
    wanted: list[Tensor] = []

    @torch.no_grad()
    def freeze() -> str:
        wanted[:] = maps(model.eval()(x))
        assert error(maps(model(torch.randn_like(x))), wanted) > TOLERANCE, "its output does not depend on its input"
        importlib.import_module("anystride.freeze").freeze_(model, x)
        left = sum(isinstance(m, DiffStrideNd) for m in model.modules())
        assert not left, f"{left} learned layers are left"
        return agree(maps(model(x)), wanted)

    def onnx() -> str:
        try:
            return agree(onnx_outputs(model, x), wanted)
        except Exception as failure:
            plain = build(row)[0].eval()
            with torch.no_grad():
                before = maps(plain(x))
            try:
                agree(onnx_outputs(plain, x), before)
            except Exception as reason:
                return f"n/a: nor does the plain network export: {type(reason).__name__}: {reason}"[:200]
            raise failure

    if {"freeze", "onnx"} & set(steps) and attempt(checks, "freeze", freeze) and "onnx" in steps:
        attempt(checks, "onnx", onnx)
    return record


def worker(row: str, steps: Sequence[str], pipe: Any) -> None:
    warnings.filterwarnings("ignore")
    start = time.perf_counter()
    with Path(os.devnull).open("w") as sink, redirect_stdout(sink), redirect_stderr(sink):
        try:
            record = examine(row, steps, pipe.send)
        except Exception as failure:
            record = {"checks": {"run": f"{type(failure).__name__}: {failure}"[:300]}}
    pipe.send((True, record | {"run_seconds": round(time.perf_counter() - start, 1)}))


def run_all(
    todo: Sequence[tuple[str, tuple[str, ...]]], workers: int, limit: float, until: str
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each row in a process of its own, `workers` at once."""
    context = multiprocessing.get_context("fork")
    queue, running = list(todo), {}
    while queue or running:
        if time.strftime("%H:%M") >= until:
            queue.clear()
        while queue and len(running) < workers:
            row, steps = queue.pop(0)
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=worker, args=(row, steps, there))
            process.start()
            there.close()
            running[here] = (row, process, time.monotonic(), {"checks": {}})
        ready = wait(list(running), timeout=1.0)
        for pipe, (row, process, start, record) in list(running.items()):
            seconds = time.monotonic() - start
            done, failure = False, f"not done after {limit:.0f} s"
            try:
                if pipe in ready:
                    done, known = pipe.recv()
                    record.update(known)
            except EOFError:
                failure, seconds = "the process died", limit
            if done or seconds >= limit:
                process.kill()
                process.join()
                del running[pipe]
                if not done:
                    record["checks"]["run"] = failure
                yield row, {"run_seconds": limit, **record}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="only rows whose name has one of these in it")
    parser.add_argument("--onnx", action="store_true", help="also export the networks that pass, and run them in ONNX")
    parser.add_argument("--fresh", action="store_true", help="repeat rows that are finished")
    parser.add_argument("--fresh-failed", action="store_true", help="repeat rows that do not pass")
    parser.add_argument("--page", action="store_true", help="write the page, and run nothing")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=400, help="seconds for one network")
    parser.add_argument("--until", help="start no network after this time of the day, HH:MM")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "zoo.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(args.out.read_text()) if args.out.exists() else {"rows": {}}
    kept = results["rows"]
    source = hashlib.sha1(b"".join(p.read_bytes() for p in sorted((ROOT / "src/anystride").glob("*.py")))).hexdigest()
    todo: list[tuple[str, tuple[str, ...]]] = []
    for row in listed():
        known = kept.get(row)
        wanted = not args.rows or any(part in row for part in args.rows)
        if not wanted or args.page:
            continue
        if known is None or args.fresh or (args.fresh_failed and not passed(known)):
            todo.append((row, STEPS[:2]))
        elif args.onnx and passed(known) and "onnx" not in known["checks"]:
            todo.append((row, STEPS[2:]))
    for module in ("timm", "torchvision", "segmentation_models_pytorch", "monai.networks.nets", "onnxruntime"):
        if todo:
            importlib.import_module(module)
    for number, (row, record) in enumerate(run_all(todo, args.workers, args.limit, args.until or "99"), 1):
        known = kept.get(row)
        if known is not None and (row, STEPS[2:]) in todo:
            known["checks"]["onnx"] = record["checks"].get("onnx") or str(record["checks"])
            known["onnx_source"] = source[:12]
        else:
            kept[row] = record | {"source": source[:12]}
        save(args.out, json.dumps(results | header(ROOT) | {"rows": kept}, indent=1) + "\n")
        print(f"{number}/{len(todo)} {row} {record['run_seconds']} s: {verdict(kept[row])}", flush=True)
    save(ROOT / "docs" / "compatibility.md", page(results | header(ROOT)))


if __name__ == "__main__":
    main()
