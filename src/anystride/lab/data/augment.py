"""What is done to whole batches of images, (n, C, H, W) on any device, without a Python loop over the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 64
"""Side of the largest images that are shifted; larger ones are cropped and resized."""
PADDING_SHARE = 8
"""A side over the pixels of zeros around an image that is shifted: 4 pixels for CIFAR, as He et al. (2016a), section
4.2."""
AREA = (0.35, 1.0)
"""A resized crop's share of the image's area, uniform: moderate, for the object may fill the image."""
RATIO = (3 / 4, 4 / 3)
"""A resized crop's width over its height, uniform in the logarithm."""

Augment = Callable[[Tensor, torch.Generator], Tensor]


def augmentation(name: str) -> Augment | None:
    """What is done to training images: "auto" crops and mirrors them, "crop" does not mirror, "none" gives None."""
    return {"auto": crop_and_flip, "crop": crop, "release": shift_and_flip, "none": None}[name]


def shift_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """As the authors' release: shifts by up to 2 pixels, with the mean colour where nothing was, and a flip.

    There images are normalised before, so that what is filled in is zero; here the colour is that of the batch.
    """
    colour = images.float().mean(dim=(0, 2, 3), keepdim=True)
    return random_flip(random_crop(images.float() - colour, 2, generator) + colour, generator)


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """`crop`, and a flip in half the cases: for CIFAR the usual augmentation (section 3.2)."""
    return random_flip(crop(images, generator), generator)


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """`random_crop` with a border of an eighth for images of at most 64 pixels, `random_resized_crop` for others."""
    side = max(images.shape[-2:])
    if side > SMALL:
        return random_resized_crop(images, generator)
    return random_crop(images, side // PADDING_SHARE, generator)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Each image shifted by -padding .. padding pixels along both axes, zeros where nothing was.

    The shifts are uniform, and drawn on the CPU: a run sees the same crops on every device.
    """
    n, channels, height, width = images.shape
    device = images.device
    shifts = torch.randint(2 * padding + 1, (2, n, 1), generator=generator).to(device)
    rows = shifts[0] + torch.arange(height, device=device)
    columns = shifts[1] + torch.arange(width, device=device)
    image = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[:, None, None]
    return F.pad(images, (padding,) * 4)[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def random_resized_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of each image, enlarged to the size of the image, bilinear: float32 of the same range.

    Of AREA and RATIO as far as both fit into the image. The numbers are drawn on the CPU: a run sees the same crops on
    every device.
    """
    share, shape, across, down = torch.rand(4, len(images), generator=generator, dtype=torch.float64)
    area = AREA[0] + (AREA[1] - AREA[0]) * share
    # Sides sqrt(area * ratio) and sqrt(area / ratio) of at most 1.
    limit = -area.log()
    low, high = (-limit).clamp(min=math.log(RATIO[0])), limit.clamp(max=math.log(RATIO[1]))
    ratio = (low + (high - low) * shape).exp()
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    # A box's centre in coordinates where the image spans -1 .. 1.
    x, y = (1 - width) * (2 * across - 1), (1 - height) * (2 * down - 1)
    zero = torch.zeros_like(x)
    boxes = torch.stack([width, zero, x, zero, height, y], dim=1).view(-1, 2, 3).float().to(images.device)
    grid = F.affine_grid(boxes, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image, or with a probability of one half its mirror image: left and right are exchanged."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def normalise(images: Tensor, mean: Sequence[float], sd: Sequence[float]) -> Tensor:
    """uint8 images as float32 of mean 0 and standard deviation 1; `mean` and `sd` (C,) are those of [0, 1]."""
    mean, sd = tuple(mean), tuple(sd)
    return (images.float() / 255 - _per_channel(mean, images.device)) / _per_channel(sd, images.device)


def resize(images: Tensor, size: int) -> Tensor:
    """float32 images of `size` x `size`, bilinear; smaller ones are smoothed first, against aliases."""
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=size < max(height, width))


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1); kept, because every copy to a device makes the host wait for it."""
    return torch.tensor(values, device=device)[:, None, None]
