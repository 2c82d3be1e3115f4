"""U-Nets and their kin: each fits its maps together in another way."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from field_examples import Collection, conv_bn, double_conv

SEGMENTATION = Collection()
SMALL, OTHER = (2, 3, 32, 32), (2, 3, 48, 40)


class Down(nn.Module):
    """Max pooling, then two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), double_conv(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class PaddedUp(nn.Module):
    """Upsampling or a transposed convolution; the result is padded to the size of the skip connection."""

    def __init__(self, inputs: int, outputs: int, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = double_conv(inputs + outputs, outputs)
        else:
            self.up = nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2)
            self.conv = double_conv(2 * outputs, outputs)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        x1 = self.up(x1)
        diff_y, diff_x = x2.size()[2] - x1.size()[2], x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [diff_x // 2, diff_x - diff_x // 2, diff_y // 2, diff_y - diff_y // 2])
        return self.conv(torch.cat([x2, x1], dim=1))


class PaddedUNet(nn.Module):
    """Levels as attributes; sizes that do not fit are padded."""

    def __init__(self, bilinear: bool) -> None:
        super().__init__()
        self.inc = double_conv(3, 4)
        self.down1, self.down2, self.down3 = Down(4, 8), Down(8, 12), Down(12, 16)
        self.up1, self.up2 = PaddedUp(16, 12, bilinear), PaddedUp(12, 8, bilinear)
        self.up3, self.outc = PaddedUp(8, 4, bilinear), nn.Conv2d(4, 2, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        return self.outc(self.up3(self.up2(self.up1(x4, x3), x2), x1))


@SEGMENTATION.add("unet_pad_bilinear", "dense", SMALL, (2, 3, 45, 38))
def unet_pad_bilinear() -> nn.Module:
    """Upsampling by interpolation, sizes made equal by padding."""
    return PaddedUNet(bilinear=True)


@SEGMENTATION.add("unet_pad_transposed", "dense", SMALL, (2, 3, 45, 38))
def unet_pad_transposed() -> nn.Module:
    """Upsampling by transposed convolutions, sizes made equal by padding."""
    return PaddedUNet(bilinear=False)


@SEGMENTATION.add("unet_centre_crop", "dense", (2, 1, 76, 76), (2, 1, 92, 84))
class CroppedUNet(nn.Module):
    """Convolutions without padding: skip connections are cropped around their centre, the output is smaller."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(1, 4), (4, 8), (8, 16)]
        self.down = nn.ModuleList(self.block(i, o) for i, o in widths)
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, stride=2) for i, o in widths[:0:-1])
        self.join = nn.ModuleList(self.block(o, i) for i, o in widths[:0:-1])
        self.last = nn.Conv2d(4, 2, 1)

    def block(self, inputs: int, outputs: int) -> nn.Sequential:
        """Two convolutions that each take two samples."""
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.Conv2d(outputs, outputs, 3), nn.ReLU())

    def center_crop(self, layer: Tensor, target: torch.Size) -> Tensor:
        """The middle of a map."""
        diff_y, diff_x = (layer.size(2) - target[0]) // 2, (layer.size(3) - target[1]) // 2
        return layer[:, :, diff_y : (diff_y + target[0]), diff_x : (diff_x + target[1])]

    def forward(self, x: Tensor) -> Tensor:
        blocks = []
        for i, down in enumerate(self.down):
            x = down(x)
            if i != len(self.down) - 1:
                blocks.append(x)
                x = F.max_pool2d(x, 2)
        for i, (up, join) in enumerate(zip(self.up, self.join, strict=True)):
            x = up(x)
            x = join(torch.cat([x, self.center_crop(blocks[-i - 1], x.shape[2:])], 1))
        return self.last(x)


class Levels(nn.Module):
    """The convolutions of three levels, which the following networks use in one way each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = double_conv(3, 4), double_conv(4, 8), double_conv(8, 16)
        self.conv4, self.conv5, self.out = double_conv(24, 8), double_conv(12, 4), nn.Conv2d(4, 2, 1)


@SEGMENTATION.add("unet_shared_pool", "dense", SMALL, OTHER)
class SharedPool(Levels):
    """One pooling module for all levels, and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, 2)
        self.up1, self.up2 = nn.ConvTranspose2d(16, 16, 2, stride=2), nn.ConvTranspose2d(8, 8, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.conv1(x)
        e2 = self.conv2(self.pool(e1))
        e3 = self.conv3(self.pool(e2))
        d2 = self.conv4(torch.cat((self.up1(e3), e2), dim=1))
        return self.out(self.conv5(torch.cat((self.up2(d2), e1), dim=1)))


@SEGMENTATION.add("unet_shared_up", "dense", SMALL, OTHER)
class SharedUp(Levels):
    """One upsampling module and one pooling module, each used at all levels and once more after them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.maxpool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        c1 = self.conv1(self.stem(x))
        c2 = self.conv2(self.maxpool(c1))
        x = self.up(self.conv3(self.maxpool(c2)))
        x = self.up(self.conv4(torch.cat([x, c2], dim=1)))
        x = self.conv5(torch.cat([x, c1], dim=1))
        return self.out(self.up(x))


@SEGMENTATION.add("unet_interpolate_factor", "dense", SMALL, OTHER)
class InterpolateFactor(Levels):
    """Interpolates by a factor in forward."""

    def forward(self, x: Tensor) -> Tensor:
        c1 = self.conv1(x)
        c2 = self.conv2(F.max_pool2d(c1, 2))
        x = self.conv3(F.max_pool2d(c2, 2))
        x = self.conv4(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), c2], 1))
        x = self.conv5(torch.cat([F.interpolate(x, scale_factor=2), c1], 1))
        return torch.sigmoid(self.out(x))


