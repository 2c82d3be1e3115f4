"""Sizes that a network fixes: along which axis, how they follow from the input's, and where they only seem to fit."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import anystride
from anystride import apply_, convert_
from anystride.convert.plan import Plan
from networks import set_strides

DIFFSTRIDE = (anystride.DiffStride1d, anystride.DiffStride2d, anystride.DiffStride3d)


def trains(model, *inputs):
    """Forward and backward; every stride has a gradient."""
    model.zero_grad()
    out = model(*inputs)
    out = out[0] if isinstance(out, (tuple, list)) else out
    out.square().sum().backward()
    for module in model.modules():
        if isinstance(module, DIFFSTRIDE):
            assert module.stride.grad is not None
            assert module.stride.grad.any()
    return out


class Spectrogram(nn.Module):
    """Two layers; the frequency axis is flattened into a linear layer, time is free."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.b = nn.Conv2d(4, 4, 3, stride=(2, 1), padding=1)
        self.head = nn.Linear(4 * 10, 3)

    def forward(self, x):
        y = self.b(torch.relu(self.a(x)))
        return self.head(y.permute(0, 3, 1, 2).flatten(2))


def test_an_axis_is_fixed_and_the_other_is_not():
    model = Spectrogram()
    plain = copy.deepcopy(model)
    plan = convert_(model, torch.randn(2, 1, 40, 60))
    assert [(change.role, change.axes) for change in plan.changes] == [("learn", None), ("learn", (0, 1))]
    assert plan.changes[1].rules[1] is None
    for steps in (60, 120, 240):
        x = torch.randn(1, 1, 40, steps)
        assert model(x).shape == plain(x).shape == (1, steps // 2, 3)
    set_strides(model, 1.6)
    assert model.b.resample.pool.stride.shape == (1,)
    assert trains(model, torch.randn(2, 1, 40, 64)).shape == (2, 25, 3)
    frozen = copy.deepcopy(model).eval()
    x = torch.randn(2, 1, 40, 64)
    anystride.freeze_(frozen, x)
    torch.testing.assert_close(frozen(x), model.eval()(x))


class Crnn(nn.Module):
    """Text recognition: poolings by (2, 1) keep the width, rows are flattened, columns are steps of an LSTM."""

    def __init__(self):
        super().__init__()
        widths = (1, 4, 4, 4, 4)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.pools = nn.ModuleList(
            [nn.MaxPool2d(2, 2), nn.MaxPool2d(2, 2), *(nn.MaxPool2d((2, 2), (2, 1), (0, 1)) for _ in range(2))]
        )
        self.last = nn.Conv2d(4, 8, 2)
        self.rnn = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x):
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x = pool(torch.relu(conv(x)))
        x = torch.relu(self.last(x))
        if x.shape[2] != 1:
            raise ValueError("the height must be 1")
        return self.rnn(x.squeeze(2).transpose(1, 2))[0]


def test_crnn_gives_the_steps_that_it_gave():
    model = Crnn()
    plan = convert_(model, torch.randn(2, 1, 32, 100))
    assert {change.role for change in plan.changes} == {"learn"}
    steps = [model(torch.randn(1, 1, 32, width)).shape[1] for width in (60, 100, 160, 200, 400)]
    assert steps == [16, 26, 41, 51, 101]
    set_strides(model, 1.6)
    assert trains(model, torch.randn(2, 1, 32, 100)).shape[1] > 5


def test_axes_are_chosen_by_the_user():
    model = Crnn()
    plan = convert_(model, torch.randn(2, 1, 32, 100), axes={"pools.2": (0,), "pools.3": ["height"]})
    assert [change.axes for change in plan.changes] == [None, None, (0,), (0,)]
    set_strides(model, 1.0)
    assert model(torch.randn(1, 1, 32, 100)).shape[1] == 101


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"pools.2": (2,)}, "'pools.2' has the axes height, width, 0, 1, got"),
        ({"rnn": (0,)}, "'rnn' has no stride"),
        ({"nobody": (0,)}, "must name modules of the model, got 'nobody'"),
    ],
)
def test_axes_that_are_none(axes, message):
    with pytest.raises(ValueError, match=message):
        convert_(Crnn(), torch.randn(2, 1, 32, 100), axes=axes)


