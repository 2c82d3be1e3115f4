"""python benchmarks/cost.py [--networks NAME ...] [--ramps cosine inner] [--rounds 15] [--out FILE]
about 20 minutes on two cores; FILE is results/performance/cost-cpu.json

What a network costs once it is converted, beside the network that it was, at equal map sizes: multiply-accumulates, a
training step and its peak memory, and ONNX Runtime once it is frozen. Strided, converted and frozen ones run in turn.
"""

import argparse
import copy
import functools
import io
import json
import math
import statistics
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import timm
import torch
from torch import nn

from anystride import convert_, freeze_, macs
from anystride.lab.bench.steps import Trainee
from anystride.lab.bench.timing import Contestant, in_turn, peak_bytes
from anystride.lab.record import provenance, write

TIMM = (
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv2_100",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "convnext_atto",
    "regnety_002",
    "densenet121",
)
AUDIO = "m5"
CPU = torch.device("cpu")
BATCHES = (1, 8)


def m5() -> nn.Module:
    """A network for raw audio at 16 kHz: a strided stem of 80 samples and three poolings by 4."""
    layers: list[nn.Module] = [nn.Conv1d(1, 64, 80, stride=4), nn.BatchNorm1d(64), nn.ReLU(), nn.MaxPool1d(4)]
    for before, after in ((64, 64), (64, 128), (128, 256)):
        layers += [nn.Conv1d(before, after, 3), nn.BatchNorm1d(after), nn.ReLU(), nn.MaxPool1d(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(256, 35))


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return m5() if name == AUDIO else timm.create_model(name)


def example(name: str, batch: int) -> torch.Tensor:
    return torch.randn(batch, 1, 16000) if name == AUDIO else torch.randn(batch, 3, 224, 224)


def session(model: nn.Module, x: torch.Tensor) -> onnxruntime.InferenceSession:
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (x,), file, dynamo=False, opset_version=17, input_names=["x"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


def held(model: nn.Module) -> int:
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def measure(name: str, ramps: list[str], rounds: int) -> dict[str, Any]:
    models = {"strided": build(name)}
    for ramp in ramps:
        models[ramp] = build(name)
        convert_(models[ramp], example(name, 1), ramp=ramp)
    base = int(macs(models["strided"], example(name, 1)))
    row: dict[str, Any] = {"name": name, "macs": base}
    found: dict[str, dict[str, Any]] = {ramp: {} for ramp in ramps}
    for ramp in ramps:
        found[ramp]["macs"] = int(macs(models[ramp], example(name, 1)).detach()) / base
    frozen = {kind: copy.deepcopy(model).eval() for kind, model in models.items()}
    for ramp in ramps:
        freeze_(frozen[ramp], example(name, 1))
        found[ramp]["held"] = held(frozen[ramp]) / held(frozen["strided"])
    for batch in BATCHES:
        x = example(name, batch)
        sessions = {kind: session(model, x) for kind, model in frozen.items()}
        feeds = {"x": x.numpy()}
        with torch.no_grad():
            for ramp in ramps:  # what is timed is what was learned
                expected, got = models[ramp].eval()(x), torch.from_numpy(sessions[ramp].run(None, feeds)[0])
                found[ramp]["error"] = float((expected - got).abs().max() / expected.abs().max())
                models[ramp].train()
        runs = {kind: Contestant(functools.partial(each.run, None, feeds)) for kind, each in sessions.items()}
        times = in_turn(runs, rounds if batch == 1 else max(5, rounds // 2), CPU)
        row[f"onnx_{batch}_ms"] = 1000 * times["strided"].median
        for ramp in ramps:
            found[ramp][f"onnx_{batch}"] = times[ramp].median / times["strided"].median
    trainees = {kind: Trainee(model, example(name, 8)) for kind, model in models.items()}
    times = in_turn({kind: t.training for kind, t in trainees.items()}, max(3, rounds // 4), CPU)
    peaks = {kind: peak_bytes(t.training, CPU, t.held) for kind, t in trainees.items()}
    row["training_ms"], row["peak_bytes"] = 1000 * times["strided"].median, peaks["strided"]
    for ramp in ramps:
        found[ramp]["training"] = times[ramp].median / times["strided"].median
        found[ramp]["memory"] = peaks[ramp] / peaks["strided"]
    return {**row, "ramps": found}


def means(rows: list[dict[str, Any]], ramps: list[str]) -> dict[str, Any]:
    """Geometric means over the networks, and the largest of each ratio."""
    result: dict[str, Any] = {}
    for ramp in ramps:
        kinds = rows[0]["ramps"][ramp].keys() - {"error"}
        values = {kind: [row["ramps"][ramp][kind] for row in rows] for kind in sorted(kinds)}
        result[ramp] = {
            kind: {"mean": math.exp(statistics.fmean(map(math.log, each))), "largest": max(each)}
            for kind, each in values.items()
        }
    return result


def table(record: dict[str, Any], ramp: str) -> str:
    """The record as a table in Markdown: ratios over the strided network."""
    kinds = {
        "macs": "multiply-accumulates",
        "onnx_1": "ONNX Runtime, batch 1",
        "onnx_8": "batch 8",
        "training": "training step",
        "memory": "its memory",
        "held": "held when frozen",
    }
    lines = [f"| network | {' | '.join(kinds.values())} |", f"|---|{'---|' * len(kinds)}"]
    means = {kind: record["means"][ramp][kind]["mean"] for kind in kinds}
    rows = [(row["name"], row["ramps"][ramp]) for row in record["networks"]]
    for name, ratios in [*rows, ("**geometric mean**", means)]:
        cells = " | ".join(f"{ratios[kind]:.2f}" for kind in kinds)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def picture(record: dict[str, Any], path: Path) -> None:
    """What a frozen network takes in ONNX Runtime beside the strided one, by network and ramp."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [row["name"].replace("_100", "") for row in record["networks"]]
    ramps = {"inner": ("linear ramp", "#009E73"), "cosine": ("raised cosine", "#D55E00")}
    figure, panel = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    for number, (ramp, (title, colour)) in enumerate(ramps.items()):
        ratios = [row["ramps"][ramp]["onnx_1"] for row in record["networks"]]
        places = [place + 0.38 * (number - 0.5) for place in range(len(names))]
        bars = panel.bar(places, [min(r, 5) for r in ratios], 0.36, color=colour, label=title)
        panel.bar_label(bars, [f"{r:.1f}" for r in ratios], fontsize=8)
    panel.axhline(1, color="#444444", linewidth=1)
    panel.set_xticks(range(len(names)), names, rotation=25, ha="right")
    panel.set_ylim(0, 5.6)
    panel.set_ylabel("times the strided network")
    panel.set_title("Frozen, in ONNX Runtime on two CPU cores, batch 1, equal map sizes (bars end at 5)", fontsize=10)
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[*TIMM, AUDIO])
    parser.add_argument("--ramps", nargs="+", default=["cosine", "inner"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("results/performance/cost-cpu.json"))
    parser.add_argument("--resume", action="store_true", help="keep the networks that the record has")
    parser.add_argument("--page", action="store_true", help="print the record as a table and draw it, measure nothing")
    options = parser.parse_args()
    if options.page:
        record = json.loads(options.out.read_text())
        print(table(record, "cosine"))
        picture(record, options.out.with_suffix(".png"))
        return
    rows = json.loads(options.out.read_text())["networks"] if options.out.exists() and options.resume else []
    for name in options.networks:
        if name in [row["name"] for row in rows]:
            continue
        rows.append({**measure(name, options.ramps, options.rounds), "commit": provenance()["commit"]})
        print(
            name,
            {ramp: {k: round(v, 2) for k, v in each.items()} for ramp, each in rows[-1]["ramps"].items()},
            flush=True,
        )
        command = f"python benchmarks/cost.py --rounds {options.rounds} --ramps {' '.join(options.ramps)}"
        record = {"command": command, **provenance(), "networks": rows, "means": means(rows, options.ramps)}
        write(record, options.out)
    for ramp, each in means(rows, options.ramps).items():
        print(ramp, {kind: {k: round(v, 3) for k, v in both.items()} for kind, both in each.items()})


if __name__ == "__main__":
    main()
