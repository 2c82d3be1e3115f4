"""python benchmarks/versions.py OLD_SRC NEW_SRC [--rounds 7] [--out FILE]      about two minutes on two cores

Two checkouts side by side, such as a worktree of the last release and this one: a process for each, which take turns
case by case. OLD_SRC and NEW_SRC are their `src` folders. A ratio above 1 means that the new one is faster; both the
ratio of the fastest turns and that of the medians are given, because other work disturbs either. With the same folder
twice, the result is the noise of the machine.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from anystride.lab.record import provenance, write

WORKER = r"""
import json, sys, time
sys.path.insert(0, sys.argv[1])
import torch
from torch import nn
import anystride

LEARNED = (anystride.DiffStride1d, anystride.DiffStride2d, anystride.DiffStride3d)
SPECTRAL = (anystride.SpectralPool1d, anystride.SpectralPool2d, anystride.SpectralPool3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

def prepare(kind, shape, layout, step, kernel):
    torch.manual_seed(0)
    axes, x = len(shape) - 2, torch.randn(shape)
    x = x.to(memory_format=torch.channels_last) if layout == "channels last" else x
    pool = SPECTRAL[axes - 1](stride=2.0) if kind == "spectral" else LEARNED[axes - 1](2.0, ramp=kind)
    more = {}
    if kernel:
        channels = shape[1], min(2 * shape[1], 256)
        more["convolution"] = CONVOLUTIONS[axes - 1](*channels, kernel, padding=kernel // 2, bias=False)
    if step == "inference":
        def run():
            with torch.no_grad():
                pool(x, **more)
        return run
    x.requires_grad_()
    turns = [0]
    def run():
        if kind != "spectral":  # a stride moves before each step
            turns[0] += 1
            with torch.no_grad():
                pool.stride.add_(1e-5 if turns[0] % 2 else -1e-5)
        y = pool(x, **more)
        y.backward(torch.ones_like(y))
        x.grad = None
    return run

cases = {}
for line in sys.stdin:
    *case, repeats = json.loads(line)
    key = json.dumps(case)
    if key not in cases:
        cases.clear()
        cases[key] = prepare(*case)
        for _ in range(3):
            cases[key]()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        cases[key]()
        times.append(time.perf_counter() - started)
    print(json.dumps(sorted(times)[len(times) // 2]), flush=True)
"""

MAPS = {
    "image stem": (8, 64, 112, 112),
    "image 56": (8, 64, 56, 56),
    "image 28": (8, 128, 28, 28),
    "image 14": (8, 256, 14, 14),
    "CIFAR 32": (32, 64, 32, 32),
    "CIFAR 8": (32, 256, 8, 8),
    "tiny": (2, 4, 8, 8),
    "series": (8, 64, 2000),
    "waveform": (4, 1, 16000),
    "volume": (2, 16, 16, 32, 32),
    "spectrogram": (16, 16, 101, 64),
}
WITH_CONVOLUTION = [name for name in MAPS if name not in ("image stem", "tiny", "waveform")]


def cases() -> list[tuple[Any, ...]]:
    """Kind, map, layout, step, and the size of the kernel of a convolution before the operator, 0 for none."""
    found: list[tuple[Any, ...]] = []
    for name, shape in MAPS.items():
        layouts = ("contiguous", "channels last") if len(shape) == 4 else ("contiguous",)
        for kind in ("outer", "inner", "spectral"):
            found += [(kind, name, layout, step, 0) for layout in layouts for step in ("training", "inference")]
    for name in WITH_CONVOLUTION:
        for kind in ("outer", "inner"):
            found += [(kind, name, "contiguous", step, k) for k in (1, 3) for step in ("training", "inference")]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for source in (options.old, options.new)
    ]

    def ask(worker: Any, case: tuple[Any, ...], repeats: int) -> float:
        kind, name, *rest = case
        worker.stdin.write(json.dumps([kind, MAPS[name], *rest, repeats]) + "\n")
        worker.stdin.flush()
        return float(json.loads(worker.stdout.readline()))

    rows = []
    for case in cases():
        first = [ask(worker, case, 3) for worker in workers]
        repeats = max(2, min(50, int(0.02 / max(min(first), 1e-6))))
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(options.rounds):
            for which in (0, 1) if turn % 2 else (1, 0):
                times[which].append(ask(workers[which], case, repeats))
        fastest = min(times[0]) / min(times[1])
        medians = statistics.median(times[0]) / statistics.median(times[1])
        rows.append({"case": case, "fastest": fastest, "medians": medians, "old_seconds": min(times[0])})
        if max(fastest, medians) < 0.97:
            print(f"slower: {fastest:.3f} (fastest), {medians:.3f} (medians)  {case}", flush=True)
    means = [math.exp(statistics.fmean(math.log(row[key]) for row in rows)) for key in ("fastest", "medians")]
    print(f"{len(rows)} cases, old over new: geometric mean {means[0]:.3f} (fastest turns), {means[1]:.3f} (medians)")
    if options.out:
        write({"command": " ".join(["python", *sys.argv]), **provenance(), "means": means, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
