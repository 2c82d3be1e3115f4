"""A converted network is made of ordinary modules: whatever people do with modules is right, or one clear error."""

import contextlib
import copy
import inspect
import pickle
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

import anystride
from anystride import DiffStride2d, convert_, freeze_
from anystride.resample import Follows, Leads, Shares
from networks import EveryRole, Segments, set_strides

SIZES = ((32, 32), (48, 40), (37, 29))


def maps(*size, batch=2, channels=3):
    torch.manual_seed(size[0])
    return torch.randn(batch, channels, *size)


def segments(stride=1.7, **options):
    model = Segments().eval()
    convert_(model, maps(32, 32), **options)
    return set_strides(model, stride)


def every_role(stride=1.7, **options):
    model = EveryRole().eval()
    convert_(model, maps(32, 32), **options)
    return set_strides(model, stride)


@pytest.mark.parametrize("call", [lambda m, x: m(x), lambda m, x: m.forward(x)], ids=["call", "forward"])
def test_any_way_of_calling(call):
    """Not what the last call left, and not what a hook on the root notes, decides a size."""
    model = segments()
    model(maps(64, 64))
    for size in SIZES:
        assert call(model, maps(*size)).shape == (2, 2, *size)


def test_a_submodule_alone():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), segments())
    assert model[1].forward(maps(48, 40)).shape == (2, 2, 48, 40)
    whole = every_role()
    with pytest.raises(RuntimeError, match=r"'far' takes its size from 'block.conv1' .* call the whole model"):
        whole.far(maps(32, 32))
    # Its block has all that it needs.
    assert whole.block(maps(16, 16, channels=4)).shape == (2, 8, 10, 10)


def test_a_block_is_the_scope_of_what_is_in_it():
    class Block(nn.Module):
        """The longer chain leads and the shorter one follows, in the block alone."""

        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Conv2d(n, 4, 3, stride=2, padding=1) for n in (3, 4))
            self.far = nn.Conv2d(3, 4, 5, stride=4, padding=2)

        def forward(self, x):
            return self.b(F.relu(self.a(x))) + self.far(x)

    model = nn.Sequential(Block(), nn.ReLU())
    plan = convert_(model, maps(32, 32))
    assert [change.scope for change in plan.changes if change.role == "follow"] == ["0"]
    set_strides(model, 1.6)
    assert model[0](maps(40, 36)).shape == model(maps(40, 36)).shape
    # Run anew in the backward pass, where nothing is left of the call.
    x = maps(40, 36).requires_grad_()
    loss = checkpoint(model[0], x, use_reentrant=False).square().sum() + model[0](maps(24, 20)).square().sum()
    loss.backward()
    got = x.grad.clone()
    x.grad = None
    model[0](x).square().sum().backward()
    torch.testing.assert_close(got, x.grad)


def test_recomputing_what_follows_without_its_leader_is_one_clear_error():
    class Rematerialised(Segments):
        def forward(self, x):
            a = F.relu(self.down1(x))
            b = F.relu(self.down2(a))
            return self.head(checkpoint(lambda b: self.up1(self.up2(b) + a).exp(), b, use_reentrant=False))

    model = Rematerialised()
    convert_(model, maps(32, 32))
    y = model(maps(32, 32))
    with pytest.raises(RuntimeError, match="which is not under way; call the whole model"):
        y.sum().backward()


def test_two_views_of_two_sizes_before_one_backward_pass():
    model = segments()
    views = [maps(32, 32), maps(48, 40)]
    sum(model(x).square().mean() for x in views).backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for x in views:
        model(x).square().mean().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(together[name], p.grad, rtol=1e-4, atol=1e-7)


