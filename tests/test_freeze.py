"""A frozen network is the learned one in evaluation mode, without anything that learns."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from anystride import DiffStride1d, DiffStride2d, SpectralPool2d, convert_, learned_strides
from anystride.freeze import freeze_
from anystride.frozen import Frozen
from anystride.hosts import NAMES, roles_of
from anystride.layers import DiffStrideNd
from anystride.resample import Place
from anystride.spectral import SpectralPoolNd
from networks import learn

# Largest difference between learned and frozen, relative to the largest output: rounding in another order.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Forked(nn.Module):
    """Two chains, a pooling that reaches beyond the border, a skip that is concatenated, a 1 x 1 shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.deep = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(6, 8, 1, stride=2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head, self.drop = nn.Conv2d(14, 4, 3, padding=1), nn.Dropout(0.5)

    def forward(self, x):
        a = self.pool(self.norm(self.stem(x)).relu())
        b = (self.deep(a) + self.shortcut(a)).relu()
        return self.drop(self.head(torch.cat([a, self.up(b)], 1)))


class Conv2dSame(nn.Conv2d):
    """TensorFlow's padding, which depends on the stride and the size."""

    def forward(self, x):
        sides = []
        for n, k, s in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            sides += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride)


def converted(model, example, factor=1.15, **options):
    """In evaluation mode, with strides that are no longer whole numbers."""
    plan = convert_(model, example, **{"ramp": "inner", **options})
    assert plan.replaced
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, DiffStrideNd):
                module.stride.mul_(factor)
    return model.eval()


def learned_parts(model):
    return [m for m in model.modules() if isinstance(m, (Place, DiffStrideNd, SpectralPoolNd))]


def check_equal(learned, frozen, *inputs, bound=None):
    for x in inputs:
        with torch.no_grad():
            y, z = learned(x), frozen(x)
        assert z.shape == y.shape
        assert z.dtype == y.dtype
        error = ((y - z).abs().max() / y.abs().max()).item()
        assert error <= (ROUNDING[y.dtype] if bound is None else bound), error


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("ramp", ["inner", "cosine"])
def test_frozen_network_is_the_learned_one(dtype, layout, device, ramp):
    model = converted(Forked(), torch.randn(1, 3, 32, 24), ramp=ramp).to(device, dtype, memory_format=layout)
    sizes = ((2, 3, 32, 24), (1, 3, 41, 33))
    inputs = [torch.randn(size, device=device).to(dtype).contiguous(memory_format=layout) for size in sizes]
    frozen = copy.deepcopy(model)
    assert freeze_(frozen, *inputs) is frozen
    check_equal(model, frozen, *inputs)
    check_equal(model, frozen, torch.randn(5, 3, 32, 24, device=device).to(dtype).contiguous(memory_format=layout))
    assert learned_parts(frozen) == []
    assert learned_strides(frozen) == {}
    assert {n for n in frozen.state_dict() if "matrix" not in n} == set(Forked().state_dict())
    frozen.load_state_dict(frozen.state_dict())
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    matrices = [buffer for name, buffer in frozen.named_buffers() if "matrix" in name]
    assert matrices
    assert all(matrix.dtype == wanted and matrix.device.type == device.type for matrix in matrices)
    assert "sizes: (32, 24) to (" in repr(frozen) or ramp == "cosine"


def test_another_size_is_refused_by_name():
    model = nn.Sequential(nn.Identity(), Forked())
    freeze_(converted(model, torch.randn(1, 3, 32, 24)), torch.randn(1, 3, 32, 24), torch.randn(1, 3, 24, 24))
    expected = (
        r"layer '1\.stem' was frozen for maps of size \(32, 24\), \(24, 24\); got size \(30, 30\): freeze the learned"
    )
    with pytest.raises(ValueError, match=expected):
        model(torch.randn(1, 3, 30, 30))


