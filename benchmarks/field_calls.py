"""Networks that are called in unusual ways, or that change themselves when they are called."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from field_examples import Collection, conv_bn, data

CALLS = Collection()
SMALL, OTHER = (2, 3, 32, 32), (2, 3, 48, 40)


class Segmenter(nn.Module):
    """An encoder of two strides and a decoder that ends at the size of the image."""

    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        self.d1, self.d2 = conv_bn(inputs, 8, 2), conv_bn(8, 8, 2)
        self.u2, self.u1 = nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)
        self.head = nn.Conv2d(8, 2, 1)

    def run(self, x: Tensor) -> Tensor:
        """From an image to a map of two classes."""
        a = self.d1(x)
        return self.head(self.u1(self.u2(self.d2(a)) + a))

    def forward(self, x: Tensor) -> Any:
        return self.run(x)


@CALLS.add("hooks_in_forward", "dense", SMALL, OTHER)
class HooksInForward(Segmenter):
    """Registers a forward hook at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def remember(self, _: nn.Module, args: Any, output: Tensor) -> None:
        """Count, and keep the size of what the encoder gives."""
        self.calls += 1
        self.seen = tuple(output.shape)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "_initialised"):
            self.d2.register_forward_hook(self.remember)
            self._initialised = True
        return self.run(x)


@CALLS.add("cached_grid", "dense", SMALL, OTHER)
class CachedGrid(nn.Module):
    """Makes a buffer of coordinates at the first call, and another whenever the size of the map is another."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.join = conv_bn(3, 8, 2), nn.Conv2d(10, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        h, w = x.shape[-2:]
        if not hasattr(self, "grid") or self.grid.shape[-2:] != (h, w):
            ys, xs = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
            self.register_buffer("grid", torch.stack([ys, xs])[None].to(x), persistent=False)
        x = torch.cat([x, self.grid.expand(x.size(0), -1, -1, -1)], 1)
        return self.up(F.relu(self.join(x)))


@CALLS.add("dict_input", "dense", lambda: ({"image": data(*SMALL)},), lambda: ({"image": data(*OTHER)},))
class DictInput(Segmenter):
    """A dictionary in, a dictionary out."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": self.run(batch["image"]), "image": batch["image"]}


@dataclass
class Sample:
    """What a data set gives."""

    image: Tensor
    weight: float


@CALLS.add("dataclass_input", "dense", lambda: (Sample(data(*SMALL), 0.5),), lambda: (Sample(data(*OTHER), 0.5),))
class DataclassInput(Segmenter):
    """A dataclass in."""

    def forward(self, sample: Sample) -> Tensor:
        return self.run(sample.image) * sample.weight