def test_threads_with_different_sizes():
    model, inputs = segments(), [maps(*size) for size in SIZES]
    expected = [model(x).detach() for x in inputs]
    right = []

    def work(n):
        with torch.no_grad():
            for _ in range(20):
                with contextlib.suppress(RuntimeError):
                    if torch.equal(model(inputs[n]), expected[n]):
                        right.append(n)

    threads = [threading.Thread(target=work, args=(n % len(SIZES),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 6 * 20


class Skips(nn.Module):
    """Stochastic depth that leaves out the branch that runs first."""

    def __init__(self, shortcut):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.shortcut, self.skip = shortcut, False

    def forward(self, x):
        return self.shortcut(x) if self.skip else self.branch(x) + self.shortcut(x)


def test_a_leading_branch_that_is_skipped():
    model = Skips(nn.Conv2d(3, 4, 1, stride=2))
    convert_(model, maps(32, 32))
    set_strides(model, 1.7)
    for size in SIZES:
        model.skip = False
        whole = model(maps(*size)).shape
        model.skip = True
        assert model(maps(*size)).shape == whole


def test_a_followed_branch_that_is_skipped_is_one_clear_error():
    model = Skips(nn.Sequential(*(nn.Conv2d(n, 4, 1, stride=s) for n, s in ((3, 1), (4, 2)))))
    model.branch.insert(0, nn.Conv2d(3, 3, 3, stride=2, padding=1))
    model.shortcut.insert(0, nn.Conv2d(3, 3, 5, stride=2, padding=2))
    model.shortcut[1] = nn.Conv2d(3, 4, 1)
    model.shortcut[2] = nn.Conv2d(4, 4, 3, stride=2, padding=1)
    model.shortcut = nn.Conv2d(3, 4, 5, stride=4, padding=2)
    plan = convert_(model, maps(32, 32))
    assert {change.role for change in plan.changes} == {"learn", "follow"}
    model.skip = True
    with pytest.raises(RuntimeError, match=r"'shortcut' takes its size from 'branch\.1', which did not run before it"):
        model(maps(48, 40))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "deepcopy", "pickle"]
)
@pytest.mark.parametrize("make", [segments, every_role])
def test_copies(make, again):
    model, x = make(), maps(32, 32)
    y = model(x)
    twin = again(model)
    assert torch.equal(twin(x), y)
    assert repr(twin) == repr(model)
    if again is not copy.copy:
        set_strides(twin, 2.5)
        with torch.no_grad():
            for p in twin.parameters():
                p.mul_(2)
        assert not torch.equal(twin(x), y)
        assert torch.equal(model(x), y)


def test_a_replica_runs_its_own_tensors():
    model, x = segments(), maps(32, 32)
    replica = model.down1._replicate_for_data_parallel()
    for name, p in model.down1._parameters.items():
        setattr(replica, name, p.detach() * 2)
    replica._modules["resample"] = model.down1.resample
    torch.testing.assert_close(replica(x), 2 * model.down1(x))


def test_tensors_from_outside():
    model, x = segments(), maps(32, 32)
    doubled = {name: p.detach() * 2 if "head" in name else p.detach() for name, p in model.named_parameters()}
    torch.testing.assert_close(functional_call(model, doubled, (x,)), 2 * model(x))


class Root(nn.Module):
    """Calls functions itself, as the most used CIFAR ResNet does."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(F.interpolate(F.max_pool2d(self.conv(x), 2), scale_factor=2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [Root, EveryRole, Segments])
@pytest.mark.slow
def test_traced_and_exported(make):
    model, x = make().eval(), maps(32, 32)
    convert_(model, x)
    set_strides(model, 1.7)
    y = model(x)
    traced = torch.jit.trace(model, (x,))
    torch.testing.assert_close(traced(x), y)
    with pytest.raises(RuntimeError, match=r"call anystride\.freeze_"):
        torch.export.export(model, (x,))
    freeze_(model, x)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.jit.trace(model, (x,))(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.parametrize("make", [Root, EveryRole, Segments])
def test_one_graph_with_a_fixed_grid(make):
    model, x = make(), maps(32, 32)
    convert_(model, x, grid="fixed")
    anystride.regrid_(model, x)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    for stride in (2.0, 1.9, 2.1):
        set_strides(model, stride)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_layers_rebuilt_from_attributes():
    """What a tool reads cannot lose the downsampling without a word."""
    conv = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    convert_(conv, maps(32, 32))
    layer, x = set_strides(conv, 1.7)[0], maps(32, 32)
    assert layer.stride == pytest.approx((1.7, 1.7))
    rebuilt = nn.Conv2d(3, 8, layer.kernel_size, layer.stride, layer.padding)
    with pytest.raises(TypeError, match="stride"):
        rebuilt(x)
    # One of its own class, as adapters build beside it: right where the stride is whole, else an error.
    with pytest.raises(ValueError, match=r"stride \(1\.7"):
        type(layer)(3, 2, layer.kernel_size, layer.stride, layer.padding)(x)
    set_strides(conv, 2.0)
    beside = type(layer)(3, 2, layer.kernel_size, layer.stride, layer.padding)
    assert beside(x).shape[2:] == layer(x).shape[2:]


def plain():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


def eager_int8(model, x):
    model = nn.Sequential(quantization.QuantStub(), *model, quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig("x86")
    prepared = quantization.prepare(model)
    prepared(x)
    return quantization.convert(prepared)


def fx_int8(model, x):
    prepared = quantize_fx.prepare_fx(model, quantization.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    return quantize_fx.convert_fx(prepared)


quantisers = pytest.mark.parametrize("quantise", [eager_int8, fx_int8])
quietly = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@quietly
@quantisers
def test_a_frozen_network_is_quantised_by_torchs_own_tools(quantise):
    """With the error of the unconverted network within a factor of two, and with its downsampling."""
    x, unconverted = maps(32, 32, batch=8), plain()
    errors = []
    for model in (unconverted, freeze_(set_strides(converted(plain()), 1.7), x)):
        y = model(x)
        quantised = quantise(copy.deepcopy(model), x)
        errors.append(((quantised(x) - y).abs().max() / y.abs().max()).item())
        assert any("Quantized" in type(m).__name__ or "quantized" in type(m).__module__ for m in quantised.modules())
    assert errors[1] < 2 * errors[0]


def converted(model):
    convert_(model, maps(32, 32))
    return model


@quietly
@quantisers
def test_a_learned_network_is_not_quantised_without_a_word(quantise):
    model, x = converted(plain()), maps(32, 32)
    with pytest.raises((TypeError, NotImplementedError, RuntimeError), match=r"after anystride\.freeze_|Quantized"):
        quantise(model, x)(x)


@quietly
def test_training_for_int8_keeps_the_downsampling():
    model, x = converted(plain()).train(), maps(32, 32)
    model.qconfig = quantization.get_default_qat_qconfig("x86")
    prepared = quantization.prepare_qat(model)
    assert prepared[0](x).shape == (2, 16, 16, 16)


def test_folding_a_batch_norm_keeps_the_downsampling():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)).eval()
    set_strides(converted(model), 1.7)
    nn.init.uniform_(model[1].running_mean)
    x = maps(32, 32)
    torch.testing.assert_close(fuse_conv_bn_eval(model[0], model[1])(x), model(x), rtol=1e-4, atol=1e-5)


def test_parametrized_convolutions():
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 8, 3, stride=2, padding=1)), nn.ReLU())
    x = maps(32, 32)
    convert_(model, x)
    set_strides(model, 1.7)
    y = model(x)
    assert y.shape == (2, 8, 19, 19)
    frozen = freeze_(copy.deepcopy(model), x)
    torch.testing.assert_close(frozen(x), y)
    parametrize.remove_parametrizations(model[0], "weight")
    torch.testing.assert_close(model(x), y)
    parametrizations.weight_norm(model[0])
    torch.testing.assert_close(model(x), y)


def test_a_forward_that_was_set_on_the_object_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1))
    model[0].forward = model[0].forward
    plan = convert_(model, maps(32, 32))
    assert [change.role for change in plan.changes] == ["stay", "learn"]
    assert "its forward was set on the object" in plan.changes[0].why
    assert model(maps(32, 32)).shape == (2, 8, 8, 8)


def test_a_sequence_runs_its_place_once():
    """A sequence runs all its children: the place of its output is the last of them."""
    model, x = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), nn.Conv2d(4, 4, 1)), maps(32, 32)
    convert_(model, x, learnable=["0"])
    set_strides(model, 2.0)
    y = model(x)
    assert y.shape == (2, 4, 16, 16)
    assert model[0][:2](x).shape == (2, 4, 32, 32)
    torch.testing.assert_close(freeze_(copy.deepcopy(model), x)(x), y)


def test_a_module_that_runs_its_children_stays():
    """It would run the operator as one of them, and once more at its output."""

    class Children(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()

        def forward(self, x):
            for child in self.children():
                x = child(x)
            return x

    model = nn.Sequential(Children(), nn.Conv2d(4, 4, 3, stride=2, padding=1))
    plan = convert_(model, maps(32, 32), learnable=["0"])
    assert [change.role for change in plan.changes] == ["stay", "learn"]
    assert "would run the operator twice" in plan.changes[0].why
    assert set_strides(model, 2.0)(maps(32, 32)).shape == (2, 4, 16, 16)


def test_a_slice_of_a_sequence():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2))
    convert_(model, maps(32, 32))
    set_strides(model, 1.7)
    assert model(maps(48, 40)).shape == (2, 4, 48, 40)
    assert model[:2](maps(48, 40)).shape == (2, 4, 29, 24)
    with pytest.raises(RuntimeError, match="call the whole model"):
        model[1:](maps(29, 24, channels=4))


def test_classes_say_what_they_are():
    model = segments()
    assert isinstance(model.down1, nn.Conv2d)
    assert type(model).__name__ == "Segments"
    assert isinstance(model, Segments)
    assert inspect.signature(model.forward) == inspect.signature(Segments().forward)
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_print_shows_roles():
    model = every_role()
    model(maps(32, 32))
    text = str(model)
    assert "ResampledConv2d(\n    3, 4, kernel_size=(3, 3), stride=(1.7, 1.7), padding=(1, 1)" in text
    assert "(resample): Leads(\n" in text
    assert "last 32x32 to 19x19" in text
    assert "stride of 'block.conv1'" in text
    assert "Follows(size of 'block.conv1', last 32x32 to 12x12)" in text
    assert "Enlarges(size of 'stem', mode='nearest', last 12x12 to 19x19)" in text
    assert "Keeps(size that it had by 'input', last" in text


def test_roles_are_classes():
    kinds = [type(module) for module in every_role().modules()]
    assert {Leads, Shares, Follows} <= set(kinds)


@pytest.mark.parametrize("make", [nn.MaxPool2d, nn.AvgPool2d])
def test_maps_without_a_batch(make):
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), make(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1))

    x = maps(31, 33)
    for example in (x, x[0]):
        model = net()
        assert len(convert_(model, example).replaced) == 2
        set_strides(model, 1.6)
        torch.testing.assert_close(model(x[0]), model(x)[0])
        frozen = freeze_(copy.deepcopy(model), x)
        torch.testing.assert_close(frozen(x[0]), model(x)[0])


class FromDictionary(Segments):
    def forward(self, mask, batch):
        return super().forward(batch["image"]) * mask[:, None]


def test_the_input_that_leads_is_found():
    model = FromDictionary()
    convert_(model, {"mask": torch.ones(1, 32, 32), "batch": {"image": maps(32, 32, batch=1)}})
    set_strides(model, 1.7)
    for size in SIZES:
        mask, batch = torch.ones(1, *size), {"image": maps(*size, batch=1)}
        assert model(mask, batch).shape == model(batch=batch, mask=mask).shape == (1, 2, *size)


class TwoInputs(nn.Module):
    """The second input is larger, and the decoder ends at its size."""

    def __init__(self):
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 4, 3, padding=1), Segments()

    def forward(self, small, large):
        return self.large(large), self.small(small)


def test_one_of_two_inputs_leads():
    model = TwoInputs()
    plan = convert_(model, (maps(20, 20), maps(32, 32)))
    assert plan.changes[-1].leader == "input:['large']"
    set_strides(model, 1.7)
    for size in SIZES:
        assert model(large=maps(*size), small=maps(24, 24))[0].shape == (2, 2, *size)
    again = TwoInputs()
    anystride.apply_(again, anystride.Plan.from_json(plan.to_json()))
    assert set_strides(again, 1.7)(maps(24, 24), maps(48, 40))[0].shape == (2, 2, 48, 40)


def test_hooks_of_users_stay():
    model, seen = Segments(), []
    handle = model.down1.register_forward_hook(lambda module, args, output: seen.append(output.shape[2:]))
    convert_(model, maps(32, 32))
    seen.clear()
    model(maps(32, 32))
    freeze_(model, maps(32, 32))
    model(maps(32, 32))
    assert seen[0] == seen[-1] == (16, 16)
    handle.remove()
    seen.clear()
    model(maps(32, 32))
    assert not seen


def test_a_pool_keeps_its_own_state_alone():
    """A forward leaves nothing that another call reads but what projects a stride after a step."""
    pool = DiffStride2d(2.0)
    before = {name: value for name, value in vars(pool).items() if name not in ("_bounds", "_projected", "_watched")}
    pool(maps(32, 32))
    assert {name: vars(pool)[name] for name in before} == before


def calls_of_the_package(run):
    """How many functions of this package a call runs, once everything is remembered."""
    package, count = str(Path(anystride.__file__).parent), []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(package):
            count.append(frame.f_code.co_name)

    run()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return len(count)


def test_a_call_is_few_calls():
    """The guard of the host's share: 55 and 146 once, of which less than half is left."""
    x, pool, model = maps(32, 32, channels=8).requires_grad_(), DiffStride2d(2.0, ramp="inner"), nn.Sequential()
    model.append(nn.Conv2d(8, 16, 3, stride=2, padding=1))
    convert_(model, x)
    assert calls_of_the_package(lambda: pool(x)) <= 27
    assert calls_of_the_package(lambda: model[0](x)) <= 70
