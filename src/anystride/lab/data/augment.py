"""What is done to whole batches of images, (n, C, H, W) on any device, without a Python loop over the images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

CROP_PADDING = 4
"""Pixels of zeros around an image of CIFAR before it is cropped: He et al. (2016a), section 4.2."""


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """The usual augmentation of CIFAR (section 3.2): a crop out of a zero border, and a flip in half the cases."""
    return random_flip(random_crop(images, CROP_PADDING, generator), generator)


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
