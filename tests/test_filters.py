"""Frozen networks whose strides are whole and whose windows are local: ordinary convolutions, for maps of any size."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn

from anystride import DiffStride1d, DiffStride2d, convert_, freeze_, macs
from anystride.filters import FilterPlace
from anystride.frozen import Frozen, FrozenConv, FrozenPlace

SIZES = [(32, 32), (33, 32), (47, 61), (31, 50)]


class Branches(nn.Module):
    """A stem, a depthwise stage, and a residual block with a pooled shortcut."""

    def __init__(self, pools=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, stride=2, padding=4, dilation=2, groups=8)
        self.main = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        pool = nn.AvgPool2d(2, ceil_mode=True) if pools else nn.AvgPool2d(3, 2, 1)
        self.shortcut = nn.Sequential(pool, nn.Conv2d(8, 12, 1))
        self.grouped = nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=3)

    def forward(self, x):
        x = self.depthwise(torch.relu(self.stem(x)))
        return self.grouped(torch.relu(self.main(x) + self.shortcut(x)))


def in_a_row():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(32, 32, 3, 2, 1, groups=32, bias=False),
        nn.Conv2d(32, 4, 1, 2),
    )


def frozen(model, x, **options):
    torch.manual_seed(0)
    convert_(model.eval(), x, **options)
    return model, freeze_(copy.deepcopy(model), x)


@pytest.mark.parametrize("make", [Branches, in_a_row])
@pytest.mark.parametrize("border", [None, "circular", "replicate"])
def test_any_size_is_what_was_learned(make, border):
    model, served = frozen(make(), torch.randn(1, 3, *SIZES[0]), ramp="cosine", padding_mode=border)
    for size in SIZES[:1] if border == "circular" else SIZES:
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(served(x), model(x), rtol=1e-4, atol=1e-5)
    assert border == "circular" or not any(isinstance(module, FrozenPlace) for module in served.modules())


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("ramp", ["cosine", "inner"])
def test_a_convolution_that_does_not_pad_with_zeros(padding, ramp):
    """It is what it is with a layer that pads before it, at the same costs, learned and frozen."""
    pads = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "circular": nn.CircularPad2d}
    x = torch.randn(2, 3, 33, 32)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1, padding_mode=padding),
        nn.ReLU(),
        nn.Conv2d(24, 24, (5, 3), (2, 1), (2, 1), groups=24, padding_mode=padding),
        nn.ReLU(),
        nn.Conv2d(24, 4, 1, 2, padding_mode=padding),
    )
    apart = nn.Sequential(
        *(pads[padding](1), nn.Conv2d(3, 24, 3, 2), nn.ReLU()),
        *(pads[padding]((1, 1, 2, 2)), nn.Conv2d(24, 24, (5, 3), (2, 1), groups=24), nn.ReLU()),
        nn.Conv2d(24, 4, 1, 2),
    )
    apart.load_state_dict(dict(zip(apart.state_dict(), model.state_dict().values(), strict=True)))
    model, served = frozen(model, x, ramp=ramp)
    apart, _ = frozen(apart, x, ramp=ramp)
    torch.testing.assert_close(model(x), apart(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(x[0]), apart(x[0]), rtol=1e-4, atol=1e-5)
    assert macs(model, x) == macs(apart, x)
    assert served(x).shape == (2, 4, 5, 8)
    torch.testing.assert_close(served(x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.jit.script(served)(x), model(x), rtol=1e-4, atol=1e-5)
    assert {name for name in model.state_dict() if not name.endswith("stride")} <= set(served.state_dict())
    assert all(part.padding_mode == "zeros" for part in served.modules() if isinstance(part, nn.Conv2d))


def test_an_odd_circular_map_keeps_its_matrices():
    """Its period is longer than it is: no filter of torch wraps around so."""
    x = torch.randn(1, 3, 33, 32)
    model, served = frozen(in_a_row(), x, ramp="cosine", padding_mode="circular")
    torch.testing.assert_close(served(x), model(x), rtol=1e-4, atol=1e-5)
    assert any(isinstance(module, FrozenPlace) for module in served.modules())


def test_a_depthwise_convolution_takes_its_filter_in():
    model, served = frozen(in_a_row(), torch.randn(1, 3, 32, 32))
    (inner,) = served[2].children()
    assert type(inner) is nn.Conv2d
    assert (inner.kernel_size, inner.stride, inner.padding) == ((9, 9), (2, 2), (4, 4))
    assert inner.weight.requires_grad
    assert model[2].weight.shape[-1] == 3
    first = next(iter(served[0].children()))
    assert isinstance(first, FilterPlace)
    assert all(type(layer) is nn.Conv2d and layer.groups == 3 for layer in first)


def test_a_weight_that_is_shared_stays():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, groups=4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1, groups=4))
    model[2].weight = model[0].weight
    x = torch.randn(1, 4, 32, 32)
    model, served = frozen(model, x)
    torch.testing.assert_close(served(x), model(x), rtol=1e-4, atol=1e-5)
    assert served[0].conv.weight is served[2].conv.weight


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx_with_any_height_and_width():
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, served = frozen(Branches(pools=False), torch.randn(1, 3, 32, 32))
    height, width = (torch.export.Dim(name, min=20, max=400) for name in ("height", "width"))
    shapes = {0: torch.export.Dim("batch"), 2: height, 3: width}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            served, (torch.randn(2, 3, 40, 44),), dynamo=True, dynamic_shapes=(shapes,), verbose=False
        )
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    assert not {node.op_type for node in program.model_proto.graph.node} & {"MatMul", "DFT", "Expand"}
    for size in SIZES:
        x = torch.randn(3, 3, *size)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_other_forms_of_a_graph():
    model, served = frozen(Branches(), torch.randn(1, 3, 32, 32))
    x = torch.randn(2, 3, 47, 61)
    for form in (torch.jit.script(served), torch.jit.trace(served, x), torch.fx.symbolic_trace(served)):
        torch.testing.assert_close(form(x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(served(x[0]), model(x)[0], rtol=1e-4, atol=1e-5)
    again = frozen(Branches(), torch.randn(1, 3, 32, 32))[1]
    again.load_state_dict(served.state_dict())
    torch.testing.assert_close(again(x), served(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_types(dtype):
    x = torch.randn(2, 3, 32, 32)
    model, _ = frozen(Branches(), x)
    expected = model(x)
    served = freeze_(copy.deepcopy(model).to(dtype), x.to(dtype))
    bound = {torch.float64: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}[dtype]
    assert (served(x.to(dtype)).double() - expected).abs().max() < bound * expected.abs().max()
    assert {p.dtype for p in served.parameters()} == {dtype}


def test_strides_that_moved_and_padding_that_follows_them_keep_their_matrices():
    x = torch.randn(1, 3, 32, 32)
    model = in_a_row().eval()
    convert_(model, x)
    with torch.no_grad():
        model[0].resample.pool.stride.fill_(2.2)
    served = freeze_(copy.deepcopy(model), x)
    torch.testing.assert_close(served(x), model(x), rtol=1e-4, atol=1e-5)
    kinds = {number: [type(part) for part in served[number].modules()] for number in (0, 2)}
    assert FrozenPlace in kinds[0]
    assert FrozenPlace not in kinds[2]
    with pytest.raises(ValueError, match="layer '0' was frozen for maps of size"):
        served(torch.randn(1, 3, 36, 36))


@pytest.mark.parametrize("border", ["zeros", "replicate", "reflect", "circular"])
def test_an_operator_by_itself(border):
    model = nn.Sequential(nn.ReLU(), DiffStride2d((2.0, 3.0), ramp="cosine", padding_mode=border))
    served = freeze_(copy.deepcopy(model), torch.randn(1, 2, 24, 24))
    for size in ((24, 24), (32, 36)):
        x = torch.randn(2, 2, *size)
        torch.testing.assert_close(served(x), model(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"layer '1' was frozen for sizes that are multiples of \(2, 3\), got \(24, 25\)"
    ):
        served(torch.randn(1, 2, 24, 25))
    with pytest.raises(ValueError, match="layer '1' was frozen for calls with a map alone"):
        served[1](torch.randn(1, 2, 24, 24), (24, 24))


def test_tolerance():
    x, scale = torch.randn(2, 3, 64, 64), None
    model, exact = frozen(in_a_row(), x)
    scale = model(x).abs().max()
    coarse = freeze_(copy.deepcopy(model), x, tolerance=0.1)
    off = (coarse(x) - model(x)).abs().max() / scale
    assert 1e-4 < off < 0.3
    assert coarse[2].conv.kernel_size[0] < exact[2].conv.kernel_size[0]
    same = freeze_(copy.deepcopy(model), x, tolerance=1e-3)  # the layers leave out more by themselves
    torch.testing.assert_close(same(x), exact(x), rtol=0, atol=0)
    for bad in (0.0, 0.9, -1.0):
        with pytest.raises(ValueError, match=r"tolerance must be from 0\.0001 to 0\.2, got"):
            freeze_(copy.deepcopy(model), x, tolerance=bad)
    assert any(isinstance(module, nn.Module) and hasattr(module, "resample") for module in model.modules())


def test_a_long_signal_holds_little():
    model = nn.Sequential(nn.Conv1d(1, 64, 80, stride=4), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(64, 64, 3, stride=2))
    before = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    model, served = frozen(model, torch.randn(1, 1, 16000))
    held = sum(t.nbytes for t in (*served.parameters(), *served.buffers()))
    assert held < 1.15 * before
    x = torch.randn(2, 1, 12345)
    torch.testing.assert_close(served(x), model(x), rtol=1e-4, atol=1e-5)


def test_hooks_and_names_stay():
    model, seen = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), DiffStride1d(2.0)), []
    x = torch.randn(1, 3, 16, 16)
    one = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, groups=1))
    convert_(one, x)
    one[0].register_forward_hook(lambda m, a, y: seen.append((tuple(a[0].shape), tuple(y.shape))))
    names = set(one.state_dict())
    freeze_(one, x)
    one(x)
    assert seen[-1] == ((1, 3, 16, 16), (1, 4, 8, 8))
    assert isinstance(one[0], FrozenConv)
    assert {name for name in one.state_dict() if "resample" not in name} == {n for n in names if "resample" not in n}
    assert not any(isinstance(module, Frozen) for module in one.modules())
    assert model


@pytest.mark.parametrize("border", [None, "circular"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_long_axis_at_any_stride_is_frozen_in_blocks(border):
    x = torch.randn(2, 1, 4000)
    model = nn.Sequential(nn.Conv1d(1, 4, 9, stride=4, padding=4), nn.ReLU(), nn.Conv1d(4, 4, 3, stride=2, padding=1))
    convert_(model.eval(), x, padding_mode=border)
    with torch.no_grad():
        model[0].resample.pool.stride.fill_(4.13)
    served = freeze_(copy.deepcopy(model), x)
    torch.testing.assert_close(served(x), model(x), rtol=1e-4, atol=1e-5)
    held = sum(t.numel() for t in served.state_dict().values())
    assert border == "circular" or held < 969 * 4000 / 8
    for form in (torch.jit.script(served), torch.jit.trace(served, x), torch.fx.symbolic_trace(served)):
        torch.testing.assert_close(form(x), model(x), rtol=1e-4, atol=1e-5)
    program = torch.export.export(served, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(x[:1]), model(x[:1]), rtol=1e-4, atol=1e-5)


class Reused(nn.Module):
    """One pooling for maps of several sizes and numbers of channels."""

    def __init__(self, pool):
        super().__init__()
        self.a, self.b, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), pool

    def forward(self, x):
        return self.pool(self.b(self.pool(self.a(x))))


@pytest.mark.parametrize("make", [lambda: nn.MaxPool2d(2), lambda: DiffStride2d(2.0, ramp="cosine")])
def test_one_pooling_for_several_numbers_of_channels(make):
    x = torch.randn(2, 3, 32, 32)
    model = Reused(make()).eval()
    convert_(model, x)
    served = freeze_(copy.deepcopy(model), x)
    torch.testing.assert_close(served(x), model(x), rtol=1e-4, atol=1e-5)


def test_one_pooling_beside_itself():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.pool = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1), DiffStride2d(2.0, ramp="cosine")

        def forward(self, x):
            return torch.cat([self.pool(self.a(x)), self.pool(self.b(x))], 1)

    both, x = Both(), torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(freeze_(copy.deepcopy(both), x)(x), both(x), rtol=1e-4, atol=1e-5)
