"""Kinds of networks on which a conversion once broke, learned nothing or was silently wrong: the smallest of each."""

import copy
import dataclasses
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import anystride
from anystride import convert_, learned_strides
from networks import set_strides


def images(*size, batch=2, channels=3):
    return torch.randn(batch, channels, *(size or (32, 32)))


def strided(inputs, outputs, kernel=3, stride=2):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def roles(plan):
    return [change.role for change in plan.changes]


def works(make, *inputs, stride=1.6):
    """Convert, keep the shapes, train at other strides, freeze; returns the plan."""
    example = inputs[0] if len(inputs) == 1 else inputs
    model, plain = make(), make()
    before = plain(*inputs).shape
    plan = convert_(model, example)
    assert model(*inputs).shape == before
    set_strides(model, stride)
    model(*inputs).square().mean().backward()
    strides = [p for name, p in model.named_parameters() if name.endswith("pool.stride")]
    assert len(strides) == len(learned_strides(model))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in strides)
    wanted = model.eval()(*inputs)
    torch.testing.assert_close(anystride.freeze_(copy.deepcopy(model), example)(*inputs), wanted, rtol=1e-4, atol=1e-5)
    return plan


class Shortcut(nn.Module):
    """A residual block whose shortcut takes every other sample and pads channels."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = strided(3, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return self.conv2(self.conv1(x).relu()) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3))


def test_a_slice_with_a_step():
    plan = works(Shortcut, images())
    assert roles(plan) == ["learn", "share"]


class Phases(nn.Module):
    """Four slices become channels; here of maps (N, H, W, C), as in patch merging."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        parts = [x[:, i::2, j::2, :] for j in range(2) for i in range(2)]
        return torch.cat(parts, -1).permute(0, 3, 1, 2)


def test_slices_of_channels_last_maps_in_a_comprehension():
    plan = works(Phases, images(32, 48))
    assert len({change.group for change in plan.changes}) == 1


@pytest.mark.parametrize(
    ("function", "size"),
    [
        (lambda x: F.max_pool1d(x, 2), (48,)),
        (lambda x: F.avg_pool1d(x, 3, 2, 1), (48,)),
        (lambda x: F.max_pool3d(x, 2, ceil_mode=True), (5, 16, 16)),
        (lambda x: F.lp_pool2d(x, 2, 2), (32, 32)),
        (lambda x: F.pixel_unshuffle(x, 2), (32, 32)),
        (lambda x: F.adaptive_avg_pool2d(x, (x.shape[2] // 2, x.shape[3] // 2)), (32, 32)),
        (lambda x: torch.conv2d(x, torch.ones(3, 1, 2, 2), stride=2, groups=3), (32, 32)),
    ],
    ids=["max 1d", "average 1d", "max 3d", "power", "unshuffle", "adaptive", "convolution"],
)
def test_functions_that_shrink(function, size):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = getattr(nn, f"Conv{len(size)}d")(3, 3, 3, padding=1)

        def forward(self, x):
            return function(self.conv(x).exp())

    assert roles(works(Net, images(*size))) == ["learn"]


@pytest.mark.parametrize(
    "layer",
    [nn.PixelUnshuffle(2), nn.LPPool2d(2, 2), nn.MaxPool2d(3, 2, 1, dilation=1), nn.MaxPool2d(2, 2, dilation=2)],
    ids=lambda layer: type(layer).__name__,
)
def test_modules_that_shrink(layer):
    assert roles(works(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), copy.deepcopy(layer)), images())) == ["learn"]


def test_a_pooling_to_a_fixed_size_stays():
    plan = convert_(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(16)), images())
    assert "does not depend on the map's" in plan.stays[0].why