@pytest.mark.parametrize("ramp", ["inner", "outer"])
@pytest.mark.parametrize("axes", [1, 3])
def test_one_and_three_axes(axes, ramp):
    conv, pool = (nn.Conv1d, nn.AvgPool1d) if axes == 1 else (nn.Conv3d, nn.MaxPool3d)
    net = nn.Sequential(conv(2, 4, 3, stride=2, padding=1), nn.ReLU(), pool(2), conv(4, 3, 1, stride=2))
    sizes = [(2, 2, *size[:axes]) for size in ((18, 14, 12), (21, 16, 11))]
    model = converted(net, torch.randn(sizes[0]), ramp=ramp, smoothness=2.0)
    inputs = [torch.randn(size) for size in sizes]
    check_equal(model, freeze_(copy.deepcopy(model), *inputs), *inputs, bound=2e-6)


def test_plain_layers_and_several_names():
    pool = DiffStride2d((1.7, 2.3), smoothness=2.0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.ReLU(), pool, SpectralPool2d(output_size=(5, 4)))
    net.add_module("again", nn.ModuleList([SpectralPool2d(stride=1.5, norm="ortho"), pool])[0])
    x = torch.randn(2, 3, 40, 31)
    frozen = freeze_(copy.deepcopy(net), x)
    assert frozen[1] is frozen[3]
    assert len(frozen[1].outputs) == 2
    check_equal(net, frozen, x)
    assert learned_parts(frozen) == []


def test_lengths_are_part_of_a_size():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.fixed = DiffStride1d(2.0), SpectralPool2d(stride=2.0)

        def forward(self, x, told):
            return self.pool(x[:, :, 0], lengths=told[:1]), self.fixed(x, told)

    model, x = Counted(), torch.randn(2, 3, 20, 20)
    frozen = freeze_(copy.deepcopy(model), (x, (22, 24)), {"x": x, "told": (20, 18)})
    for told in ((22, 24), (20, 18)):
        for y, z in zip(model(x, told), frozen(x, told), strict=True):
            torch.testing.assert_close(y, z, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"got size \(20,\) \(lengths \(23,\)\)"):
        frozen(x, (23, 20))


def test_one_layer_at_several_sizes_in_one_pass():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Conv2d(4, 4, 3, stride=2, padding=1)

        def forward(self, x):
            once = self.step(x)
            return self.step(once).mean((2, 3)) + once.mean((2, 3))

    model, x = Pyramid(), torch.randn(2, 4, 24, 16)
    learn(model.step, (2.2, 1.8))
    frozen = freeze_(copy.deepcopy(model), x)
    assert len(frozen.step.after.outputs) == 2
    check_equal(model, frozen, x)


def test_offset_of_same_padding_is_folded_in():
    net = nn.Sequential(Conv2dSame(3, 4, 3, stride=2), nn.ReLU(), Conv2dSame(4, 4, 5, stride=2))
    model = converted(net, torch.randn(1, 3, 24, 21), factor=1.0)
    assert model[0].resample.geometry.offset((24, 21)) == [1, 0]
    x = torch.randn(2, 3, 24, 21)
    frozen = freeze_(copy.deepcopy(model), x)
    check_equal(model, frozen, x)
    first, skipped = frozen[0].resample.matrix0, 1
    assert first.shape == (12, 24)
    assert first[:, :skipped].abs().max() == 0


def test_following_layers_become_constant():
    model = converted(Forked(), torch.randn(1, 3, 32, 24), factor=1.3)
    x = torch.randn(2, 3, 32, 24)
    frozen = freeze_(copy.deepcopy(model), x)
    check_equal(model, frozen, x)
    assert frozen.up.resample.mode == "bilinear"
    assert not list(frozen.up.resample.buffers())
    alone = frozen.up.resample(torch.randn(1, 1, *model.deep.resample.seen[1]))  # needs no layer before it
    assert tuple(alone.shape[2:]) == model.pool.resample.seen[1]


def test_records_of_calls_vanish():
    class Noted(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2, mode="bilinear")

        def forward(self, x):
            return self.up(self.down(x)) + x[:, :1]

    model = converted(Noted(), torch.randn(1, 3, 24, 24))
    assert roles_of(model) == ("scope",)
    frozen, x = copy.deepcopy(model), torch.randn(2, 3, 24, 24)
    freeze_(frozen, x)
    check_equal(model, frozen, x)
    assert type(frozen) is Noted
    assert NAMES not in frozen.__dict__


