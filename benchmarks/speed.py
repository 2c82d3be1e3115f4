"""python benchmarks/speed.py [--out results/speed-cpu.json]      about two minutes on two CPU cores

DiffStride forward plus backward with stride gradient, against the same layer written with torch.fft and against two
matrix products under plain autograd, in turn within one run; and the bytes that each keeps for the backward pass.
"""

import argparse
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from anystride.functional import diffstride
from anystride.window import band
from oracle import diffstride_rfft2

SIZES = [(64, 64, 32, 32), (32, 64, 56, 56), (16, 64, 112, 112), (64, 128, 16, 16), (16, 64, 100, 64)]


def differentiable_matrix(length: int, stride: Tensor, smoothness: float = 4.0) -> Tensor:
    """The h x L matrix built from the stride by operations that autograd can follow."""
    h = band(length, float(stride.detach()), smoothness).output_length
    k = torch.arange(h // 2 + 1, device=stride.device, dtype=torch.float32)
    gain = ((smoothness + length / (2 * stride) - k) / smoothness).clamp(0, 1)
    gain = gain * torch.where((k == 0) | (2 * k == h), 1.0, 2.0) / length
    turns = 2 * math.pi * k
    rows = turns * torch.arange(h, device=stride.device).unsqueeze(1) / h
    columns = turns.unsqueeze(1) * torch.arange(length, device=stride.device) / length
    return (rows.cos() * gain) @ columns.cos() + (rows.sin() * gain) @ columns.sin()


def two_products(x: Tensor, stride: Tensor) -> Tensor:
    rows, columns = (differentiable_matrix(n, s) for n, s in zip(x.shape[2:], stride.unbind(), strict=True))
    return torch.matmul(torch.matmul(rows, x), columns.t())


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "anystride": lambda x, stride: diffstride(x, stride),
    "anystride, inner": lambda x, stride: diffstride(x, stride, ramp="inner"),
    "two products, autograd": two_products,
    "torch.fft": lambda x, stride: diffstride_rfft2(x, stride),
}


def saved_bytes(method: Callable[[Tensor, Tensor], Tensor], x: Tensor, stride: Tensor) -> dict[str, int]:
    """Bytes kept for the backward pass: the output's own storage, and what is as large as the input or larger."""
    kept: dict[int, Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        out = method(x, stride)
    sizes = {key: t.untyped_storage().nbytes() for key, t in kept.items()}
    own = sizes.pop(out.untyped_storage().data_ptr(), 0)
    return {"total": own + sum(sizes.values()), "full_resolution": sum(n for n in sizes.values() if n >= x.nbytes)}


def seconds(method: Callable[[Tensor, Tensor], Tensor], x: Tensor, stride: Tensor, cotangent: Tensor) -> float:
    x.grad = stride.grad = None
    synchronise(x)
    start = time.perf_counter()
    method(x, stride).backward(cotangent)
    synchronise(x)
    return time.perf_counter() - start


def synchronise(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def measure(shape: tuple[int, ...], repeats: int, device: str, memory_format: torch.memory_format) -> dict[str, object]:
    torch.manual_seed(0)
    random.seed(0)
    x = torch.randn(shape, device=device).to(memory_format=memory_format).requires_grad_()
    strides = {name: torch.tensor([2.0, 2.0], device=device, requires_grad=True) for name in METHODS}
    cotangents = {name: torch.randn_like(method(x, strides[name])) for name, method in METHODS.items()}
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for repeat in range(repeats + 2):
        # In a new order each time: what one method leaves behind in the allocator, another finds.
        for name, method in random.sample(sorted(METHODS.items()), len(METHODS)):
            with torch.no_grad():  # strides move in training and matrices are built anew; sizes stay as they are
                strides[name].add_(1e-5 if "inner" in name else -1e-5)
            elapsed = seconds(method, x, strides[name], cotangents[name])
            if repeat >= 2:
                times[name].append(elapsed)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "shape": shape,
        "milliseconds": {name: 1e3 * value for name, value in median.items()},
        "faster_than_fft": {name: median["torch.fft"] / value for name, value in median.items()},
        "saved": {name: saved_bytes(method, x, strides[name]) for name, method in METHODS.items()},
        "input_bytes": x.nbytes,
    }


def hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The commit that was measured, marked where the core differs from it."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (" and changes" if git("status", "--porcelain", "src", "benchmarks") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--out", type=Path, help="write a JSON record there")
    arguments = parser.parse_args()
    memory_format = torch.channels_last if arguments.channels_last else torch.contiguous_format

    print(f"{hardware(arguments.device)}; torch {torch.__version__}; Python {platform.python_version()}")
    print("forward + backward with stride gradient, stride 2, float32; ratio = time of torch.fft / time of the method")
    print("kept = bytes saved for the backward pass / bytes of the input (of that: full-resolution)\n")
    rows = []
    for shape in SIZES:
        row = measure(shape, arguments.repeats, arguments.device, memory_format)
        rows.append(row)
        print(f"{shape}")
        for name in METHODS:
            kept = row["saved"][name]
            share, full = kept["total"] / row["input_bytes"], kept["full_resolution"] / row["input_bytes"]
            print(
                f"  {name:24s}{row['milliseconds'][name]:8.2f} ms  ratio {row['faster_than_fft'][name]:5.2f}"
                f"   kept {share:4.2f} ({full:4.2f})"
            )
    means = {name: statistics.geometric_mean(row["faster_than_fft"][name] for row in rows) for name in METHODS}
    print("\ngeometric mean of the ratios: " + ", ".join(f"{name} {value:.2f}" for name, value in means.items()))
    if arguments.out:
        record = {
            "command": "python " + " ".join(sys.argv),
            "commit": commit(),
            "seed": 0,
            "hardware": hardware(arguments.device),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "repeats": arguments.repeats,
            "rows": rows,
            "geometric_mean": means,
        }
        temporary = arguments.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        temporary.replace(arguments.out)


if __name__ == "__main__":
    main()
