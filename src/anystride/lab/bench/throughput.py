"""Images per second of the training step of Table 3 (CIFAR), and the hours of its runs at that rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from anystride import macs
from anystride.lab.bench.base import Bench, Setup
from anystride.lab.bench.record import BenchRecord
from anystride.lab.bench.sheet import Sheet, factor, millions, milliseconds
from anystride.lab.bench.steps import Trainee, sgd
from anystride.lab.bench.timing import in_turn
from anystride.lab.models.network import in_fast_layout
from anystride.lab.paper.datasets import dataset_facts
from anystride.lab.paper.plan import build_network
from anystride.lab.paper.recipe import METHODS, TITLES
from anystride.lab.paper.table3 import RECIPE, STARTS
from anystride.lab.run.config import RunConfig

DATA = "cifar10"
SEEDS = 3
CPU_BATCH = 32
PAPER = ("strided", "spectral", "outer")
"""The methods of the paper's table: with all starts and seeds its 54 runs per data set."""


def run_of(method: str) -> RunConfig:
    """The first run of a method in the recipe, from the usual strides."""
    return next(run for run in RECIPE.grid(DATA).runs if run.method == method)


def measure(setup: Setup) -> dict[str, Any]:
    """Measure all methods in turn, at the first start of the table."""
    runs = {method: run_of(method) for method in METHODS}
    recipe = runs["strided"]
    batch = 2 if setup.quick else CPU_BATCH if setup.on_cpu else recipe.batch_size
    width = 2 if setup.quick else recipe.width
    known = dataset_facts(DATA, recipe)
    labels = torch.randint(known.classes, (batch,), device=setup.device)
    images = torch.randn(batch, *known.shape, device=setup.device)
    trainees, costs = {}, {}
    for number, (method, run) in enumerate(runs.items()):
        setup.announce(number, len(runs) + 1, TITLES[method])
        network, shape = build_network(replace(run, width=width))
        costs[method] = int(macs(network, torch.empty(1, *shape)).item())
        network = in_fast_layout(network).to(setup.device)
        optimiser = sgd(network, run.weight_decay)
        trainees[method] = Trainee(network, images, optimiser, lambda logits: cross_entropy(logits, labels))
    setup.announce(len(runs), len(runs) + 1, "all in turn")
    times = in_turn({method: each.training for method, each in trainees.items()}, setup.repeats, setup.device)
    seen = recipe.epochs * known.train * len(STARTS) * SEEDS
    rows = []
    for method, spread in times.items():
        rate = batch / spread.median
        row = {"method": method, **spread.to_json(), "macs": costs[method], "images_per_second": rate}
        rows.append({**row, "ratio": spread.median / times["strided"].median, "hours": seen / rate / 3600})
    settings = {
        "width": width,
        "batch_size": batch,
        "batch_size_of_the_recipe": recipe.batch_size,
        "strides": [list(pair) for pair in recipe.strides],
        "step": "forward, backward and a step of SGD with momentum and weight decay; strides move before each",
        "layout": "channels last, as trained",
        "epochs": recipe.epochs,
        "training_images": known.train,
        "runs_per_method": len(STARTS) * SEEDS,
    }
    return {
        "settings": settings,
        "rows": rows,
        "hours_of_the_paper": sum(r["hours"] for r in rows if r["method"] in PAPER),
    }


def sheets(record: BenchRecord) -> list[Sheet]:
    """Rates and hours."""
    settings = record.settings
    cells = tuple(
        (
            TITLES[row["method"]],
            milliseconds(row["seconds"]),
            factor(row["images_per_second"]),
            factor(row["ratio"]),
            millions(row["macs"]),
            factor(row["hours"]),
        )
        for row in record.rows
    )
    runs = settings["runs_per_method"]
    notes = [
        f"Hours: {runs} runs of {settings['epochs']} epochs of {settings['training_images']:,} images (six starts, "
        "three seeds), all at the rate of the first start, without loading and evaluation. The paper's "
        f"{len(PAPER) * runs} runs per data set, three methods: {factor(record.found['hours_of_the_paper'])} hours."
    ]
    if settings["batch_size"] != settings["batch_size_of_the_recipe"]:
        notes.append(f"Batch {settings['batch_size']} instead of the recipe's {settings['batch_size_of_the_recipe']}.")
    title = f"Training step of Table 3, ResNet-18, width {settings['width']}, batch {settings['batch_size']}"
    columns = ("downsampler", "step, ms", "images/s", "time of strided", "MMAC, forward", f"hours, {runs} runs")
    return [Sheet(title, columns, cells, notes=tuple(notes))]


BENCH = Bench("throughput", measure, sheets, {"cpu": 10, "cuda": 50})
