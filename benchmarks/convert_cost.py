"""python benchmarks/convert_cost.py [--out results/convert-cost.json]      about half a minute

Time and memory of `convert_` for ResNet-50 at 8 x 3 x 224 x 224, beside one forward pass of the same model. Each is
measured in a process of its own: the growth of the largest resident size over what model and input need. And the time
of `macs` for converted networks at 1 x 3 x 224 x 224, where sizes stand and where they have changed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import timm
import torch

from anystride import convert_, macs
from anystride.lab.record import provenance, write


def measure(what: str) -> dict[str, float]:
    """Seconds and growth of the peak of one call, in this process."""
    model, x = timm.create_model("resnet50").eval(), torch.randn(8, 3, 224, 224)
    with torch.no_grad():
        model(x[:1, :, :32, :32])  # the libraries' own first use
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if what == "convert":
        convert_(model, x)
    else:
        with torch.no_grad():
            model(x)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def counting(name: str, repeats: int = 5) -> dict[str, float]:
    """Median milliseconds of one call of `macs`, at sizes that it knows and at new ones."""
    model, x = timm.create_model(name), torch.randn(1, 3, 224, 224)
    convert_(model, x)
    times: dict[str, list[float]] = {"standing": [], "changed": []}
    macs(model, x)
    for repeat in range(repeats):
        for case, seconds in times.items():
            if case == "changed":
                with torch.no_grad():
                    model.maxpool.resample.pool.stride.fill_(2.1 + 0.1 * repeat)
            started = time.perf_counter()
            macs(model, x)
            seconds.append(time.perf_counter() - started)
    return {f"macs_{case}_ms": 1000 * statistics.median(seconds) for case, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/convert-cost.json"))
    parser.add_argument("--only", choices=("convert", "forward"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only)))
        return
    rows = {}
    for what in ("convert", "forward"):
        done = subprocess.run([sys.executable, __file__, "--only", what], capture_output=True, text=True, check=True)
        rows[what] = json.loads(done.stdout)
        print(f"{what}: {rows[what]['seconds']:.2f} s, peak grows by {rows[what]['peak_mib']:.0f} MiB")
    for name in ("resnet18", "resnet50"):
        rows[name] = counting(name)
        print(f"{name}: " + ", ".join(f"{what} {value:.2f}" for what, value in rows[name].items()))
    write({"command": "python benchmarks/convert_cost.py", **provenance(), "rows": rows}, options.out)


if __name__ == "__main__":
    main()
