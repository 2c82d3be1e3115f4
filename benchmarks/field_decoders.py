"""Other networks with a decoder: unpooling, crops, hourglasses, necks, and the heads of detectors."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from field_examples import Collection, conv_bn

DECODERS = Collection()
SMALL, OTHER = (2, 3, 32, 32), (2, 3, 48, 40)


@DECODERS.add("segnet", "dense", SMALL, (2, 3, 45, 38))
class SegNet(nn.Module):
    """Unpools at the places of the maxima."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.enc3 = conv_bn(3, 4), conv_bn(4, 8), conv_bn(8, 8)
        self.dec3, self.dec2, self.dec1 = conv_bn(8, 8), conv_bn(8, 4), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.enc1(x)
        p1, id1 = F.max_pool2d(x1, kernel_size=2, stride=2, return_indices=True)
        x2 = self.enc2(p1)
        p2, id2 = F.max_pool2d(x2, kernel_size=2, stride=2, return_indices=True)
        x3 = self.dec3(self.enc3(p2))
        u2 = self.dec2(F.max_unpool2d(x3, id2, kernel_size=2, stride=2, output_size=x2.size()))
        return self.dec1(F.max_unpool2d(u2, id1, kernel_size=2, stride=2, output_size=x1.size()))


class EnetDown(nn.Module):
    """A strided branch beside a max pooling with indices, which another block uses later."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.pool = nn.MaxPool2d(2, stride=2, return_indices=True)
        self.branch = nn.Sequential(nn.Conv2d(inputs, 4, 2, stride=2, bias=False), nn.PReLU(), conv_bn(4, outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        main, indices = self.pool(x)
        ext = self.branch(x)
        padding = torch.zeros(x.size(0), self.outputs - main.size(1), main.size(2), main.size(3), device=x.device)
        return F.relu(torch.cat((main, padding), 1) + ext), indices


@DECODERS.add("enet", "dense", SMALL, OTHER)
class ENet(nn.Module):
    """An initial block of two branches, two strided bottlenecks, unpooling, and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.initial, self.initial_pool = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.MaxPool2d(3, stride=2, padding=1)
        self.down1, self.down2 = EnetDown(8, 12), EnetDown(12, 16)
        self.main2, self.up2 = nn.Conv2d(16, 12, 1), nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.main1, self.up1 = nn.Conv2d(12, 8, 1), nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.unpool = nn.MaxUnpool2d(kernel_size=2)
        self.full = nn.ConvTranspose2d(8, 2, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        size = x.size()
        x = torch.cat((self.initial(x), self.initial_pool(x)), 1)
        size1 = x.size()
        x, idx1 = self.down1(x)
        size2 = x.size()
        x, idx2 = self.down2(x)
        x = self.unpool(self.main2(x), idx2, output_size=size2) + self.up2(x, output_size=size2)
        x = self.unpool(self.main1(x), idx1, output_size=size1) + self.up1(x, output_size=size1)
        return self.full(x, output_size=size)


@DECODERS.add("fcn8s", "dense", (2, 3, 64, 64), (2, 3, 80, 72))
class FCN8s(nn.Module):
    """Pads its input by a hundred samples, and crops by constants what does not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool1 = nn.Conv2d(3, 4, 3, padding=100), nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.conv2, self.pool2 = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.conv3, self.pool3 = nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.conv4, self.pool4 = nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.conv5, self.pool5 = nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.fc6 = nn.Conv2d(8, 8, 7)
        self.score, self.score4, self.score3 = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)
        self.up2, self.up8 = nn.ConvTranspose2d(2, 2, 4, stride=2, bias=False), nn.ConvTranspose2d(2, 2, 16, stride=8)
        self.up4 = nn.ConvTranspose2d(2, 2, 4, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool2(F.relu(self.conv2(self.pool1(F.relu(self.conv1(x))))))
        pool3 = self.pool3(F.relu(self.conv3(h)))
        pool4 = self.pool4(F.relu(self.conv4(pool3)))
        h = self.up2(self.score(F.relu(self.fc6(self.pool5(F.relu(self.conv5(pool4)))))))
        h = h + self.score4(pool4)[:, :, 5 : 5 + h.size()[2], 5 : 5 + h.size()[3]]
        h = self.up4(h)
        h = h + self.score3(pool3)[:, :, 9 : 9 + h.size()[2], 9 : 9 + h.size()[3]]
        h = self.up8(h)
        return h[:, :, 31 : 31 + x.size()[2], 31 : 31 + x.size()[3]].contiguous()


class Hourglass(nn.Module):
    """One module per level in a list, and a method that calls itself."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.hg = nn.ModuleList(nn.ModuleList(conv_bn(8, 8) for _ in range(4)) for _ in range(depth))

    def _hour_glass_forward(self, n: int, x: Tensor) -> Tensor:
        up1 = self.hg[n - 1][0](x)
        low1 = self.hg[n - 1][1](F.max_pool2d(x, 2, stride=2))
        low2 = self._hour_glass_forward(n - 1, low1) if n > 1 else self.hg[n - 1][3](low1)
        low3 = self.hg[n - 1][2](low2)
        return up1 + F.interpolate(low3, scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        return self._hour_glass_forward(self.depth, x)


@DECODERS.add("stacked_hourglass", "map", (2, 3, 64, 64), (2, 3, 96, 64))
class StackedHourglass(nn.Module):
    """Two hourglasses; heat maps of the first go back into the second. Heat maps are smaller than the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.maxpool = conv_bn(3, 8, 2, 7), nn.MaxPool2d(2, stride=2)
        self.hg = nn.ModuleList([Hourglass(2), Hourglass(2)])
        self.score = nn.ModuleList([nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)])
        self.score_, self.fc_ = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        out = []
        x = self.maxpool(self.stem(x))
        for i in range(2):
            y = self.hg[i](x)
            out.append(self.score[i](y))
            if i == 0:
                x = x + self.fc_(y) + self.score_(out[-1])
        return out


class FPN(nn.Module):
    """Is handed a list, loops over it, and adds one more level by a pooling of one sample."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in channels)
        self.upsample_cfg = {"scale_factor": 2, "mode": "nearest"}

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        assert len(inputs) == len(self.laterals)
        laterals = [conv(inputs[i]) for i, conv in enumerate(self.laterals)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], **self.upsample_cfg)
        outs = [conv(lateral) for conv, lateral in zip(self.outputs, laterals, strict=True)]
        outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)


