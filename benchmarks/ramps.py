"""python benchmarks/ramps.py FOLDER [--images 12500] [--epochs 4] [--seeds 3] [--out results/ramps.json]
about 40 minutes on one core; finished runs in the file are kept

Accuracy by downsampler on real images: ResNet-18 of width 8 (maps 32, 16, 8, 4) from scratch on the images in
FOLDER/train/CLASS and FOLDER/test/CLASS, 32x32, strides starting at 2 and learned. All runs of a seed see the same
images in the same order.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as images

from anystride import DiffStride2d, learned_strides, macs, param_groups
from anystride.lab.models.registry import build
from anystride.lab.models.spec import NetworkSpec
from anystride.lab.record import provenance, write

BATCH = 128
COSINES = {"cosine": {}, "cosine, b = 0.5": {"rolloff": 0.5}, "cosine, b = 1": {"rolloff": 1.0}}
METHODS = ("strided", "spectral", "inner", *COSINES, "cosine, replicated")


def load(folder: Path, limit: int) -> tuple[Tensor, Tensor]:
    """All images as (N, 3, 32, 32) in bytes, or `limit` of them spread over the classes, and their classes."""
    found = ImageFolder(str(folder))
    step = max(1, len(found) // limit)
    chosen = range(0, len(found), step)
    maps = torch.stack([images.pil_to_tensor(found[n][0]) for n in chosen])
    return maps, torch.tensor([found.targets[n] for n in chosen])


def network(method: str, classes: int) -> nn.Module:
    kind = method.partition(",")[0]
    model = build("resnet18", NetworkSpec([classes], width=8, method=kind, strides=(2, 2, 2)))
    more: dict[str, Any] = {"padding_mode": "replicate"} if "replicated" in method else COSINES.get(method, {})
    if more:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, DiffStride2d):
                    setattr(module, name, DiffStride2d(2.0, ramp="cosine", **more))
    return model


def normalized(maps: Tensor) -> Tensor:
    return (maps.float() - 121.0) / 64.0


def run(
    method: str, seed: int, epochs: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> dict[str, Any]:
    torch.manual_seed(seed)
    maps, labels = train
    model = network(method, int(labels.max()) + 1)
    draw, started = torch.Generator().manual_seed(seed), time.perf_counter()
    optimiser = torch.optim.SGD(param_groups(model, lr=0.1, weight_decay=5e-4), lr=0.1, momentum=0.9, nesterov=True)
    steps = epochs * (len(maps) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [0.2] * len(optimiser.param_groups), total_steps=steps)
    padded = F.pad(maps, (4, 4, 4, 4))
    for _ in range(epochs):
        order = torch.randperm(len(maps), generator=draw)
        for batch in order[: len(maps) // BATCH * BATCH].split(BATCH):
            top, left, turn = torch.randint(0, 9, (3,), generator=draw).tolist()
            x = normalized(padded[batch, :, top : top + 32, left : left + 32])
            loss = F.cross_entropy(logits(model, x.flip(3) if turn % 2 else x), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = sum(
            int((logits(model, normalized(x)).argmax(1) == y).sum())
            for x, y in zip(test[0].split(500), test[1].split(500), strict=True)
        )
        cost = int(macs(model, torch.zeros(1, 3, 32, 32)))
    return {
        "method": method,
        "seed": seed,
        "accuracy": right / len(test[1]),
        "strides": [stride.tolist() for stride in learned_strides(model).values()],
        "macs": cost,
        "seconds": round(time.perf_counter() - started),
    }


def logits(model: nn.Module, x: Tensor) -> Tensor:
    y = model(x)
    found: Tensor = y if isinstance(y, Tensor) else next(iter(y.values() if isinstance(y, dict) else y))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=12500)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--data", default="CIFAR-10 (JPEG)", help="what the images are, for the record")
    parser.add_argument("--out", type=Path, default=Path("results/ramps.json"))
    options = parser.parse_args()
    runs = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    done = {(each["method"], each["seed"]) for each in runs}
    train, test = load(options.folder / "train", options.images), load(options.folder / "test", 10**6)
    settings = {"data": options.data, "images": len(train[1]), "test": len(test[1]), "epochs": options.epochs}
    command = f"python benchmarks/ramps.py FOLDER --images {options.images} --epochs {options.epochs}"
    for seed in range(options.seeds):
        for method in options.methods:
            if (method, seed) in done:
                continue
            runs.append(run(method, seed, options.epochs, train, test))
            print(runs[-1], flush=True)
            write({"command": command, **provenance(), **settings, "runs": runs, "means": means(runs)}, options.out)


def means(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and spread of the accuracies, and the mean cost, by method."""
    found: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(each["method"] for each in runs):
        mine = [each for each in runs if each["method"] == method]
        accuracies = [each["accuracy"] for each in mine]
        found[method] = {
            "accuracy": statistics.fmean(accuracies),
            "deviation": statistics.stdev(accuracies) if len(mine) > 1 else 0.0,
            "macs": statistics.fmean(each["macs"] for each in mine),
            "runs": len(mine),
        }
    return found


if __name__ == "__main__":
    main()