def shortcut(inner, outer, stride=2.0, norm="forward", axes=2, **options):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](inner, outer, options.pop("kernel_size", 1), **options)
    conv.stride = (2,) * axes
    learn(conv, stride, norm=norm)
    return nn.Sequential(conv)


def is_early(model):
    assert type(model[0].conv) in (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    assert hasattr(model[0], "before") != hasattr(model[0], "after")
    return hasattr(model[0], "before")


@pytest.mark.parametrize(
    ("arguments", "size", "early"),
    [
        ({"inner": 16, "outer": 32}, (16, 16), True),
        ({"inner": 64, "outer": 32}, (16, 16), True),
        ({"inner": 16, "outer": 32, "axes": 1}, (24,), True),
        ({"inner": 8, "outer": 16, "axes": 3}, (8, 8, 8), True),
        ({"inner": 16, "outer": 32, "groups": 4, "padding": "same"}, (16, 16), True),
        ({"inner": 64, "outer": 2}, (16, 16), False),  # more channels for the operator than the convolution saves
        ({"inner": 24, "outer": 20, "stride": 1.02}, (16, 16), False),  # hardly smaller
        ({"inner": 32, "outer": 64, "kernel_size": 3, "padding": 1}, (16, 16), True),
        ({"inner": 64, "outer": 4, "kernel_size": 3, "padding": 1}, (16, 16), False),
        ({"inner": 16, "outer": 32, "padding": 1}, (16, 16), True),
        ({"inner": 16, "outer": 32, "norm": "ortho"}, (16, 16), False),  # the bias would be scaled as well
        ({"inner": 16, "outer": 32, "norm": "ortho", "bias": False}, (16, 16), True),
    ],
)
def test_convolution_runs_where_it_costs_least(arguments, size, early):
    model = shortcut(**arguments)
    x = torch.randn(2, model[0].in_channels, *size)
    frozen = freeze_(copy.deepcopy(model), x)
    assert is_early(frozen) == early
    check_equal(model, frozen, x, bound=1e-5)
    assert is_early(freeze_(frozen, x)) == early


def test_convolution_that_is_not_torchs_own_stays_in_order():
    class Scaled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).square()

    model, x = nn.Sequential(Scaled(16, 32, 1, stride=2)), torch.randn(2, 16, 16, 16)
    convert_(model, x)
    frozen = freeze_(copy.deepcopy(model), x)
    assert isinstance(frozen[0], Scaled)
    check_equal(model, frozen, x)


def test_hooks_and_modes_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), DiffStride2d(1.5))
    calls, seen = [], []
    model[0].register_forward_hook(lambda module, args, output: calls.append((args[0].shape[2:], output.shape[2:])))
    converted(model, torch.randn(1, 3, 24, 24))
    handle = model[1].register_forward_hook(lambda module, args, output: seen.append(type(module)))
    model.train()
    model[1].eval()
    flags = [module.training for module in model]
    x = torch.randn(1, 3, 24, 24)
    calls.clear()
    model(x)
    freeze_(model, x)
    assert [module.training for module in model] == flags
    assert model[0].conv.training
    seen.clear()
    model(x)
    assert seen == [Frozen]
    assert calls[0] == calls[-1]  # a hook on a convolution sees the map before and after all that stands there
    handle.remove()
    model(x)
    assert seen == [Frozen]


def state(model):
    hooks = [(*m._forward_hooks.values(), *m._forward_pre_hooks.values()) for m in model.modules()]
    return [(name, id(m), m.training) for name, m in model.named_modules()], hooks


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ((), ValueError, "example_inputs must have an entry"),
        ((torch.randn(1, 3, 24, 24), torch.randn(1, 5, 24, 24)), RuntimeError, "channels"),
        (
            (torch.randn(1, 3, 44, 44), torch.randn(1, 3, 48, 48)),
            ValueError,
            r"layer 'up' turns maps of size \(6, 6\) into \(11, 11\) and into \(12, 12\), as it follows maps",
        ),
    ],
)
def test_a_model_that_cannot_be_frozen_stays_as_it_was(examples, error, message):
    model = converted(Forked(), torch.randn(1, 3, 48, 48), factor=1.0)
    model.train()
    model.norm.eval()
    before, x = state(model), torch.randn(2, 3, 48, 48)
    statistics = model.norm.running_mean.clone()
    with pytest.raises(error, match=message):
        freeze_(model, *examples)
    assert state(model) == before
    assert torch.equal(model.norm.running_mean, statistics)
    assert learned_strides(model)
    freeze_(model, x)
    assert torch.equal(model.norm.running_mean, statistics)
    assert learned_parts(model) == []


