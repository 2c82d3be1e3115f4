"""How often a network says the same class of two shifts of an image: what a low-pass before subsampling is known for.

    python benchmarks/shifts.py --runs runs/paper --record results/real/shifts.json

For the trained networks of `anystride paper pareto --data cifar10-jpeg` under --runs, those of `--precision 32-true`
included. Each test image is shifted twice, by up to an eighth of its side along both axes, with zeros where nothing
was. All networks see the same shifts.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

import anystride.lab
from anystride.lab.data.augment import random_crop
from anystride.lab.data.catalogue import open_source
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.grid import run_folder
from anystride.lab.record import provenance, write
from anystride.lab.run.folder import readable
from anystride.lab.trained import Trained

DATA = "cifar10-jpeg"
SEED = 0
DEAREST = 30e6
"""Multiply-accumulates; no budget of the page is higher."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--root", type=Path, help="folder of the data sets")
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    found: dict[str, float] = {}
    if options.record.exists():  # goes on where it stopped
        found = json.loads(options.record.read_text())["consistency"]
    for cell in RECIPES["pareto"].grid(DATA).cells:
        for config in (twin for run in cell.runs for twin in (run, replace(run, precision="32-true"))):
            folder = run_folder(options.runs, config)
            record = readable(config, folder)
            if record and record.multiply_accumulates <= DEAREST and config.key not in found:
                found[config.key] = consistency(anystride.lab.load(folder), options.root)
                print(f"{config.key}: {100 * found[config.key]:.1f} %", flush=True)
    command = ["benchmarks/shifts.py", "--runs", "runs/paper"]
    write({"schema": 1, "command": command, "seed": SEED, **provenance(), "consistency": found}, options.record)


def consistency(trained: Trained, root: Path | None) -> float:
    """The share of test images of whose two shifts the network says the same class."""
    source = open_source(trained.config, root)
    generator = torch.Generator().manual_seed(SEED)
    same = 0
    for rows in torch.arange(source.test_length).split(500):
        images = source.test_batch(rows)[0]
        padding = images.shape[-1] // 8
        first, second = (trained.logits(random_crop(images, padding, generator)).argmax(1) for _ in range(2))
        same += int((first == second).sum())
    return same / source.test_length


if __name__ == "__main__":
    main()