def masked(height: int, width: int) -> dict[str, Tensor]:
    """A mask of half the resolution, and the image, in this order."""
    return {"mask": torch.ones(2, 1, height // 2, width // 2), "image": data(2, 3, height, width)}


@CALLS.add("mask_first", "dense", lambda: masked(32, 32), lambda: masked(48, 40))
class MaskFirst(Segmenter):
    """The first tensor is not the image; the mask is resized to the output."""

    def forward(self, mask: Tensor, image: Tensor) -> Tensor:
        out = self.run(image)
        return out * F.interpolate(mask, size=out.shape[-2:], mode="nearest")


def two_views(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A template and a scene twice as large."""
    return data(2, 3, height, width), data(2, 3, 2 * height, 2 * width)


@CALLS.add("two_sizes", "dense", lambda: two_views(32, 32), lambda: two_views(48, 40))
class TwoSizes(nn.Module):
    """A small and a large image: the large one has a stride more, and the output has its size."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Sequential(conv_bn(3, 8, 2), conv_bn(8, 8, 2)), conv_bn(3, 8, 2)
        self.head = nn.Sequential(nn.Conv2d(8, 2, 1), nn.Upsample(scale_factor=4, mode="bilinear"))

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        return self.head(self.fine(large) + self.coarse(small))


class Trunk(nn.Sequential):
    """What the following networks run at several sizes."""

    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8, 2), nn.MaxPool2d(2), conv_bn(8, 8, 1))


@CALLS.add("siamese_tracker", "map", lambda: two_views(32, 32), lambda: two_views(40, 48))
class Siamese(nn.Module):
    """One trunk for template and scene; the template's map is the kernel of a convolution over the scene's."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        z, x = self.trunk(z), self.trunk(x)
        n, c, h, w = x.size()
        out = F.conv2d(x.view(1, n * c, h, w), z, groups=n)
        return 0.001 * out.view(n, 1, out.size(2), out.size(3))


def crops(large: int, small: int) -> tuple[list[Tensor]]:
    """Two large and three small crops of two images."""
    return ([data(2, 3, large, large) for _ in range(2)] + [data(2, 3, small, small) for _ in range(3)],)


@CALLS.add("multi_crop", "classifier", lambda: crops(32, 16), lambda: crops(48, 24))
class MultiCrop(nn.Module):
    """Runs the trunk once for all crops of one size, and the head once for all."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Trunk(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 16)

    def forward(self, x: list[Tensor]) -> Tensor:
        sizes = torch.tensor([crop.shape[-1] for crop in x])
        ends = torch.cumsum(torch.unique_consecutive(sizes, return_counts=True)[1], 0)
        start, output = 0, torch.empty(0)
        for end in ends:
            output = torch.cat((output, self.backbone(torch.cat(x[start:end]))))
            start = end
        return self.head(output)


@CALLS.add("data_dependent", "dense", SMALL, OTHER)
class DataDependent(Segmenter):
    """Looks at the numbers: an image of zeros is passed by, and a bright one is scaled."""

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 0:
            x = x / x.abs().max().item()
        out = self.run(x)
        if not torch.isfinite(out).all():
            raise ValueError("the output is not finite")
        return out


@CALLS.add("loss_inside", "scalar", lambda: {"images": data(*SMALL), "targets": torch.zeros(2, 32, 32).long()})
class LossInside(Segmenter):
    """Is given targets and returns a dictionary of losses, as detectors do in training."""

    def forward(self, images: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
        out = self.run(images)
        if targets is None:
            return {"masks": out.argmax(1)}
        return {"loss": F.cross_entropy(out, targets)}


@CALLS.add("list_of_images", "dense", lambda: ([data(3, 29, 31), data(3, 32, 25)],), lambda: ([data(3, 48, 40)] * 2,))
class ListOfImages(Segmenter):
    """Pads images to one size that is a multiple of four, and crops each result to its image."""

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        batch = images[0].new_zeros(len(images), 3, -(-height // 4) * 4, -(-width // 4) * 4)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]].copy_(image)
        out = self.run(batch)
        return [one[:, : image.shape[1], : image.shape[2]] for one, image in zip(out, images, strict=True)]


@CALLS.add("unbatched_image", "classifier", (3, 32, 32), (3, 48, 40))
class Unbatched(nn.Module):
    """An image without a batch axis, through convolutions and poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool, self.conv2 = nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, 1, 1)
        self.fc = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.avg_pool2d(self.conv2(self.pool(F.relu(self.conv1(image)))), 2)
        return self.fc(x.mean((-2, -1)))


@CALLS.add("branches_in_place", "classifier", SMALL, OTHER)
class Branches(nn.Module):
    """Two strided convolutions beside one of stride four whose ReLU works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(True), nn.Conv2d(8, 8, 3, 2, 1))
        self.wide, self.fc = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(True)), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.deep(x)
        out += self.wide(x)
        return self.fc(out.mean((2, 3)))


@CALLS.add("recurrent_refinement", "dense", SMALL, OTHER)
class Recurrent(nn.Module):
    """Runs one strided encoder several times, each time on the image beside the last result."""

    def __init__(self) -> None:
        super().__init__()
        self.segmenter, self.steps = Segmenter(5), 3

    def forward(self, x: Tensor) -> list[Tensor]:
        state, states = x.new_zeros(x.size(0), 2, x.size(2), x.size(3)), []
        for _ in range(self.steps):
            state = state + self.segmenter(torch.cat([x, state.detach()], 1))
            states.append(state)
        return states


class Lazy(nn.Module):
    """Makes its layers at the first call, as layers without a number of inputs do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.LazyConv2d(8, 3, stride=2, padding=1), nn.LazyConv2d(16, 3, stride=2, padding=1)
        self.norm, self.fc = nn.LazyBatchNorm2d(), nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv2(F.relu(self.conv1(x))))).amax((2, 3)))


@CALLS.add("lazy_layers", "classifier", SMALL, OTHER)
def lazy_layers() -> nn.Module:
    """Its layers are there after one call, which torch's documentation asks for."""
    model = Lazy().eval()
    model(data(*SMALL))
    return model.train()
