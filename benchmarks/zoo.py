"""python benchmarks/zoo.py [--onnx] [--workers 2]      about an hour on two CPU cores, and as long again with --onnx

`convert_` on public network definitions with random weights: one small network for each model module of timm, variants
of timm that downsample differently, torchvision, segmentation_models_pytorch and MONAI. Each runs in a process of its
own, with a time limit; finished rows are kept, so that the command goes on where it was stopped. Writes
results/zoo.json and docs/compatibility.md (`--page` writes only the page).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import checks
from examine import Network
from rows import ROOT, Job, chosen, due, kept, load, options, run
from zoo_models import build, family_of, listed
from zoo_page import passed, write_page

STEPS = ("train", "freeze", "onnx")


def refused(model: nn.Module, size: Sequence[int]) -> str:
    """Why the network as it is does not take this size; empty if it does."""
    try:
        with torch.no_grad():
            model.train()(torch.randn(2, *size))
    except Exception as failure:
        return f"{type(failure).__name__}: {failure}"[:200]
    return ""


def examine(row: str, steps: Sequence[str], send: Callable[[Any], None]) -> dict[str, Any]:
    """All that is known of one network after the given steps; what is known early goes to `send` as well."""
    model, sizes = build(row)
    refusals = [refused(model, size) for size in sizes]
    if "" not in refusals:
        return {"family": family_of(row), "checks": {}, "plain": refusals[-1]}
    size = sizes[refusals.index("")]
    larger = (size[0], size[1] + 32, *size[2:])
    reductions = {str(f.get("reduction")) for f in getattr(model, "feature_info", None) or [] if isinstance(f, dict)}
    known = {"input": size, "levels": len(reductions)}
    network = Network(row, family_of(row), lambda: build(row)[0], lambda s: torch.randn(2, *(size, larger)[s]))
    return checks.examine(network, steps, lambda part: send((part[0], part[1] | known))) | known


def main() -> None:
    parser = options(__doc__, "zoo.json", 400)
    parser.add_argument("--onnx", action="store_true", help="also export the networks that pass, and run them in ONNX")
    args = parser.parse_args()
    results = kept(args.out)
    rows = results["rows"]
    todo: list[Job] = []
    for row in filter(lambda row: chosen(row, args), listed()):
        known = rows.get(row)
        if due(known, args):
            todo.append((row, () if args.recount else STEPS[:2]))
        elif args.onnx and known is not None and passed(known) and "onnx" not in known["checks"]:
            todo.append((row, STEPS[2:]))

    def merge(row: str, record: dict[str, Any], source: str) -> None:
        known = rows.get(row)
        if known is not None and (row, STEPS[2:]) in todo:
            known["checks"]["onnx"] = record["checks"].get("onnx") or str(record["checks"])
            known["onnx_source"] = source
        else:
            rows[row] = record | {"source": source}

    if todo:
        load(("timm", "torchvision", "segmentation_models_pytorch", "monai.networks.nets", "onnxruntime"))
    run(todo, examine, results, args, merge)
    write_page(ROOT)


if __name__ == "__main__":
    main()
