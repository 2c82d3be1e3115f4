"""Generators, discriminators, autoencoders, and a network for optical flow."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from field_examples import Collection, conv_bn, data

GENERATORS = Collection()
SMALL, OTHER = (2, 3, 32, 32), (2, 3, 48, 40)


def weights_init(m: nn.Module) -> None:
    """Initialise by class name, as the paper's code does."""
    classname = m.__class__.__name__
    if classname.find("Conv") != -1:
        nn.init.normal_(m.weight.data, 0.0, 0.02)
    elif classname.find("BatchNorm") != -1:
        nn.init.normal_(m.weight.data, 1.0, 0.02)
        nn.init.constant_(m.bias.data, 0)


@GENERATORS.add("dcgan_generator", "dense", (2, 16, 1, 1), (2, 16, 2, 2))
def dcgan_generator() -> nn.Module:
    """A stack of transposed convolutions from one sample to 64 by 64."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(16, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)]
    for inputs, outputs in ((16, 8), (8, 8), (8, 4)):
        up = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
        layers += [up, nn.BatchNorm2d(outputs), nn.ReLU(True)]
    layers += [nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.Sequential(*layers).apply(weights_init)


@GENERATORS.add("dcgan_discriminator", "classifier", (2, 3, 64, 64))
class Discriminator(nn.Module):
    """Strided convolutions down to four by four, one kernel of that size, and `view(-1)`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 4, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for inputs, outputs in ((4, 8), (8, 8), (8, 16)):
            down = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
            layers += [down, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
        self.main = nn.Sequential(*layers, nn.Conv2d(16, 1, 4, 1, 0, bias=False), nn.Sigmoid())
        self.apply(weights_init)

    def forward(self, input: Tensor) -> Tensor:
        return self.main(input).view(-1, 1).squeeze(1)


class SkipBlock(nn.Module):
    """A level of the generator of pix2pix, which contains the deeper ones in one sequence."""

    def __init__(self, outer: int, inner: int, inputs: int, submodule: nn.Module | None, place: str = "") -> None:
        super().__init__()
        self.outermost = place == "outermost"
        down: list[nn.Module] = [nn.Conv2d(inputs, inner, 4, stride=2, padding=1, bias=False)]
        if self.outermost:
            up = [nn.ReLU(True), nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1), nn.Tanh()]
        else:
            down = [nn.LeakyReLU(0.2, True), *down] + ([] if submodule is None else [nn.BatchNorm2d(inner)])
            width = inner if submodule is None else inner * 2
            up = [nn.ReLU(True), nn.ConvTranspose2d(width, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
        self.model = nn.Sequential(*down, *([] if submodule is None else [submodule]), *up)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            return self.model(x)
        return torch.cat([x, self.model(x)], 1)


@GENERATORS.add("pix2pix_unet", "dense", SMALL, (2, 3, 64, 48))
def pix2pix_unet() -> nn.Module:
    """Skip connections by nested modules; the ReLU in place overwrites what is joined."""
    block = SkipBlock(8, 8, 8, None)
    block = SkipBlock(8, 8, 8, block)
    block = SkipBlock(4, 8, 4, block)
    return SkipBlock(3, 4, 3, block, "outermost")


@GENERATORS.add("patchgan", "map", (2, 3, 64, 64), (2, 3, 96, 80))
def patchgan() -> nn.Module:
    """Kernels of four samples; one score for each patch."""
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
    for inputs, outputs, stride in ((4, 8, 2), (8, 16, 2), (16, 16, 1)):
        layers += [nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False), nn.InstanceNorm2d(outputs)]
        layers += [nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(16, 1, 4, stride=1, padding=1))


@GENERATORS.add("spectral_norm_discriminator", "classifier", SMALL, OTHER)
class NormedDiscriminator(nn.Module):
    """Weights divided by their largest singular value, also those of strided convolutions; sums over the map."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.c1, self.c2 = norm(nn.Conv2d(3, 8, 3, 1, 1)), norm(nn.Conv2d(8, 8, 4, 2, 1))
        self.c3, self.shortcut, self.linear = norm(nn.Conv2d(8, 8, 3, 1, 1)), norm(nn.Conv2d(8, 8, 1)), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.c2(F.relu(self.c1(x))))
        h = F.avg_pool2d(self.c3(h), 2) + self.shortcut(F.avg_pool2d(h, 2))
        return self.linear(torch.sum(F.relu(h), dim=(2, 3)))


class ReflectBlock(nn.Module):
    """Two convolutions without padding behind reflection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        first = [nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3), nn.InstanceNorm2d(dim), nn.ReLU(True)]
        self.conv_block = nn.Sequential(*first, nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3), nn.InstanceNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


