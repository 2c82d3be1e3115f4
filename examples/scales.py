# python examples/scales.py  (about ten minutes on two CPU cores; --quick: one, to see it run)
"""Small and large digits, seen at one scale, at three fixed ones and at three learned ones, at equal costs."""

import statistics

import torch
from torch import nn
from torch.nn import functional as F

import anystride
from anystride.lab.data.scenes import make_scenes
from anystride.lab.record import run_example

WIDTH = 8
START = 1.0, 2.0, 4.0
SCALES = 1, 2


def conv(channels, width):
    """A convolution with its norm."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def stage(channels, width, scales):
    """Two convolutions: at one scale, or at several beside each other."""
    if scales is None:
        return nn.Sequential(conv(channels, width), conv(width, width))
    branches = [nn.Sequential(conv(channels, width), conv(width, width)) for _ in scales]
    return anystride.ParallelScales2d(branches, scales, combine="concatenate", smoothness=1.0)


def network(width, scales):
    """Two stages, between which the resolution is halved, and a linear classifier."""
    wide = width * len(scales or (1,))
    shrink = anystride.SpectralPool2d(2.0)
    stages = [stage(1, width, scales), shrink, stage(wide, width, scales)]
    return nn.Sequential(*stages, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(wide, 10))


def one_scale(limit, example):
    """The widest network of one scale that costs at most `limit`."""
    width = WIDTH
    while anystride.macs(network(width + 1, None), example).item() <= limit:
        width += 1
    return network(width, None)


def train(model, scenes, epochs, limit=None, batch=64, lr=0.1):
    """The usual loop. With a limit strides start and end just within it, and rest in the second half."""
    example = scenes.images[:1]
    groups = anystride.param_groups(model, lr=lr, weight_decay=5e-4)
    optimiser = torch.optim.SGD(groups, momentum=0.9)
    steps = epochs * (len(scenes.images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [group["lr"] for group in groups], total_steps=steps)
    budget = None if limit is None else anystride.Budget(limit)
    model.train()
    for epoch in range(epochs):
        if budget is not None and epoch in (0, epochs // 2):
            anystride.fit_macs_(model, example, limit)
        if limit is None or epoch == epochs // 2:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not name.endswith("stride"))
            budget = None
        for chosen in torch.randperm(len(scenes.images)).split(batch)[: len(scenes.images) // batch]:
            loss = F.cross_entropy(model(scenes.images[chosen]), scenes.labels[chosen])
            if budget is not None:
                loss = loss + budget(anystride.macs(model, example))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


@torch.no_grad()
def measured(model, scenes):
    """Accuracy on small and on large digits, costs, and strides."""
    model.eval()
    right = torch.cat([model(images) for images in scenes.images.split(250)]).argmax(dim=1) == scenes.labels
    found = {"accuracy": right.float().mean().item()}
    found |= {f"accuracy x{scale}": right[scenes.scales == scale].float().mean().item() for scale in SCALES}
    strides = {name: stride.tolist() for name, stride in anystride.learned_strides(model).items()}
    return found | {"multiply_accumulates": anystride.macs(model, scenes.images[:1]).item(), "strides": strides}


def main(quick=False, seeds=3):
    """Train each kind with each seed."""
    rows = {"one scale": [], "three scales, fixed": [], "three scales, learned": []}
    for seed in range(1 if quick else seeds):
        train_scenes = make_scenes("train", 640 if quick else 6000, seed, SCALES)
        test_scenes = make_scenes("test", 200 if quick else 2000, seed, SCALES)
        example = test_scenes.images[:1]
        limit = anystride.macs(network(WIDTH, START), example).item()
        for kind, found in rows.items():
            torch.manual_seed(seed)
            model = one_scale(limit, example) if kind == "one scale" else network(WIDTH, START)
            train(model, train_scenes, 4 if quick else 20, limit if kind.endswith("learned") else None)
            found.append(measured(model, test_scenes))
            accuracy, costs = found[-1]["accuracy"], found[-1]["multiply_accumulates"]
            print(f"seed {seed}  {kind:22}{100 * accuracy:6.1f} %{costs / 1e6:8.2f} MMAC")
    print(f"\n{'':22}  accuracy, mean and sd   MMAC per scene")
    for kind, found in rows.items():
        values = [100 * each["accuracy"] for each in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{kind:22}{statistics.fmean(values):13.1f} ± {spread:.1f}{found[0]['multiply_accumulates'] / 1e6:17.2f}")
    return rows


if __name__ == "__main__":
    run_example(lambda quick: {"rows": main(quick)}, __file__, __doc__)