class Ecg(nn.Module):
    """A strided convolution beside a pooled shortcut, in one dimension."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.match = nn.Conv1d(3, 8, 16, 4, 6), nn.MaxPool1d(4), nn.Conv1d(3, 8, 1)

    def forward(self, x):
        return self.conv(x) + self.match(self.pool(x))


def test_a_convolution_beside_a_pooling_in_one_dimension():
    assert sorted(roles(works(Ecg, images(128), stride=3.1))) == ["learn", "share"]


def test_a_window_larger_than_any_map_is_global_pooling():
    def make():
        return nn.Sequential(strided(3, 8), nn.AvgPool2d(640, ceil_mode=True), nn.Flatten(), nn.Linear(8, 2))

    assert roles(works(make, images())) == ["learn"]


class Head(nn.Module):
    """Its pooling covers the map, which nothing says: a view would take four values for four examples."""

    def __init__(self):
        super().__init__()
        self.down, self.linear = nn.Sequential(strided(3, 8), nn.ReLU(), strided(8, 8)), nn.Linear(8, 2)

    def forward(self, x):
        return self.linear(F.avg_pool2d(self.down(x), 8).view(-1, 8))


@pytest.mark.parametrize("stride", [1.3, 3.0])
def test_a_pooling_of_the_whole_map_takes_any(stride):
    plan = works(Head, images(), stride=stride)
    assert roles(plan) == ["learn", "learn", "keep"]


def test_a_view_that_would_make_more_examples():
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(strided(3, 8, 4), nn.ReLU(), strided(8, 8, 4), nn.Conv2d(8, 1, 4))

        def forward(self, x):
            return self.net(x).view(-1, 1).squeeze(1)

    plan = works(Critic, images(16, 16))
    assert plan.changes[-1].role == "keep"


def test_a_kernel_that_covers_the_map_needs_it():
    def make():
        return nn.Sequential(nn.Conv1d(3, 4, 4, 4), nn.ELU(), nn.Conv1d(4, 4, 4, 4), nn.Conv1d(4, 2, 15))

    plan = works(make, images(256), stride=6.0)
    assert [change.why for change in plan.changes if change.role == "keep"] == ["the kernel of 3 covers the map"]


class Cnn14(nn.Module):
    """The kind of pooling is a string, and each block its own."""

    class Block(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

        def forward(self, input, pool_size=(2, 2), pool_type="avg"):
            x = F.relu_(self.conv(input))
            if pool_type == "max":
                x = F.max_pool2d(x, kernel_size=pool_size)
            elif pool_type == "avg":
                x = F.avg_pool2d(x, kernel_size=pool_size)
            else:
                raise ValueError(pool_type)
            return x

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = self.Block(3, 4), self.Block(4, 4), self.Block(4, 4)

    def forward(self, x):
        return self.c(self.b(self.a(x, pool_type="avg"), pool_type="max"), pool_size=(1, 1))


def test_arguments_that_are_strings():
    assert roles(works(Cnn14, images())) == ["learn", "learn"]


class Neck(nn.Module):
    """A pyramid that is handed a list, and loops over it."""

    def __init__(self, levels=3):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(levels))

    def forward(self, inputs):
        maps = [conv(x) for conv, x in zip(self.laterals, inputs, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], scale_factor=2, mode="nearest")
        return maps


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(strided(n, 4) for n in (3, 4, 4))
        self.neck = Neck()

    def forward(self, x):
        maps = []
        for stage in self.stages:
            maps.append(stage(x if not maps else maps[-1]).relu())
        return torch.cat([m.mean((2, 3)) for m in self.neck(maps)], 1)


def test_a_neck_that_takes_a_list():
    plan = works(Pyramid, images())
    assert roles(plan) == ["learn"] * 3 + ["follow"]
    assert plan.changes[-1].turns == ("stages.1", "stages.0")


class Upsampler(nn.Module):
    """Branches on its size, as the decoders of diffusion models do."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden, output_size=None):
        if hidden.shape[0] >= 64:
            hidden = hidden.contiguous()
        if output_size is None:
            hidden = F.interpolate(hidden, scale_factor=2.0, mode="nearest")
        else:
            hidden = F.interpolate(hidden, size=output_size, mode="nearest")
        return self.conv(hidden)


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(strided(3, 4), nn.SiLU(), strided(4, 4))
        self.up = nn.Sequential(Upsampler(4), nn.SiLU(), Upsampler(4), nn.Conv2d(4, 3, 1))

    def forward(self, x):
        return self.up(self.down(x))


def test_a_decoder_that_branches_ends_at_the_inputs_size():
    model = Autoencoder()
    convert_(model, images())
    set_strides(model, 1.7)
    for size in ((32, 32), (48, 40)):
        assert model(images(*size)).shape[2:] == size


