"""How near to a limit `fit_macs_` ends, and how long it takes: networks of timm, and the lab's ResNet-18 on small maps.

python benchmarks/fitting.py --record results/fitting.json
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

import anystride
from anystride.lab.models import registry
from anystride.lab.models.spec import NetworkSpec
from anystride.lab.record import provenance, write

NAMES = (
    "resnet18", "mobilenetv3_small_050", "efficientnet_b0", "hrnet_w18_small", "densenet121", "convnext_atto",
    "regnetx_002",
)  # fmt: skip
RAMPS = ("cosine", "inner")
SIDE, SHARES = 96, (0.6, 1.0)
STARTS = ((2.0, 2.0, 2.0), (1.7, 2.2, 2.5), (1.2, 1.5, 1.1))
LIMITS = (4.0e6, 4.5e6, 5.28e6, 7.04e6, 8.87e6, 15.16e6, 21.46e6, 27.75e6)


def cases() -> Iterator[tuple[str, nn.Module, Tensor, float]]:
    """Name, network, example and limit."""
    for name in NAMES:
        for ramp in RAMPS:
            for share in SHARES:
                torch.manual_seed(0)
                model, x = timm.create_model(name, num_classes=10).eval(), torch.randn(1, 3, SIDE, SIDE)
                before = anystride.macs(model, x).item()
                anystride.convert_(model, x, ramp=ramp)
                yield f"{name}, {ramp}, {share:g} of what it cost before conversion", model, x, share * before
    for ramp in RAMPS:
        for start in STARTS:
            for limit in LIMITS:
                strides = [(stride, 1.1 * stride) for stride in start]
                model = registry.build("resnet18", NetworkSpec(10, width=8, method=ramp, strides=strides))
                yield f"ResNet-18 of width 8 on 32x32, {ramp}, from {start}", model, torch.randn(1, 3, 32, 32), limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name, model, x, limit in cases():
        started = time.perf_counter()
        got = anystride.fit_macs_(model, x, limit)
        row = {"case": name, "limit": limit, "macs": got, "below": 1 - got / limit}
        rows.append({**row, "seconds": time.perf_counter() - started})
        print(
            f"{name}: {100 * row['below']:.1f} % below {limit / 1e6:.2f} MMAC, {rows[-1]['seconds']:.1f} s", flush=True
        )
    below = sorted(row["below"] for row in rows)
    near = sum(0 <= each <= 0.02 for each in below)
    print(f"{near} of {len(rows)} within 2 %, the furthest {100 * below[-1]:.1f} % below, none above: {below[0] >= 0}")
    if options.record:
        write({"schema": 1, "command": sys.argv, **provenance(), "rows": rows}, options.record)


if __name__ == "__main__":
    main()
