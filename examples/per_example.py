# python examples/per_example.py  (about ten minutes on two CPU cores; --quick: one, to see it run)
"""Scenes of small and of large digits: a stride for each of them, against one learned for all, at equal mean costs."""

import math
import statistics

import torch
from torch import nn
from torch.nn import functional as F

import anystride
from anystride.lab.data.scenes import make_scenes
from anystride.lab.record import run_example

STEM, WIDTH = 8, 24
SCALES = 1, 2
MOST = 6.0
SHARE = 0.1
"""Of the positions of the map, what the body may work on: a stride of 3.2 for all, or what the examples need."""
START = SHARE**-0.5
SPREAD = 0.5


def block(channels, width):
    """Two convolutions."""
    layers = []
    for given in (channels, width):
        layers += [nn.Conv2d(given, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def body():
    """What works at the chosen resolution."""
    layers = [block(STEM, WIDTH), nn.MaxPool2d(2, ceil_mode=True), block(WIDTH, 2 * WIDTH)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * WIDTH, 10))


class Head(nn.Module):
    """One number per example, from a look at every fourth sample's surroundings.

    It ends in batch normalisation: its bias is the stride that all examples have in common, its weight how much they
    differ. Without it the budget, which pulls at all of them alike, soon leaves them all the same.
    """

    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(STEM, 8, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.decide, self.spread = nn.Linear(8, 1), nn.BatchNorm1d(1)
        start = math.log(START) / math.log(MOST)
        nn.init.constant_(self.spread.bias, math.log(start / (1 - start)))  # the strides start within the budget
        nn.init.constant_(self.spread.weight, SPREAD)

    def forward(self, x):
        """(N, C, H, W) to (N, 1)."""
        return self.spread(self.decide(self.look(x).amax(dim=(2, 3))))


class PerExample(nn.Module):
    """Stem, a stride per example, body."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, STEM, 3, padding=1, bias=False), nn.BatchNorm2d(STEM), nn.ReLU())
        self.rest = anystride.PerExampleStride2d(Head(), 1.0, MOST, smoothness=2.0, body=body())

    def forward(self, x):
        """Logits, and the stride of each example."""
        maps = self.stem(x)
        strides = self.rest.strides(maps)
        return self.rest(maps, strides), strides


class ForAll(nn.Module):
    """The same with one learned stride."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, STEM, 3, padding=1, bias=False), nn.BatchNorm2d(STEM), nn.ReLU())
        self.pool = anystride.DiffStride2d(START, smoothness=2.0, shared=True, ramp="inner")
        self.body = body()

    def forward(self, x):
        """Logits, and the stride, the same for each example."""
        return self.body(self.pool(self.stem(x))), self.pool.stride.expand(len(x), 1)


def train(model, scenes, epochs, batch=64, lr=0.05):
    """The usual loop; the mean share of positions is held by a budget."""
    groups = anystride.param_groups(model, lr=lr, weight_decay=5e-4)
    optimiser = torch.optim.SGD(groups, momentum=0.9)
    steps = epochs * (len(scenes.images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [group["lr"] for group in groups], total_steps=steps)
    budget = anystride.Budget(SHARE)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(scenes.images)).split(batch)[: len(scenes.images) // batch]:
            logits, strides = model(scenes.images[chosen])
            share = strides.square().reciprocal().mean()
            loss = F.cross_entropy(logits, scenes.labels[chosen]) + budget(share)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


@torch.no_grad()
def measured(model, scenes):
    """Accuracy, costs and strides on scenes, for small and for large digits."""
    model.eval()
    logits, strides = (torch.cat(parts) for parts in zip(*map(model, scenes.images.split(250)), strict=True))
    right = (logits.argmax(dim=1) == scenes.labels).float()
    # Costs follow from the size of the map that the body works on.
    samples = [anystride.macs(model, image).item() for image in scenes.images[:100].split(1)]
    found = {"accuracy": right.mean().item(), "multiply_accumulates": statistics.fmean(samples)}
    for scale in SCALES:
        of_scale = scenes.scales == scale
        found[f"accuracy x{scale}"], found[f"stride x{scale}"] = right[of_scale].mean(), strides[of_scale].mean()
    return {name: float(value) for name, value in found.items()}


def main(quick=False, seeds=3):
    """Train both with each seed."""
    rows = {"one for all": [], "per example": []}
    for seed in range(1 if quick else seeds):
        train_scenes = make_scenes("train", 640 if quick else 6000, seed, SCALES)
        test_scenes = make_scenes("test", 200 if quick else 2000, seed, SCALES)
        for name, make in (("one for all", ForAll), ("per example", PerExample)):
            torch.manual_seed(seed)
            model = make()
            train(model, train_scenes, 3 if quick else 20)
            found = measured(model, test_scenes)
            rows[name].append(found)
            print(f"seed {seed}  {name:12}", "  ".join(f"{key} {value:.4g}" for key, value in found.items()))
    return rows


if __name__ == "__main__":
    run_example(lambda quick: {"rows": main(quick)}, __file__, __doc__)
