"""The stride as a parameter: its bounds, its life on other devices and in copies, and what it costs to keep."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import anystride
from anystride import DiffStride1d, DiffStride2d, SpectralPool2d
from anystride.functional import diffstride
from anystride.ops.window import LINEAR_RAMPS, stride_bounds


def step(layer, x, optimiser, sign):
    """One optimiser step that moves strides against `sign`, whatever the map."""
    optimiser.zero_grad()
    layer(x).mean().backward()
    layer.stride.grad = torch.full_like(layer.stride, float(sign))
    optimiser.step()


def class_of_optimisers():
    return [
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=500.0),
        lambda p: torch.optim.AdamW(p, lr=0.5),
    ]


@pytest.mark.filterwarnings("ignore:AdamW decays learned strides")
@pytest.mark.parametrize("make", class_of_optimisers(), ids=["momentum", "huge", "adamw"])
@pytest.mark.parametrize("ramp", LINEAR_RAMPS)
@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_hold_under_any_optimiser(make, ramp, sign):
    layer, x = DiffStride2d(2.0, ramp=ramp), torch.randn(2, 3, 32, 20)
    optimiser = make([layer.stride])
    for _ in range(30):
        step(layer, x, optimiser, sign)
        for value, n in zip(layer.effective_stride().tolist(), (32, 20), strict=True):
            low, high = stride_bounds(n, ramp=ramp)
            assert low - 1e-6 <= value <= high + 1e-6 < n
        assert layer(x).isfinite().all()
        assert tuple(layer(x).shape[2:]) == layer.output_size((32, 20))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_stride_comes_back_at_once(sign):
    """However long it was pushed against a bound, the first step away from it counts in full."""
    layer, x = DiffStride2d(2.0), torch.randn(2, 3, 32, 32)
    optimiser = torch.optim.SGD([layer.stride], lr=1.0)
    for _ in range(100):
        step(layer, x, optimiser, sign)
    bound = layer.effective_stride().detach().clone()
    step(layer, x, optimiser, -sign)
    torch.testing.assert_close((layer.effective_stride() - bound).detach(), torch.full((2,), float(sign)))


@pytest.mark.parametrize("value", [1.0, 1000.0])
def test_the_gradient_passes_a_bound(value):
    layer, x = DiffStride2d(value), torch.randn(2, 3, 32, 32)
    layer(x).square().sum().backward()
    assert (layer.stride.grad != 0).all()


def test_forward_writes_nothing():
    layer, x = DiffStride2d(1.0), torch.randn(2, 3, 32, 32)
    version = layer.stride._version
    for _ in range(3):
        layer(x)
    assert layer.stride._version == version
    assert layer.stride.tolist() == [1.0, 1.0]
    assert layer.effective_stride().tolist() == pytest.approx([32 / 28, 32 / 28])


def test_one_layer_in_two_branches():
    """Two maps of different sizes: the gradient is the sum of both, and the range is that of the larger map."""
    layer = DiffStride2d(2.0)
    big, small = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 12, 12)
    (layer(big).square().sum() + layer(small).square().sum()).backward()
    total = layer.stride.grad.clone()
    parts = []
    for x in (big, small):
        layer.stride.grad = None
        layer(x).square().sum().backward()
        parts.append(layer.stride.grad.clone())
    torch.testing.assert_close(total, parts[0] + parts[1], rtol=1e-5, atol=1e-3)
    with torch.no_grad():
        layer.stride.fill_(25.0)
    (layer(big).sum() + layer(small).sum()).backward()
    assert layer.stride.tolist() == [25.0, 25.0]


def test_shared_stride():
    x = torch.randn(2, 3, 32, 20)
    shared, separate = DiffStride2d(2.5, shared=True), DiffStride2d(2.5)
    assert shared.stride.shape == (1,)
    assert shared(x).shape == separate(x).shape
    for layer in (shared, separate):
        layer(x).square().sum().backward()
    torch.testing.assert_close(shared.stride.grad, separate.stride.grad.sum().reshape(1), rtol=1e-5, atol=1e-4)
    with pytest.raises(ValueError, match=r"stride must be a single value when shared=True, got \(2.0, 3.0\)"):
        DiffStride2d((2.0, 3.0), shared=True)


def test_nan_stride_is_one_clear_error():
    layer = DiffStride2d(2.0)
    with torch.no_grad():
        layer.stride[0] = float("nan")
    with pytest.raises(ValueError, match=r"stride is .*nan.*training has diverged; lower the learning rate"):
        layer(torch.randn(1, 1, 8, 8))


@pytest.mark.parametrize(
    "move", [lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.double(), lambda m: m.to(torch.float16)]
)
def test_the_stride_stays_float32(move):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), DiffStride2d(2.1))
    stride = model[1].stride
    model = move(model)
    assert model[0].weight.dtype != torch.float32
    assert model[1].stride is stride
    assert stride.dtype == torch.float32
    assert stride.tolist() == torch.tensor([2.1, 2.1]).tolist()


@pytest.mark.parametrize("tolerance", [0.0123, 0.0321])  # not in the cache of another test
def test_a_cosine_layer_is_made_on_meta(tolerance):
    with torch.device("meta"):
        layer = DiffStride2d(2.0, ramp="cosine", tolerance=tolerance)
    assert layer.stride.is_meta


def test_from_meta_to_a_device():
    with torch.device("meta"):
        layer = DiffStride2d((2.0, 3.0))
    assert layer.stride.is_meta
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert layer.stride.tolist() == [2.0, 3.0]
    layer(torch.randn(1, 1, 32, 32)).square().sum().backward()
    assert layer.stride.grad is not None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_live_their_own_life(copied):
    layer, x = DiffStride2d(2.0), torch.randn(2, 3, 32, 32)
    layer(x).square().sum().backward()
    twin = copied(layer)
    assert twin.stride is not layer.stride
    optimiser = torch.optim.SGD([twin.stride], lr=100.0)
    step(twin, x, optimiser, -1)
    step(twin, x, optimiser, -1)  # its own hook brings the stride back before each step
    assert twin.stride.tolist() == pytest.approx([132, 132], abs=1e-3)
    assert layer.stride.tolist() == [2.0, 2.0]
    assert repr(twin).startswith("DiffStride2d(stride=")


def test_state_dict(tmp_path):
    layer, x = DiffStride2d((2.3, 3.1)), torch.randn(2, 3, 32, 32)
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    for assign in (False, True):
        other = DiffStride2d()
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), assign=assign)
        torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)
        other(x).square().sum().backward()
        assert (other.stride.grad != 0).all()


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    pool = DiffStride2d(2.5)
    model = nn.ModuleDict({"main": nn.Sequential(nn.Conv2d(3, 4, 1), pool), "shortcut": pool})
    safetensors.save_model(model, str(tmp_path / "model.safetensors"))
    with torch.no_grad():
        pool.stride.fill_(3.0)
    safetensors.load_model(model, str(tmp_path / "model.safetensors"))
    assert model["shortcut"].stride.tolist() == [2.5, 2.5]


def test_frozen_parameter():
    layer = DiffStride2d(2.0)
    layer.stride.requires_grad_(False)
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    layer(x).square().sum().backward()
    assert layer.stride.grad is None
    assert x.grad is not None


def test_checkpointing():
    layer, x = DiffStride2d(2.0), torch.randn(2, 3, 32, 32, requires_grad=True)
    layer(x).square().sum().backward()
    expected = layer.stride.grad.clone()
    for reentrant in (False, True):
        layer.stride.grad = None
        torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
        torch.testing.assert_close(layer.stride.grad, expected)


def test_functional_call():
    layer, x = DiffStride2d(2.0), torch.randn(2, 3, 32, 32)
    stride = torch.tensor([3.0, 2.5], requires_grad=True)
    y = torch.func.functional_call(layer, {"stride": stride}, (x,))
    torch.testing.assert_close(y, diffstride(x, stride))
    y.square().sum().backward()
    assert stride.grad is not None
    assert layer.stride.grad is None


def test_training_goes_on_when_a_stride_crosses_sizes():
    model = nn.Sequential(DiffStride2d(1.3), nn.Conv2d(2, 2, 3), DiffStride2d(1.3))
    x, sizes = torch.randn(2, 2, 32, 32), set()
    for share in torch.linspace(0, 1, 12).tolist():
        with torch.no_grad():
            for layer in (model[0], model[2]):
                layer.stride.fill_(1.3 + 8 * share)
        y = model(x)
        y.square().sum().backward()
        sizes.add(y.shape[2:])
        assert all(p.grad.isfinite().all() for p in model.parameters())
    assert len(sizes) > 5


def saved(run, limit):
    """Storages that autograd keeps for the backward pass of `run`: bytes of all, and of those of `limit` or more."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        y = run()
    sizes = [t.untyped_storage().nbytes() for t in kept.values()]
    return sum(sizes), sum(n for n in sizes if n >= limit), y