def test_layers_that_no_example_reaches():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = DiffStride2d(2.0), DiffStride2d(2.0)

        def forward(self, x):
            return (self.main(x), self.side(x)) if self.training else self.main(x)

    model, x = Auxiliary(), torch.randn(1, 2, 16, 16)
    freeze_(model, x)
    assert repr(model.side) == "Frozen(sizes: none)"
    with pytest.raises(ValueError, match="layer 'side' was frozen for no map, as no example input"):
        model.side(x)
    unused = nn.Sequential(nn.Identity())
    unused[0].pool = DiffStride2d(2.0)
    with pytest.raises(ValueError, match="reached no learned layer"):
        freeze_(unused, x)
    assert isinstance(unused[0].pool, DiffStride2d)


def test_nothing_to_freeze():
    x, plain = torch.randn(1, 3, 16, 16), nn.Sequential(nn.Conv2d(3, 4, 3))
    modules = list(plain.modules())
    assert freeze_(plain, x) is plain
    assert list(plain.modules()) == modules
    frozen = freeze_(nn.Sequential(DiffStride2d(2.0)), x)
    layer = frozen[0]
    assert freeze_(frozen, torch.randn(1, 3, 20, 20))[0] is layer
    alone = freeze_(DiffStride2d(2.0), x)
    assert isinstance(alone, Frozen)


def test_an_axis_that_stays_has_no_matrix():
    model = nn.Sequential(SpectralPool2d(stride=(1.0, 2.0)), SpectralPool2d(output_size=(16, 8)))
    frozen = freeze_(model, torch.randn(1, 2, 16, 16))
    assert [tuple(buffer.shape) for buffer in frozen.buffers()] == [(8, 16)]
    square = freeze_(nn.Sequential(DiffStride2d(2.0)), torch.randn(1, 2, 16, 16))
    assert len(list(square.buffers())) == 1, "axes with one matrix share it"


def test_frozen_models_are_kept_trained_and_cast():
    model = converted(Forked(), torch.randn(1, 3, 32, 24))
    x = torch.randn(2, 3, 32, 24)
    learned = copy.deepcopy(model)
    with torch.inference_mode():
        freeze_(model, x)
    again = freeze_(copy.deepcopy(learned), x)
    again.load_state_dict(model.state_dict())
    check_equal(model, again, x, bound=0)
    check_equal(model, pickle.loads(pickle.dumps(model)), x, bound=0)
    check_equal(copy.deepcopy(learned).double(), copy.deepcopy(model).double(), x.double(), bound=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_equal(learned, model, x)
    gradients = []
    for net in (learned, model):
        inputs = x.clone().requires_grad_()
        net(inputs).square().sum().backward()
        gradients.append(inputs.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


class Decoder(nn.Module):
    """Poolings, one of which reaches beyond the border, and two layers that enlarge to what was there before."""

    def __init__(self):
        super().__init__()
        self.first, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(3, 2, ceil_mode=True)
        self.near = nn.Upsample(scale_factor=2)
        self.smooth = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.head = nn.Conv2d(24, 2, 1)

    def forward(self, x):
        a = self.first(x).relu()
        b = self.second(self.pool(a)).relu()
        c = torch.cat([self.near(self.last(b)), b], dim=1)
        return self.head(torch.cat([self.smooth(c), a], dim=1))


class Functions(nn.Module):
    """Calls functions that change the resolution."""

    def __init__(self):
        super().__init__()
        self.down, self.conv = nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        a = self.down(x)
        return F.interpolate(F.max_pool2d(self.conv(a), 2), scale_factor=2.0) + a


def in_a_row():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 8, 1, stride=2)
    )


def sound():
    return nn.Sequential(nn.Conv1d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool1d(3, 2, ceil_mode=True))


def resnet18():
    return pytest.importorskip("torchvision").models.resnet18(num_classes=5)