class Untied(nn.Module):
    """A network whose decoder nothing ties: a size in the middle is written down."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Sequential(strided(3, 4), strided(4, 4)), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        x = self.down(x)
        for _ in range(2):
            x = torch.repeat_interleave(torch.repeat_interleave(x, 2, 2), 2, 3)
        return self.up(x)


def test_an_output_that_leaves_the_size_of_the_input_is_told():
    plan = convert_(Untied(), images())
    assert "output 0 follows the strides: 3x32x32 at the start" in " ".join(str(plan).split())


class Detector(nn.Module):
    """Its head numbers the positions of a map and multiplies them by what was the stride."""

    def __init__(self, constant):
        super().__init__()
        self.net, self.constant = nn.Sequential(strided(3, 4), nn.ReLU(), strided(4, 4)), constant

    def forward(self, x):
        y = self.net(x)
        factor = 4 if self.constant else x.shape[3] / y.shape[3]
        places = (torch.arange(y.shape[3], device=y.device) + 0.5) * factor
        return y.mean(1) + places


def test_constant_strides_in_a_head_are_told_by_name():
    with pytest.warns(UserWarning, match="positions of a map are multiplied by a constant"):
        plan = convert_(Detector(True), images())
    assert any("'the model': positions" in note for note in plan.notes)
    assert not any("positions" in note for note in convert_(Detector(False), images()).notes)


class Rigid(nn.Module):
    """One branch pools with indices, which stays; the other must then keep its stride, and what is before may move."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool, self.conv = strided(3, 4), nn.MaxPool2d(3, 2, 1, return_indices=True), strided(4, 4)

    def forward(self, x):
        x = self.stem(x)
        return self.pool(x)[0] + self.conv(x)


def test_what_meets_a_stride_that_stays_keeps_its_own():
    plan = works(Rigid, images())
    assert {change.name: change.role for change in plan.changes} == {"stem": "learn", "pool": "stay", "conv": "stay"}


def test_deformable_convolutions_and_their_offsets():
    ops = pytest.importorskip("torchvision.ops")

    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.offset = strided(3, 4), strided(4, 18)
            self.conv, self.short = ops.DeformConv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2)

        def forward(self, x):
            x = self.stem(x)
            return self.conv(x, self.offset(x)) + self.short(x)

    plan = works(Deformed, images())
    assert {change.name for change in plan.changes if change.role == "learn"} == {"stem"}


class PaddedByStride(nn.Module):
    """Computes its padding from the stride that its convolution tells."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, x):
        n, stride, kernel = x.shape[3], self.conv.stride[0], self.conv.kernel_size[0]
        along = max(kernel - stride, 0) if n % stride == 0 else max(kernel - (n % stride), 0)
        return self.conv(F.pad(x, (along // 2, along - along // 2) * 2))


def test_padding_that_is_computed_from_the_stride():
    assert works(PaddedByStride, images()).whole


@dataclasses.dataclass
class Batch:
    mask: torch.Tensor
    image: torch.Tensor


class FromBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Autoencoder()

    def forward(self, batch):
        return self.net(batch.image) * batch.mask[:, None]


def test_a_dataclass_with_a_mask_first():
    model = FromBatch()
    convert_(model, (Batch(torch.ones(2, 32, 32), images()),))
    set_strides(model, 1.7)
    assert model(Batch(torch.ones(2, 48, 40), images(48, 40))).shape == (2, 3, 48, 40)


class Padding(nn.Module):
    """Takes a list of images of different sizes, pads them to one, and cuts each result back."""

    def __init__(self):
        super().__init__()
        self.net = Autoencoder()

    def forward(self, images):
        height, width = (math.ceil(max(x.shape[axis] for x in images) / 4) * 4 for axis in (1, 2))
        batch = torch.stack([F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in images])
        return [y[:, : x.shape[1], : x.shape[2]] for y, x in zip(self.net(batch), images, strict=True)]


def test_a_list_of_images_of_different_sizes():
    model = Padding()
    convert_(model, ([torch.randn(3, 29, 31), torch.randn(3, 32, 25)],))
    set_strides(model, 1.7)
    for sizes in ([(29, 31), (32, 25)], [(41, 30), (17, 33)]):
        found = model([torch.randn(3, *size) for size in sizes])
        assert [tuple(y.shape[1:]) for y in found] == sizes


class Thresholded(nn.Module):
    """Cannot run without data; a second conversion walks over learned layers with data."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(strided(3, 4), nn.ReLU(), strided(4, 4))

    def forward(self, x):
        return self.net(x) if x.abs().max() > 0 else x