@pytest.mark.parametrize("ramp", LINEAR_RAMPS)
def test_nothing_of_full_resolution_is_saved(ramp):
    """The backward pass keeps the output and matrices; the same operator under plain autograd keeps the input."""
    import oracle

    x = torch.randn(4, 16, 40, 48).requires_grad_()
    layer = DiffStride2d(2.0, ramp=ramp)
    total, full, y = saved(lambda: layer(x), x.nbytes)
    assert full == 0
    assert total <= y.nbytes + 2**16
    by_autograd = saved(lambda: oracle.diffstride(x, layer.stride.unbind(), ramp=ramp), x.nbytes)
    assert by_autograd[1] >= 2 * x.nbytes
    # Spectral pooling to the same size needs matrices alone; the output is what the next layer keeps anyway.
    spectral = saved(lambda: SpectralPool2d(output_size=tuple(y.shape[2:]))(x), x.nbytes)
    assert total - y.nbytes <= spectral[0] + 2**16


def test_no_complex_number_and_no_transform():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names, self.dtypes = set(), set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            self.names.add(str(func))
            self.dtypes.update(
                t.dtype for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor)
            )
            return out

    x = torch.randn(2, 3, 31, 37, requires_grad=True)
    with Names() as seen:
        for layer in (DiffStride2d(2.71), SpectralPool2d(2.71)):
            layer(x).sum().backward()
    assert any("mm" in name for name in seen.names)
    assert not any("fft" in name for name in seen.names)
    assert not any(dtype.is_complex for dtype in seen.dtypes)