def plain_layers():
    return nn.Sequential(DiffStride2d((1.7, 2.3), smoothness=2.0), nn.ReLU(), SpectralPool2d(output_size=(9, 8)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [in_a_row, sound, Decoder, Functions, Forked, resnet18, plain_layers])
def test_torchscript(make):
    axes = 1 if make is sound else 2
    sizes = [(2, 3, *size[:axes]) for size in ((48, 40), (64, 48))]
    model, inputs = make(), [torch.randn(size) for size in sizes]
    model = model.eval() if make is plain_layers else converted(model, inputs[0])
    frozen = freeze_(copy.deepcopy(model), *inputs)
    check_equal(model, frozen, *inputs, bound=1e-5)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(frozen), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    check_equal(frozen, scripted, *inputs, bound=1e-5)
    check_equal(frozen, torch.jit.trace(frozen, inputs[0]), inputs[0], bound=1e-6)
    if make in (in_a_row, sound):  # torch's own layers take a map without a batch
        torch.testing.assert_close(scripted(inputs[0][0]), frozen(inputs[0])[0], rtol=0, atol=1e-5)
    with pytest.raises(Exception, match="was frozen for maps of size"):
        scripted(torch.randn(2, 3, *(50, 60)[:axes]))
    check_equal(frozen.double(), scripted.double(), *[x.double() for x in inputs], bound=1e-5)


def test_torchs_layers_are_ordinary_when_frozen():
    """What stands there is of classes of this package and of torch, none of which is derived for one network."""
    model, x = converted(Decoder(), torch.randn(1, 3, 32, 32)), torch.randn(2, 3, 32, 32)
    seen = []
    model.pool.register_forward_hook(lambda module, args, output: seen.append((args[0].shape, output.shape)))
    model(x)
    frozen = freeze_(copy.deepcopy(model), x)
    assert all(roles_of(module) == () for module in frozen.modules())
    assert type(frozen.pool.layer) is nn.MaxPool2d
    assert [name for name, _ in frozen.last.named_children()] == ["border", "layer", "resample"]
    frozen(x)
    assert seen[0] == seen[-1]
    assert len(seen) == 3, "and once at freezing"
    assert not frozen.pool.training
    assert {name for name in frozen.state_dict() if "matrix" not in name} == set(Decoder().state_dict())


def test_a_state_dict_may_bring_its_type():
    model = converted(in_a_row(), torch.randn(1, 3, 48, 40))
    x = torch.randn(2, 3, 48, 40).bfloat16()
    half = {name: value.bfloat16() for name, value in model.state_dict().items()}
    learned = copy.deepcopy(model)
    nn.DataParallel(learned).load_state_dict({f"module.{name}": v for name, v in half.items()}, assign=True)
    assert all(stride.dtype == torch.float32 for stride in learned_strides(learned).values())
    frozen = freeze_(copy.deepcopy(model), x.float())
    expected = copy.deepcopy(frozen).bfloat16()(x)
    half = {name: value.bfloat16() for name, value in frozen.state_dict().items()}
    frozen.load_state_dict(half, assign=True)
    assert all(value.dtype == torch.bfloat16 for value in frozen.state_dict().values())
    assert torch.equal(frozen(x), expected)


class Joint(nn.Module):
    """A convolution and a learned layer that runs with it, or after it."""

    def __init__(self, stride, bias=True, joint=True):
        super().__init__()
        self.conv, self.pool = nn.Conv1d(4, 4, 3, padding=1, bias=bias), DiffStride1d(stride, ramp="cosine")
        self.joint = joint

    def forward(self, x):
        return self.pool(x, convolution=self.conv) if self.joint else self.pool(self.conv(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("stride", [1.0, 1.0004, 1.01, 2.0, 2.2])
def test_a_layer_that_runs_a_convolution_is_frozen_with_its_borders(stride, joint, bias):
    model = Joint(stride, bias, joint).double().eval()
    x = torch.randn(2, 4, 64, dtype=torch.float64)
    learned = model(x)  # with a gradient
    with torch.no_grad():
        torch.testing.assert_close(model(x), learned, rtol=0, atol=1e-12)
        torch.testing.assert_close(freeze_(copy.deepcopy(model), x)(x), learned, rtol=0, atol=1e-12)