def test_a_second_conversion_of_a_network_that_needs_data():
    model = Thresholded()
    plan = convert_(model, images())
    assert roles(plan) == ["learn", "learn"]
    assert not convert_(model, images()).replaced
    frozen = anystride.freeze_(model.eval(), images())
    assert not convert_(frozen, images()).changes


class Cached(nn.Module):
    """Keeps a grid for the size that it saw last, and looks at its length."""

    def __init__(self):
        super().__init__()
        self.net, self.size = nn.Sequential(strided(3, 4), nn.ReLU(), strided(4, 4)), None

    def forward(self, x):
        y = self.net(x)
        if self.size != y.shape[2:]:
            self.size, self.grid = y.shape[2:], torch.ones(y.shape[2:], device=y.device)
            assert self.grid.sum().item() > 0
        return y * self.grid


def test_the_plan_does_not_depend_on_whether_the_model_ran():
    fresh, warm = Cached(), Cached()
    warm(images())
    plans = [convert_(model, images(), dry_run=True) for model in (fresh, warm)]
    assert roles(plans[0]) == roles(plans[1]) == ["learn", "learn"]
    assert fresh.size is None


def test_follow_then_in_place():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.deep = nn.Sequential(strided(3, 8), nn.ReLU(True), strided(8, 8))
            self.wide = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(True))

        def forward(self, x):
            return self.deep(x) + self.wide(x)

    assert roles(works(Branches, images())) == ["learn", "learn", "follow"]


def test_glue_between_valid_convolutions():
    """A shortcut is cut by what the other branch lost at its borders."""

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.short = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 1, 2)

        def forward(self, x):
            y, z = self.conv(x), self.short(x)
            more = z.shape[3] - y.shape[3]
            return y + (z[:, :, :-more, :-more] if more else z)

    assert sorted(roles(works(Bag, images(32, 32)))) == ["follow", "learn"]


def test_rewritten_methods_keep_their_flags_and_copies():
    class Flagged(nn.Module):
        """A decorated method of a base class, a private name, and super()."""

        def __init__(self):
            super().__init__()
            self.__pools = True

        @torch.no_grad()
        def forward(self, x, *, factor: "Unknown" = 2):  # noqa: F821
            super().train(self.training)
            return F.max_pool2d(x, factor) if self.__pools else x

    model = Flagged()
    convert_(model, images())
    set_strides(model, 1.6)
    for twin in (model, copy.deepcopy(model)):
        assert twin(images()).shape[2:] == (20, 20)
    model._Flagged__pools = False
    assert model(images()).shape[2:] == (32, 32)


def test_rewritten_methods_are_pickled():
    model = Cnn14()
    convert_(model, images())
    set_strides(model, 1.6)
    x = images()
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), model(x))


class Masked(nn.Module):
    """Time is subsampled by slices of a mask, as the convolution does it."""

    def __init__(self, first):
        super().__init__()
        self.conv, self.first = nn.Conv1d(3, 4, 3, 2, 1), first

    def forward(self, x):
        mask = x.abs().sum(1, keepdim=True) >= 0
        if self.first:
            mask = mask[:, :, ::2]
        y = self.conv(x)
        return y * (mask if self.first else mask[:, :, ::2])


@pytest.mark.parametrize(("first", "wanted"), [(False, ["learn", "follow"]), (True, ["stay", "follow"])])
def test_a_mask_has_the_size_of_its_map(first, wanted):
    """It follows; where it comes first, the map follows it."""
    assert roles(works(lambda: Masked(first), images(40))) == wanted