@GENERATORS.add("cyclegan_generator", "dense", SMALL, OTHER)
def cyclegan_generator() -> nn.Module:
    """Down twice, residual blocks, up twice with output_padding."""
    model: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, 4, 7), nn.InstanceNorm2d(4), nn.ReLU(True)]
    for width in (4, 8):
        down = nn.Conv2d(width, width * 2, 3, stride=2, padding=1)
        model += [down, nn.InstanceNorm2d(width * 2), nn.ReLU(True)]
    model += [ReflectBlock(16), ReflectBlock(16)]
    for width in (16, 8):
        up = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)
        model += [up, nn.InstanceNorm2d(width // 2), nn.ReLU(True)]
    return nn.Sequential(*model, nn.ReflectionPad2d(3), nn.Conv2d(4, 3, 7), nn.Tanh())


@GENERATORS.add("autoencoder_output_size", "dense", SMALL, (2, 3, 45, 38))
class OutputSize(nn.Module):
    """Transposed convolutions that are told which size to give."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2 = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.dec2 = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1)
        self.dec1 = nn.ConvTranspose2d(8, 3, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.enc1(x))
        b = F.relu(self.enc2(a))
        y = F.relu(self.dec2(b, output_size=a.size()))
        return self.dec1(y, output_size=x.size())


@GENERATORS.add("untied_autoencoder", "dense", SMALL, OTHER)
class Untied(nn.Module):
    """Nothing in the network compares its output's size with its input's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, stride=2), conv_bn(8, 16, 2))
        self.decoder = nn.ModuleList([conv_bn(16, 8), nn.Conv2d(8, 3, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        for layer in self.decoder:
            z = layer(F.interpolate(z, scale_factor=2.0, mode="nearest"))
        return z


@GENERATORS.add("convolutional_autoencoder", "dense", (2, 1, 28, 28))
def convolutional_autoencoder() -> nn.Module:
    """Strides of three and two, max poolings with a stride of one, and kernels that give 28 samples again."""
    down = [nn.Conv2d(1, 8, 3, stride=3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, stride=2)]
    down += [nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(True), nn.MaxPool2d(2, stride=1)]
    up = [nn.ConvTranspose2d(8, 8, 3, stride=2), nn.ReLU(True), nn.ConvTranspose2d(8, 8, 5, stride=3, padding=1)]
    up += [nn.ReLU(True), nn.ConvTranspose2d(8, 1, 2, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(nn.Sequential(*down), nn.Sequential(*up))


@GENERATORS.add("vae", "dense", SMALL)
class VAE(nn.Module):
    """Flattens four by four maps into two linear layers, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        encoder, channels = [], 3
        for width in (4, 8, 16):
            encoder.append(nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU()))
            channels = width
        self.encoder = nn.Sequential(*encoder)
        self.fc_mu, self.fc_var = nn.Linear(16 * 16, 8), nn.Linear(16 * 16, 8)
        self.decoder_input = nn.Linear(8, 16 * 16)
        ups = [nn.ConvTranspose2d(i, o, 3, 2, 1, output_padding=1) for i, o in ((16, 8), (8, 4), (4, 3))]
        self.decoder = nn.Sequential(ups[0], nn.LeakyReLU(), ups[1], nn.LeakyReLU(), ups[2], nn.Tanh())

    def forward(self, input: Tensor, **kwargs: Any) -> list[Tensor]:
        result = torch.flatten(self.encoder(input), start_dim=1)
        mu, log_var = self.fc_mu(result), self.fc_var(result)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * log_var) if self.training else mu
        return [self.decoder(self.decoder_input(z).view(-1, 16, 4, 4)), input, mu, log_var]


@GENERATORS.add("super_resolution", "enlarged", (2, 3, 24, 24), (2, 3, 32, 20))
class SuperResolution(nn.Module):
    """A strided trunk beside a full one; pixel shuffle makes an image twice as large as the input."""

    def __init__(self) -> None:
        super().__init__()
        self.full, self.down = conv_bn(3, 8), nn.Sequential(conv_bn(3, 8, 2), conv_bn(8, 32))
        self.shuffle1, self.tail = nn.PixelShuffle(2), nn.Conv2d(8, 12, 3, padding=1)
        self.shuffle2 = nn.PixelShuffle(upscale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.full(x) + self.shuffle1(self.down(x))
        base = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return base + self.shuffle2(self.tail(y))


def crop_like(input: Tensor, target: Tensor) -> Tensor:
    """Cut what is larger than the target."""
    if input.size()[2:] == target.size()[2:]:
        return input
    return input[:, :, : target.size(2), : target.size(3)]


@GENERATORS.add("flownet", "dense", (2, 6, 32, 32), (2, 6, 48, 40))
class FlowNet(nn.Module):
    """Flow at each scale, enlarged by transposed convolutions and cropped to the map that it joins."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv_bn(6, 8, 2, 7), conv_bn(8, 8, 2, 5), conv_bn(8, 16, 2)
        self.flow3, self.flow2, self.flow1 = (nn.Conv2d(c, 2, 3, padding=1, bias=False) for c in (16, 18, 18))
        self.up3, self.up2 = nn.ConvTranspose2d(2, 2, 4, 2, 1), nn.ConvTranspose2d(2, 2, 4, 2, 1)
        self.deconv2, self.deconv1 = nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ConvTranspose2d(18, 8, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out1 = self.conv1(x)
        out2 = self.conv2(out1)
        out3 = self.conv3(out2)
        up = crop_like(self.up3(self.flow3(out3)), out2)
        concat2 = torch.cat((out2, crop_like(self.deconv2(out3), out2), up), 1)
        up = crop_like(self.up2(self.flow2(concat2)), out1)
        concat1 = torch.cat((out1, crop_like(self.deconv1(concat2), out1), up), 1)
        return 20.0 * F.interpolate(self.flow1(concat1), scale_factor=2, mode="bilinear", align_corners=False)


def noisy_call(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A noisy image and the step of the diffusion."""
    return data(2, 3, height, width), torch.tensor([3, 700])


class TimedBlock(nn.Module):
    """A residual block that is told the time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm1, self.norm2 = nn.GroupNorm(2, inputs), nn.GroupNorm(2, outputs)
        self.time, self.skip = nn.Linear(8, outputs), nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


@GENERATORS.add("diffusion_unet", "dense", lambda: noisy_call(32, 32), lambda: noisy_call(48, 40))
class DiffusionUNet(nn.Module):
    """Pushes every map on a stack and pops it in the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.downs = nn.ModuleList([TimedBlock(8, 8), nn.Conv2d(8, 8, 3, 2, 1), TimedBlock(8, 8)])
        self.downs.extend([nn.Conv2d(8, 8, 3, stride=2, padding=1), TimedBlock(8, 8)])
        self.middle = nn.ModuleList([TimedBlock(8, 8), nn.Conv2d(8, 8, 1)])
        self.ups = nn.ModuleList(TimedBlock(16, 8) for _ in range(6))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        emb = torch.cat([torch.sin(timesteps[:, None] / 10.0**k) for k in range(8)], 1)
        hs = [self.first(x)]
        for module in self.downs:
            hs.append(module(hs[-1], emb) if isinstance(module, TimedBlock) else module(hs[-1]))
        h = hs[-1]
        for module in self.middle:
            h = module(h, emb) if isinstance(module, TimedBlock) else module(h)
        for i, block in enumerate(self.ups):
            h = block(torch.cat([h, hs.pop()], dim=1), emb)
            if i in (1, 3):
                h = self.convs[i // 2](F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.last(h)