class Windows(nn.Module):
    """What follows cuts the map into windows of 4: its size must stay as the input gives it, whatever came before."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.b = nn.Conv2d(4, 4, 3, stride=2)

    def forward(self, x):
        y = self.b(F.pad(torch.relu(self.a(x)), (0, 1, 0, 1)))
        n, c, h, w = y.shape
        return y.view(n, c, h // 4, 4, w // 4, 4).mean((3, 5))


def test_a_size_that_is_kept_follows_from_the_inputs():
    model = Windows()
    plan = convert_(model, torch.randn(2, 3, 32, 48))
    assert [change.role for change in plan.changes] == ["learn", "keep"]
    again = apply_(Windows(), Plan.from_json(plan.to_json()))
    for net in (model, again):
        set_strides(net, 1.6)
        for size in ((32, 48), (64, 32), (48, 48)):
            assert net(torch.randn(1, 3, *size)).shape[2:] == (size[0] // 16, size[1] // 16)
    trains(model, torch.randn(2, 3, 32, 48))


class Padded(nn.Module):
    """A decoder that pads what it made larger, whatever that takes, to the size of what it joins."""

    def __init__(self, crop=False):
        super().__init__()
        self.a, self.b = (nn.Conv2d(n, 4, 3, stride=2, padding=1) for n in (3, 4))
        self.up, self.out = nn.ConvTranspose2d(4, 4, 2, stride=2), nn.ConvTranspose2d(8, 2, 2, stride=2)
        self.crop = crop

    def forward(self, x):
        a = torch.relu(self.a(x))
        b = self.up(torch.relu(self.b(a)))
        if self.crop:
            top, left = ((m - n) // 2 for m, n in zip(a.shape[2:], b.shape[2:], strict=True))
            a = a[:, :, top : top + b.shape[2], left : left + b.shape[3]]
        else:
            rows, columns = (m - n for m, n in zip(a.shape[2:], b.shape[2:], strict=True))
            b = F.pad(b, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return self.out(torch.cat([a, b], 1))


@pytest.mark.parametrize(("crop", "size"), [(False, (32, 32)), (False, (34, 42)), (True, (32, 32)), (True, (36, 44))])
def test_glue_that_makes_sizes_fit_is_a_meeting_place(crop, size):
    model = Padded(crop)
    plain = model(torch.randn(1, 3, *size)).shape
    plan = convert_(model, torch.randn(2, 3, *size))
    assert next(change for change in plan.changes if change.name == "up").role == "follow"
    assert model(torch.randn(1, 3, *size)).shape == plain
    set_strides(model, 1.5)
    seen = []
    model.up.register_forward_hook(lambda m, args, out: seen.append(out.shape[2:]))
    model.a.register_forward_hook(lambda m, args, out: seen.append(out.shape[2:]))
    trains(model, torch.randn(2, 3, *size))
    (a, b) = seen
    assert max(m - n for m, n in zip(a, b, strict=True)) <= 1, "the map is padded or cropped by more than a sample"


class Pooled(nn.Module):
    """One pooling and one interpolation, each used at three resolutions."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.back = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(3))
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, x):
        maps = [torch.relu(self.enter(x))]
        for conv in self.down:
            maps.append(torch.relu(conv(self.pool(maps[-1]))))
        y = maps.pop()
        for conv in self.back:
            y = conv(torch.cat([self.up(y), maps.pop()], 1))
        return y


def test_one_module_at_several_resolutions():
    model = Pooled()
    plain = copy.deepcopy(model)
    plan = convert_(model, torch.randn(2, 3, 32, 32))
    pool, up = plan.changes
    assert (pool.role, up.role) == ("learn", "follow")
    assert up.turns == ("pool@1", "pool@0", "input")
    for size in ((32, 32), (48, 40)):
        assert model(torch.randn(1, 3, *size)).shape == plain(torch.randn(1, 3, *size)).shape
    set_strides(model, 1.5)
    for size in ((32, 32), (41, 27)):
        assert trains(model, torch.randn(1, 3, *size)).shape[2:] == size
    x = torch.randn(1, 3, 32, 32)
    want = model.eval()(x)
    torch.testing.assert_close(anystride.freeze_(copy.deepcopy(model), x)(x), want)
    assert anystride.macs(model, x).item() > 0