class PAN(FPN):
    """An FPN with a second way, from fine to coarse, by strided convolutions."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__(channels)
        self.downsample = nn.ModuleList(nn.Conv2d(8, 8, 3, stride=2, padding=1) for _ in channels[1:])

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        laterals = [conv(inputs[i]) for i, conv in enumerate(self.laterals)]
        for i in range(len(laterals) - 1, 0, -1):
            shape = laterals[i - 1].shape[2:]
            laterals[i - 1] += F.interpolate(laterals[i], size=shape, mode="nearest")
        outs = [conv(lateral) for conv, lateral in zip(self.outputs, laterals, strict=True)]
        for i in range(len(outs) - 1):
            outs[i + 1] += self.downsample[i](outs[i])
        return tuple(outs)


class Backbone(nn.Module):
    """Returns a dictionary of three maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.c3, self.c4, self.c5 = conv_bn(3, 8, 2), conv_bn(8, 8, 2), conv_bn(8, 12, 2), conv_bn(12, 16, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = {"c3": self.c3(self.stem(x))}
        out["c4"] = self.c4(out["c3"])
        out["c5"] = self.c5(out["c4"])
        return out


class Detector(nn.Module):
    """Backbone and neck; subclasses add a head."""

    neck_class: Any = FPN

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.neck = Backbone(), self.neck_class([8, 12, 16])

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The maps of the neck."""
        return self.neck(list(self.backbone(x).values()))

    def forward(self, x: Tensor) -> Any:
        return self.features(x)


DECODERS.add("fpn_list", "map", (2, 3, 64, 64), (2, 3, 96, 64))(Detector)


@DECODERS.add("pan_list", "map", (2, 3, 64, 64), (2, 3, 90, 75))
class PANDetector(Detector):
    """A path aggregation network."""

    neck_class = PAN


@DECODERS.add("yolo_head", "boxes", (2, 3, 64, 64), (2, 3, 96, 64))
class Yolo(Detector):
    """Decodes boxes: cells times constant strides."""

    neck_class = PAN

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(8, 7, 1) for _ in range(3))
        self.register_buffer("stride", torch.tensor([4.0, 8.0, 16.0]))

    def grid(self, i: int, ny: int, nx: int) -> Tensor:
        """The corners of the cells of one map."""
        y, x = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
        return torch.stack((x, y), 2).view(1, ny, nx, 2).float()

    def forward(self, x: Tensor) -> Any:
        z, raw = [], []
        for i, feature in enumerate(self.features(x)):
            p = self.heads[i](feature).permute(0, 2, 3, 1).contiguous()
            bs, ny, nx, no = p.shape
            raw.append(p)
            if not self.training:
                xy, wh, conf = p.sigmoid().split((2, 2, no - 4), -1)
                xy = (xy * 2 - 0.5 + self.grid(i, ny, nx)) * self.stride[i]
                z.append(torch.cat((xy, (wh * 2) ** 2 * self.stride[i], conf), -1).view(bs, ny * nx, no))
        return raw if self.training else (torch.cat(z, 1), raw)


@DECODERS.add("yolo_cached_grid", "boxes", (2, 3, 64, 64), (2, 3, 96, 64))
class YoloCached(Yolo):
    """Keeps the cells of the last call, and makes them anew when the size of a map has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = [torch.empty(0) for _ in range(3)]

    def grid(self, i: int, ny: int, nx: int) -> Tensor:
        if self.cells[i].shape[1:3] != (ny, nx):
            self.cells[i] = super().grid(i, ny, nx)
        return self.cells[i]


@DECODERS.add("ssd_head", "boxes", (2, 3, 64, 64), (2, 3, 96, 64))
class SSD(Detector):
    """Anchors from the sizes of the feature maps and of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(4))
        self.conf = nn.ModuleList(nn.Conv2d(8, 3, 3, padding=1) for _ in range(4))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.features(images)
        loc, conf, anchors = [], [], []
        for x, head, scores in zip(features, self.loc, self.conf, strict=True):
            loc.append(head(x).permute(0, 2, 3, 1).contiguous().view(x.size(0), -1, 4))
            conf.append(scores(x).permute(0, 2, 3, 1).contiguous().view(x.size(0), -1, 3))
            (fh, fw), (ih, iw) = x.shape[-2:], images.shape[-2:]
            for i in range(fh):
                anchors += [[(j + 0.5) * iw / fw, (i + 0.5) * ih / fh, math.sqrt(iw / fw), ih / fh] for j in range(fw)]
        return torch.cat(loc, 1), torch.cat(conf, 1).softmax(-1), torch.tensor(anchors)