@SEGMENTATION.add("unet_interpolate_size", "dense", SMALL, (2, 3, 45, 38))
class InterpolateSize(Levels):
    """Interpolates to the size of the skip connection."""

    def forward(self, x: Tensor) -> Tensor:
        c1 = self.conv1(x)
        c2 = self.conv2(F.max_pool2d(c1, 2))
        x = self.conv3(F.max_pool2d(c2, 2))
        x = F.interpolate(x, size=c2.shape[2:], mode="bilinear", align_corners=False)
        x = F.interpolate(self.conv4(torch.cat([x, c2], 1)), size=(c1.size(2), c1.size(3)))
        return self.out(self.conv5(torch.cat([x, c1], 1)))


class GridAttention(nn.Module):
    """A gate at the resolution of the coarse map: the skip is strided down, the coefficients are enlarged."""

    def __init__(self, skip: int, gating: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(skip, 4, kernel_size=2, stride=2, bias=False)
        self.phi, self.psi = nn.Conv2d(gating, 4, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        theta_x = self.theta(x)
        phi_g = F.interpolate(self.phi(g), size=theta_x.size()[2:], mode="bilinear")
        attention = torch.sigmoid(self.psi(F.relu(theta_x + phi_g, inplace=True)))
        attention = F.interpolate(attention, size=x.size()[2:], mode="bilinear")
        return attention.expand_as(x) * x, attention


@SEGMENTATION.add("attention_unet", "dense", SMALL, OTHER)
class AttentionUNet(Levels):
    """Gates on both skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.maxpool1, self.maxpool2 = nn.MaxPool2d(kernel_size=2), nn.MaxPool2d(kernel_size=2)
        self.gate2, self.gate1 = GridAttention(8, 16), GridAttention(4, 8)
        self.up2, self.up1 = nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.ConvTranspose2d(8, 8, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        c1 = self.conv1(x)
        c2 = self.conv2(self.maxpool1(c1))
        c3 = self.conv3(self.maxpool2(c2))
        gated, _ = self.gate2(c2, c3)
        d2 = self.conv4(torch.cat([self.up2(c3), gated], 1))
        gated, _ = self.gate1(c1, d2)
        return self.out(self.conv5(torch.cat([self.up1(d2), gated], 1)))


@SEGMENTATION.add("unet_plus_plus", "dense", SMALL, OTHER)
class NestedUNet(nn.Module):
    """A triangle of blocks; three outputs under deep supervision."""

    def __init__(self) -> None:
        super().__init__()
        n = (4, 8, 8)
        self.pool, self.up = nn.MaxPool2d(2, 2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv0_0, self.conv1_0, self.conv2_0 = (
            double_conv(3, n[0]),
            double_conv(n[0], n[1]),
            double_conv(n[1], n[2]),
        )
        self.conv0_1, self.conv1_1 = double_conv(n[0] + n[1], n[0]), double_conv(n[1] + n[2], n[1])
        self.conv0_2 = double_conv(n[0] * 2 + n[1], n[0])
        self.final1, self.final2 = nn.Conv2d(n[0], 2, 1), nn.Conv2d(n[0], 2, 1)

    def forward(self, input: Tensor) -> list[Tensor]:
        x0_0 = self.conv0_0(input)
        x1_0 = self.conv1_0(self.pool(x0_0))
        x0_1 = self.conv0_1(torch.cat([x0_0, self.up(x1_0)], 1))
        x2_0 = self.conv2_0(self.pool(x1_0))
        x1_1 = self.conv1_1(torch.cat([x1_0, self.up(x2_0)], 1))
        x0_2 = self.conv0_2(torch.cat([x0_0, x0_1, self.up(x1_1)], 1))
        return [self.final1(x0_1), self.final2(x0_2)]


class VolumeBlock(nn.Module):
    """Residual units of volumes; the shortcut is a strided 1x1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(inputs, outputs, 3, stride, 1), nn.InstanceNorm3d(outputs)
        self.conv2, self.norm2 = nn.Conv3d(outputs, outputs, 3, 1, 1), nn.InstanceNorm3d(outputs)
        self.skip = nn.Conv3d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(self.conv1(x)), 0.01)
        return F.leaky_relu(self.norm2(self.conv2(y)) + self.skip(x), 0.01)


@SEGMENTATION.add("residual_unet_3d", "dense", (2, 1, 16, 16, 16), (2, 1, 24, 16, 32))
class ResidualUNet3d(nn.Module):
    """Strided residual encoder, transposed convolutions, sums as skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.ModuleList([VolumeBlock(1, 4, 1), VolumeBlock(4, 8, 2), VolumeBlock(8, 8, (2, 2, 2))])
        self.ups = nn.ModuleList([nn.ConvTranspose3d(8, 8, 2, 2), nn.ConvTranspose3d(8, 4, 2, 2)])
        self.dec = nn.ModuleList([VolumeBlock(8, 8, 1), VolumeBlock(4, 4, 1)])
        self.seg = nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.enc:
            x = stage(x)
            skips.append(x)
        for up, dec, skip in zip(self.ups, self.dec, reversed(skips[:-1]), strict=True):
            x = dec(up(x) + skip)
        return self.seg(x)


class Bridge(nn.Module):
    """A level of a U-Net that contains the next one and joins its output to its own input."""

    def __init__(self, inner: nn.Module | None) -> None:
        super().__init__()
        self.down, self.inner = conv_bn(4, 4, 2), inner
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), conv_bn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(x)
        return x + self.up(y if self.inner is None else self.inner(y))


@SEGMENTATION.add("nested_levels", "dense", SMALL, (2, 3, 48, 40))
def nested_levels() -> nn.Module:
    """Three levels within one another."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Bridge(Bridge(Bridge(None))), nn.Conv2d(4, 2, 1))