class Siamese(nn.Module):
    """One trunk for images of two sizes."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)
        )

    def forward(self, small, large):
        a, b = self.trunk(small), self.trunk(large)
        return F.conv2d(b, a.mean(0, keepdim=True).mean((2, 3), keepdim=True).expand(1, 4, 1, 1))


def test_a_trunk_at_two_sizes():
    model = Siamese()
    plan = convert_(model, (torch.randn(1, 3, 24, 24), torch.randn(1, 3, 48, 48)))
    assert [change.role for change in plan.changes] == ["learn", "learn"]
    set_strides(model, 1.6)
    trains(model, torch.randn(1, 3, 24, 24), torch.randn(1, 3, 48, 48))


def test_a_norm_that_larger_strides_leave_one_sample_is_told_and_learns():
    def block(channels):
        return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))

    model = nn.Sequential(block(3), block(4), nn.Conv2d(4, 4, 3, padding=1), nn.InstanceNorm2d(4))
    plan = convert_(model, torch.randn(2, 3, 8, 8))
    assert [change.role for change in plan.changes] == ["learn", "learn"]
    assert "strides that grow leave a norm a single sample" in str(plan)
    set_strides(model, 1.5)
    trains(model, torch.randn(2, 3, 8, 8))
    large = convert_(nn.Sequential(block(3), nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4)), torch.randn(2, 3, 32, 32))
    assert "single sample" not in str(large)


class Regions(nn.Module):
    """A head on regions of a size of its own, which only training has."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.mask = nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, x):
        y = self.trunk(x)
        if not self.training:
            return y
        from torchvision.ops import roi_align

        box = torch.tensor([[0.0, 1.0, 1.0, 9.0, 9.0]])
        return self.mask(roi_align(y, box, (5, 5)))


def test_a_size_that_does_not_follow_from_the_input_is_not_guessed():
    pytest.importorskip("torchvision")
    model = Regions()
    plan = convert_(model, torch.randn(1, 3, 32, 32))
    assert {change.key: change.rules for change in plan.changes if change.role == "keep"} == {"mask": (10, 10)}
    for size in ((32, 32), (48, 40)):
        assert model(torch.randn(1, 3, *size)).shape == (1, 2, 10, 10)


class Boxed(nn.Module):
    """A network that takes boxes beside its image, which do not grow with it."""

    def __init__(self, only_in_training):
        super().__init__()
        self.only_in_training, self.longest = only_in_training, 100
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.valid = nn.Conv2d(4, 4, 3)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, x, boxes):
        left, top, right, bottom = boxes.unbind(1)
        if x.shape[-1] > self.longest:
            raise ValueError("too long")
        if self.only_in_training and not self.training:
            return self.down(x)
        return self.up(self.valid(self.down(x))) + ((right - left) * (bottom - top)).mean()


@pytest.mark.parametrize("only_in_training", [False, True])
def test_a_size_is_followed_where_boxes_stand_beside_the_image(only_in_training):
    boxes = torch.tensor([[0.0, 1.0, 9.0, 9.0]])
    model = Boxed(only_in_training)
    plain = copy.deepcopy(model)
    convert_(model, (torch.randn(1, 3, 32, 32), boxes))
    for size in ((32, 32), (48, 40)):
        x = torch.randn(1, 3, *size)
        assert model(x, boxes).shape == plain(x, boxes).shape
    set_strides(model, 1.5)
    assert model(torch.randn(1, 3, 48, 40), boxes).shape == plain(torch.randn(1, 3, 48, 40), boxes).shape


def test_a_size_that_no_larger_run_bears_out_is_told():
    model = Boxed(False)
    model.longest = 50
    plan = convert_(model, (torch.randn(1, 3, 32, 32), torch.tensor([[0.0, 1.0, 9.0, 9.0]])))
    assert "up keeps the example's size whatever the input's: how it follows was not found" in plan.notes


class Targeted(nn.Module):
    """A second head that is used in training alone, which needs targets."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 2)
        self.second = nn.Sequential(nn.Conv2d(4, 2, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(2 * 4 * 4, 2))

    def forward(self, x, targets=None):
        x = self.down(x)
        first = self.head(x.mean((2, 3)))
        if not self.training:
            return first
        if targets is None:
            raise ValueError("targets are missing")
        return F.cross_entropy(first, targets) + F.cross_entropy(self.second(x), targets)


def test_what_runs_in_training_alone_is_told_or_seen():
    x, targets = torch.randn(2, 3, 16, 16), torch.tensor([0, 1])
    plan = convert_(Targeted(), x)
    assert any("that mode fails on the example (targets are missing)" in note for note in plan.notes)
    model = Targeted()
    plan = convert_(model, (x, targets))
    assert not any("training" in note for note in plan.notes)
    set_strides(model, 1.4)
    model.train()
    trains(model, x, targets)