class Asked(nn.Module):
    """Its decoder asks for the sizes that the encoder had."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = strided(3, 4), strided(4, 4)
        self.up2, self.up1 = (nn.ConvTranspose2d(4, n, 3, 2, 1) for n in (4, 3))

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(a.relu())
        c = self.up2(b.relu(), output_size=a.shape)
        return self.up1(c.relu(), output_size=[*x.shape[2:]])


@pytest.mark.parametrize("size", [(32, 32), (33, 46)])
def test_transposed_convolutions_that_are_asked_for_a_size(size):
    plan = works(Asked, images(*size))
    assert roles(plan) == ["learn", "learn", "follow", "follow"]


class Turned(nn.Module):
    """Time is the second axis of its input, and the first of its maps; a kernel covers the last of these."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, (4, 1), (4, 1)), nn.MaxPool2d((4, 1)), nn.Conv2d(4, 4, (4, 1))

    def forward(self, x):
        return self.c(self.b(self.a(x.unsqueeze(1).transpose(2, 3)))).mean((2, 3))


def test_a_size_that_stays_the_examples_is_told():
    plan = works(Turned, torch.randn(2, 3, 64), stride=3.0)
    assert any("b keeps the example's size" in note for note in plan.notes)


def test_a_mean_of_the_whole_map_at_stride_one():
    """The usual end of older networks; a classifier of 1 x 1 convolutions behind it takes a map of any size."""

    def make():
        head = [nn.AvgPool2d(8, stride=1), nn.Conv2d(8, 5, 1), nn.Flatten()]
        return nn.Sequential(strided(3, 8), nn.ReLU(), strided(8, 8), *head)

    for stride in (1.3, 3.0):
        assert roles(works(make, images(), stride=stride)) == ["learn", "learn", "keep"]


class Heatmaps(nn.Module):
    """A quarter of the input's size, where coordinates are found: nothing in the network says that this is so."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(*(strided(n, 4) for n in (3, 4, 4)))
        self.up = nn.ConvTranspose2d(4, 2, 4, 2, 1)

    def forward(self, x):
        maps = self.up(self.down(x)).flatten(2)
        return maps.argmax(2) % (x.shape[3] // 4) * 4.0 + maps.amax(2)


def test_the_last_that_enlarges_gives_the_size_that_it_gave():
    model = Heatmaps()
    plan = convert_(model, images())
    assert (plan.changes[-1].role, plan.changes[-1].why) == (
        "keep",
        "it meets no other map, and is the last to enlarge",
    )
    set_strides(model, 1.5)
    sizes = []
    model.up.register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[2:])))
    model(images()), model(images(64, 48))
    assert sizes == [(8, 8), (16, 12)]


class InPlaceBehindEveryRole(nn.Module):
    """Leads, shares, follows, keeps, enlarges, and along one axis only: each map is changed where it lies."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.short = strided(3, 4), strided(4, 4), nn.Conv2d(4, 4, 1, 2)
        self.far, self.up, self.side = nn.Conv2d(3, 4, 5, 4, 2), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 1)
        self.last, self.tall, self.head = strided(4, 4), nn.Conv2d(4, 4, 3, (2, 1), 1), nn.Linear(4 * 4 * 4, 2)

    def forward(self, x):
        a = F.relu_(self.stem(x))
        b = F.relu_(self.conv(a)) * F.sigmoid(self.short(a).mul_(0.5)) * self.far(x).clamp_(max=2.0)
        c = self.up(b).add_(1.0) * self.side(a)
        d = F.relu_(self.last(b))
        e = F.relu_(self.tall(c)).mean((2, 3))
        return self.head(d.flatten(1)) + e[:, :2]


def test_operations_in_place_behind_every_role():
    def gradients(inplace):
        torch.manual_seed(0)
        model, x = InPlaceBehindEveryRole(), images()
        plan = convert_(model, x, axes={"tall": (0,)})
        set_strides(model, 1.6)
        if not inplace:
            for module in model.modules():
                if hasattr(module, "copies"):
                    module.copies = True
        model(x).square().sum().backward()
        return plan, [p.grad for p in model.parameters()]

    (plan, found), (_, wanted) = gradients(True), gradients(False)
    assert {change.role for change in plan.changes} == {"learn", "share", "follow", "keep"}
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
