"""Networks for sound, for signals of one dimension, and for video."""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from field_examples import Collection
from field_stems import head

SEQUENCES = Collection()


class SignalBlock(nn.Module):
    """A strided convolution beside a max pooling as shortcut, whose new channels are zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(inputs, outputs, 7, stride=stride, padding=3), nn.BatchNorm1d(outputs)
        self.conv2, self.bn2 = nn.Conv1d(outputs, outputs, 7, padding=3), nn.BatchNorm1d(outputs)
        self.pool = nn.MaxPool1d(stride) if stride > 1 else nn.Identity()
        self.more = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        identity = self.pool(x)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            identity = F.pad(identity, (0, 0, 0, self.more))
        out += identity
        return F.relu(out)


@SEQUENCES.add("ecg_resnet", "classifier", (2, 1, 256), (2, 1, 384))
def ecg_resnet() -> nn.Module:
    """Residual blocks of one dimension."""
    blocks = [SignalBlock(8, 8, 2), SignalBlock(8, 16, 2), SignalBlock(16, 16, 1), SignalBlock(16, 16, 4)]
    stem = nn.Conv1d(1, 8, 15, stride=1, padding=7)
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 4))


class SameConv1d(nn.Module):
    """Pads for a length of ceil(length / stride), computed at each call from its own attribute."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel, stride
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        in_dim = x.shape[-1]
        out_dim = (in_dim + self.stride - 1) // self.stride
        p = max(0, (out_dim - 1) * self.stride + self.kernel_size - in_dim)
        return self.conv(F.pad(x, (p // 2, p - p // 2), "constant", 0))


class SamePool1d(nn.Module):
    """The same for max pooling."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel_size = kernel
        self.max_pool = nn.MaxPool1d(kernel_size=kernel)

    def forward(self, x: Tensor) -> Tensor:
        p = max(0, self.kernel_size - 1)
        return self.max_pool(F.pad(x, (p // 2, p - p // 2), "constant", 0))


@SEQUENCES.add("ecg_same_padding", "classifier", (2, 1, 250), (2, 1, 375))
class EcgSame(nn.Module):
    """Padding by TensorFlow's rule; the shortcut's channels grow by a transposition and a pad."""

    def __init__(self) -> None:
        super().__init__()
        self.first = SameConv1d(1, 8, 16, 1)
        self.convs = nn.ModuleList([SameConv1d(8, 8, 16, 2), SameConv1d(8, 16, 16, 2)])
        self.pools = nn.ModuleList([SamePool1d(2), SamePool1d(2)])
        self.dense = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.first(x))
        for conv, pool in zip(self.convs, self.pools, strict=True):
            identity, out = pool(out), F.relu(conv(out))
            if identity.shape[1] != out.shape[1]:
                more = out.shape[1] - identity.shape[1]
                identity = F.pad(identity.transpose(-1, -2), (more // 2, more - more // 2)).transpose(-1, -2)
            out = out + identity
        return self.dense(out.mean(-1))


@SEQUENCES.add("m5", "classifier", (2, 1, 4000), (2, 1, 6000))
class M5(nn.Module):
    """Raw sound: a kernel of 80 samples at every fourth, then max poolings of four."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.pool1 = nn.Conv1d(1, 8, 80, stride=4), nn.BatchNorm1d(8), nn.MaxPool1d(4)
        self.conv2, self.bn2, self.pool2 = nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8), nn.MaxPool1d(4)
        self.conv3, self.bn3, self.pool3 = nn.Conv1d(8, 16, 3), nn.BatchNorm1d(16), nn.MaxPool1d(4)
        self.fc1 = nn.Linear(16, 35)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        x = self.pool2(F.relu(self.bn2(self.conv2(x))))
        x = self.pool3(F.relu(self.bn3(self.conv3(x))))
        x = F.avg_pool1d(x, x.shape[-1])
        x = self.fc1(x.permute(0, 2, 1))
        return F.log_softmax(x, dim=2)


class GatedLayer(nn.Module):
    """A causal dilated convolution with a gate, and its residual."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.padding = 2 * dilation
        self.conv, self.out = nn.Conv1d(channels, 2 * channels, 3, dilation=dilation), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(F.pad(x, (self.padding, 0))).chunk(2, dim=1)
        return x + self.out(torch.tanh(a) * torch.sigmoid(b))


@SEQUENCES.add("wavenet_encoder", "dense", (2, 1, 512), (2, 1, 768))
class WaveNetAutoencoder(nn.Module):
    """A code per hop from average pooling, spread over the samples of the hop, conditions the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.hop = 64
        self.first = nn.Conv1d(1, 8, 3, padding=1)
        self.encoder = nn.Sequential(*(GatedLayer(8, 2**i) for i in range(4)), nn.Conv1d(8, 4, 1), nn.AvgPool1d(64))
        self.condition, self.causal = nn.Conv1d(4, 8, 1), nn.Conv1d(1, 8, 2)
        self.decoder, self.last = nn.ModuleList(GatedLayer(8, 2**i) for i in range(4)), nn.Conv1d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        code = self.condition(self.encoder(self.first(x)))
        code = code.unsqueeze(-1).repeat(1, 1, 1, self.hop).view(code.size(0), code.size(1), -1)
        y = self.causal(F.pad(x, (1, 0)))
        for layer in self.decoder:
            y = layer(y + code)
        return self.last(F.relu(y))


@SEQUENCES.add("wave_unet", "dense", (2, 1, 512), (2, 1, 768))
class WaveUNet(nn.Module):
    """Decimates by slices, enlarges by linear interpolation, joins."""

    def __init__(self) -> None:
        super().__init__()
        widths = [1, 4, 8, 8]
        pairs = list(itertools.pairwise(widths))
        self.encoder = nn.ModuleList(nn.Conv1d(i, o, 15, padding=7) for i, o in pairs)
        self.middle = nn.Conv1d(8, 8, 15, padding=7)
        self.decoder = nn.ModuleList(nn.Conv1d(8 + o, o if i == 1 else 8, 5, padding=2) for i, o in reversed(pairs))
        self.out = nn.Conv1d(4 + 1, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        skips, o = [], input
        for layer in self.encoder:
            o = F.leaky_relu(layer(o), 0.1)
            skips.append(o)
            o = o[:, :, ::2]
        o = F.leaky_relu(self.middle(o), 0.1)
        for layer in self.decoder:
            o = F.interpolate(o, scale_factor=2, mode="linear", align_corners=True)
            o = F.leaky_relu(layer(torch.cat([o, skips.pop()], dim=1)), 0.1)
        return torch.tanh(self.out(torch.cat([o, input], dim=1)))


class Chomp1d(nn.Module):
    """Cuts what causal padding added."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class TemporalBlock(nn.Module):
    """Two causal convolutions with weight norm, and their residual."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            conv = nn.Conv1d(width, outputs, 3, stride=1, padding=2 * dilation, dilation=dilation)
            layers += [nn.utils.parametrizations.weight_norm(conv), Chomp1d(2 * dilation), nn.ReLU(), nn.Dropout(0.2)]
        self.net = nn.Sequential(*layers)
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.net(x) + (x if self.downsample is None else self.downsample(x)))


@SEQUENCES.add("temporal_convolutions", "classifier", (2, 1, 128), (2, 1, 200))
class TCN(nn.Module):
    """Nothing downsamples here; the last time step is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.tcn = nn.Sequential(*(TemporalBlock(1 if i == 0 else 8, 8, 2**i) for i in range(4)))
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.tcn(x)[:, :, -1])


@SEQUENCES.add("conv_tasnet", "dense", (2, 1, 800), (2, 1, 1203))
class ConvTasNet(nn.Module):
    """A strided encoder, masks, and a transposed convolution that adds what overlaps; the end is padded by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.win, self.stride = 16, 8
        self.encoder = nn.Conv1d(1, 8, self.win, bias=False, stride=self.stride)
        separator = [nn.GroupNorm(1, 8), nn.Conv1d(8, 8, 1), nn.PReLU(), nn.Conv1d(8, 8, 3, padding=2, dilation=2)]
        self.separator = nn.Sequential(*separator, nn.PReLU(), nn.Conv1d(8, 16, 1))
        self.decoder = nn.ConvTranspose1d(8, 1, self.win, bias=False, stride=self.stride)

    def pad_signal(self, x: Tensor) -> tuple[Tensor, int]:
        """Whole windows, and half a window more at both ends."""
        rest = self.win - (self.stride + x.size(2) % self.win) % self.win
        x = torch.cat([x, x.new_zeros(x.size(0), 1, rest)], 2) if rest > 0 else x
        end = x.new_zeros(x.size(0), 1, self.stride)
        return torch.cat([end, x, end], 2), rest

    def forward(self, input: Tensor) -> Tensor:
        output, rest = self.pad_signal(input)
        batch = output.size(0)
        enc = self.encoder(output)
        masks = torch.sigmoid(self.separator(enc)).view(batch, 2, 8, -1)
        masked = enc.unsqueeze(1) * masks
        output = self.decoder(masked.view(batch * 2, 8, -1))
        output = output[:, :, self.stride : -(rest + self.stride)].contiguous()
        return output.view(batch, 2, -1)


class C3DGroup(nn.Module):
    """Convolution and pooling of a clip."""

    def __init__(self, inputs: int, outputs: int, pool: Any) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel_size=(3, 3, 3), padding=(1, 1, 1))
        self.pool = nn.MaxPool3d(kernel_size=pool, stride=pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.relu(self.conv(x)))


@SEQUENCES.add("c3d", "classifier", (2, 3, 8, 32, 32))
class C3D(nn.Module):
    """Video clips; the last pooling pads height and width, and the head is made for one size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = C3DGroup(3, 4, (1, 2, 2)), C3DGroup(4, 8, 2)
        self.third = nn.Sequential(nn.Conv3d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2, 2, padding=(0, 1, 1)))
        self.fc6, self.fc7 = nn.Linear(8 * 2 * 5 * 5, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.third(self.second(self.first(x)))
        h = h.view(-1, 8 * 2 * 5 * 5)
        return self.fc7(F.dropout(F.relu(self.fc6(h)), 0.5, self.training))


@SEQUENCES.add("slow_fast", "classifier", (2, 3, 16, 32, 32), (2, 3, 24, 48, 40))
class SlowFast(nn.Module):
    """Every fourth frame by a slice for one path; the other path joins it through strides in time."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.Conv3d(3, 4, 3, (1, 2, 2), 1)
        self.lateral = nn.Conv3d(4, 8, (5, 1, 1), stride=(4, 1, 1), padding=(2, 0, 0))
        self.slow2, self.fast2 = nn.Conv3d(16, 16, 3, (1, 2, 2), 1), nn.Conv3d(4, 4, 3, (1, 2, 2), 1)
        self.head = head(20)

    def forward(self, x: Tensor) -> Tensor:
        slow, fast = F.relu(self.slow(x[:, :, ::4])), F.relu(self.fast(x))
        slow = F.relu(self.slow2(torch.cat([slow, self.lateral(fast)], 1)))
        fast = F.relu(self.fast2(fast))
        return self.head(torch.cat([slow.mean(2), fast.mean(2)], 1))
