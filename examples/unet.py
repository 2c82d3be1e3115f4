# python examples/unet.py  (about ten minutes on two CPU cores; --quick: one, to see it run)
"""A small U-Net finds the pixels of the one whole digit: learned strides and the way back up, at equal costs."""

import statistics

import torch
from torch import nn
from torch.nn import functional as F

import anystride
from anystride.lab.data.scenes import make_scenes
from anystride.lab.record import run_example

WIDTHS = 8, 16, 32
RARE = torch.tensor(4.0)  # pixels of the digit are few: each counts as much as four others


def block(channels, width):
    """Two convolutions."""
    layers = []
    for given in (channels, width):
        layers += [nn.Conv2d(given, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class Blur(nn.Module):
    """A binomial filter at stride 2 (Zhang, 2019)."""

    def __init__(self, channels):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("weight", (row[:, None] * row).expand(channels, 1, 3, 3).clone())

    def forward(self, x):
        """(N, C, H, W) to (N, C, H / 2, W / 2), rounded up."""
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.weight, stride=2, groups=x.shape[1])


class Bilinear(nn.Module):
    """Interpolation to the size of a map."""

    def forward(self, x, like):
        """(N, C, h, w) to (N, C, H, W)."""
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def learned(channels):
    """A learned stride, and the way back through its window."""
    pool = anystride.DiffStride2d(2.0, ramp="inner", smoothness=1.0)
    return pool, anystride.SpectralUpsample2d(follows=pool)


DOWN_AND_UP = {
    "strided": lambda channels: (nn.Conv2d(channels, channels, 3, 2, 1), Bilinear()),
    "max pooling": lambda channels: (nn.MaxPool2d(2), Bilinear()),
    "blur pooling": lambda channels: (Blur(channels), Bilinear()),
    "spectral pooling": lambda channels: (anystride.SpectralPool2d(2.0), anystride.SpectralUpsample2d()),
    "learned": learned,
}


class UNet(nn.Module):
    """Down twice and up twice, with skip connections.

    Args:
        kind: of the layers that change the size, a key of `DOWN_AND_UP`.
    """

    def __init__(self, kind):
        super().__init__()
        a, b, c = WIDTHS
        self.encode1, self.encode2, self.middle = block(1, a), block(a, b), block(b, c)
        (self.down1, self.up1), (self.down2, self.up2) = DOWN_AND_UP[kind](a), DOWN_AND_UP[kind](b)
        self.decode2, self.decode1 = block(c + b, b), block(b + a, a)
        self.head = nn.Conv2d(a, 1, 1)

    def forward(self, x):
        """(N, 1, H, W) to logits of the same shape."""
        fine = self.encode1(x)
        coarse = self.encode2(self.down1(fine))
        y = self.middle(self.down2(coarse))
        y = self.decode2(torch.cat([self.up2(y, coarse), coarse], dim=1))
        return self.head(self.decode1(torch.cat([self.up1(y, fine), fine], dim=1)))


def train(model, scenes, epochs, limit=None, batch=64, lr=0.05):
    """The usual loop. With a limit strides start and end just within it, and rest in the second half."""
    example = scenes.images[:1]
    groups = anystride.param_groups(model, lr=lr, weight_decay=5e-4)
    optimiser = torch.optim.SGD(groups, momentum=0.9)
    steps = epochs * (len(scenes.images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [group["lr"] for group in groups], total_steps=steps)
    budget = None
    if limit is not None:
        anystride.fit_macs_(model, example, limit)
        budget = anystride.Budget(limit)
    model.train()
    for epoch in range(epochs):
        if budget is not None and epoch == epochs // 2:
            anystride.fit_macs_(model, example, limit)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not name.endswith("stride"))
            budget = None
        for chosen in torch.randperm(len(scenes.images)).split(batch)[: len(scenes.images) // batch]:
            masks = scenes.masks[chosen].float()
            loss = F.binary_cross_entropy_with_logits(model(scenes.images[chosen]), masks, pos_weight=RARE)
            if budget is not None:
                loss = loss + budget(anystride.macs(model, example))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


@torch.no_grad()
def overlap(model, scenes):
    """Intersection over union of the pixels found and the pixels of the digit, over all scenes together."""
    model.eval()
    found = torch.cat([model(images) > 0 for images in scenes.images.split(250)])
    return ((found & scenes.masks).sum() / (found | scenes.masks).sum()).item()


def main(quick=False, seeds=3):
    """Train each kind with each seed; returns overlaps, costs and strides."""
    rows = {kind: [] for kind in DOWN_AND_UP}
    for seed in range(1 if quick else seeds):
        train_scenes = make_scenes("train", 640 if quick else 4000, seed)
        test_scenes = make_scenes("test", 200 if quick else 1000, seed)
        example = test_scenes.images[:1]
        for kind, found in rows.items():
            torch.manual_seed(seed)
            model = UNet(kind)
            # What is learned may cost what the strided network costs.
            limit = found_costs(rows, seed) if kind == "learned" else None
            train(model, train_scenes, 6 if quick else 20, limit)
            strides = {name: stride.tolist() for name, stride in anystride.learned_strides(model).items()}
            costs = anystride.macs(model, example).item()
            found.append({"overlap": overlap(model, test_scenes), "multiply_accumulates": costs, "strides": strides})
            print(f"seed {seed}  {kind:18}{100 * found[-1]['overlap']:6.1f} %{costs / 1e6:8.2f} MMAC  {strides or ''}")
    print(f"\n{'':18}  overlap, mean and sd   MMAC per scene")
    for kind, found in rows.items():
        values = [100 * each["overlap"] for each in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{kind:18}{statistics.fmean(values):12.1f} ± {spread:.1f}{found[0]['multiply_accumulates'] / 1e6:17.2f}")
    return rows


def found_costs(rows, seed):
    """What the strided network of a seed costs."""
    return rows["strided"][seed]["multiply_accumulates"]


if __name__ == "__main__":
    run_example(lambda quick: {"rows": main(quick)}, __file__, __doc__)