def test_values_are_fresh():
    model = nn.Sequential(DiffStride2d(1.5), DiffStride2d(1.5))
    x = torch.randn(2, 3, 32, 32)
    assert model(x).shape[2:] == (27, 27)
    with torch.no_grad():
        model[0].stride.fill_(2.0)
    assert model(x).shape[2:] == (24, 24)
    model[1].load_state_dict({"stride": torch.tensor([4.0, 4.0])})
    assert model(x).shape[2:] == (14, 14)
    model[1].stride = nn.Parameter(torch.tensor([2.0, 2.0]))
    assert model(x).shape[2:] == (20, 20)
    assert copy.deepcopy(model)(x).shape[2:] == (20, 20)


def test_learned_strides_and_groups():
    pool = DiffStride2d((2.0, 1.0))
    model = nn.ModuleDict(
        {"a": nn.Sequential(nn.Conv2d(3, 4, 3), pool), "b": pool, "c": DiffStride1d(3.0), "d": SpectralPool2d(2.0)}
    )
    strides = anystride.learned_strides(model)
    assert {name: value.tolist() for name, value in strides.items()} == {"a.1.stride": [2.0, 1.0], "c.stride": [3.0]}
    assert not any(value.requires_grad for value in strides.values())
    pool(torch.randn(1, 1, 32, 32))
    assert anystride.learned_strides(model)["a.1.stride"].tolist() == pytest.approx([2.0, 32 / 28])
    assert list(anystride.learned_strides(pool)) == ["stride"]

    weights, learned = anystride.param_groups(model, lr=0.1, weight_decay=5e-3, stride_lr=0.01)
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 5e-3)
    assert (learned["lr"], learned["weight_decay"]) == (0.01, 0.0)
    assert [p.numel() for p in learned["params"]] == [2, 1]
    assert len(weights["params"]) + len(learned["params"]) == len(list(model.parameters()))
    assert len(anystride.param_groups(nn.Linear(2, 2), lr=0.1)) == 1
    model["c"].stride.requires_grad_(False)
    assert len(anystride.param_groups(model, lr=0.1)[1]["params"]) == 1


def test_strides_never_decay():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), DiffStride2d(2.0))
    optimiser = torch.optim.SGD(anystride.param_groups(model, lr=0.1, weight_decay=0.5))
    before = model[0].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert model[1].stride.tolist() == [2.0, 2.0]
    assert model[0].weight.norm() < before.norm()


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (DiffStride2d(2.0), "DiffStride2d(stride=2.0, smoothness=4.0, shared=False, ramp='outer', norm='forward')"),
        (
            DiffStride2d((2.0, 3.0), (4.0, 2.0), ramp="inner"),
            "DiffStride2d(stride=(2.0, 3.0), smoothness=(4.0, 2.0), shared=False, ramp='inner', norm='forward')",
        ),
        (
            DiffStride1d(2.5, shared=True),
            "DiffStride1d(stride=2.5, smoothness=4.0, shared=True, ramp='outer', norm='forward')",
        ),
        (SpectralPool2d(2.0), "SpectralPool2d(stride=(2.0, 2.0), norm='forward')"),
        (SpectralPool2d(output_size=(8, 9)), "SpectralPool2d(output_size=(8, 9), norm='forward')"),
    ],
)
def test_repr_is_the_constructor_call(layer, text):
    assert repr(layer) == text
    assert repr(eval(text, vars(anystride))) == text


def test_layers_that_ran_can_be_freed():
    layer = DiffStride2d(2.0)
    layer(torch.randn(1, 1, 16, 16)).sum().backward()
    alive = weakref.ref(layer)
    del layer
    gc.collect()
    assert alive() is None


def test_matrices_are_made_on_the_device():
    """On a GPU that is not there: nothing is moved between it and the host but the strides that are read."""

    class Moves(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.devices, self.operations = set(), 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            self.operations += 1
            leaves = torch.utils._pytree.tree_leaves((args, kwargs, out))
            self.devices |= {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
            return out

    class Known(DiffStride2d):
        def stride_values(self):
            return 2.1, 1.9

    with FakeTensorMode():
        x = torch.randn(2, 16, 32, 32, device="cuda", requires_grad=True)
        conv, pool = nn.Conv2d(16, 64, 3, padding=1, device="cuda"), Known(2.0, ramp="inner", device="cuda")
        outer = Known(2.0, device="cuda")
        with Moves() as seen:
            assert pool(x).shape == (2, 16, 16, 17)
            assert pool(x, convolution=conv).shape == (2, 64, 16, 17)
            assert outer(x).shape == (2, 16, 23, 24)
    assert seen.operations > 20
    assert seen.devices == {"cuda"}
