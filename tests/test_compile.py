"""Under torch.compile shapes may change: the number of compilations is bounded, whatever the strides do."""

import pytest
import torch
import torch._dynamo.testing
from torch import nn

import anystride
from anystride import DiffStride2d

# Dynamo itself asks for .grad of the maps that it meets between two graphs.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


class Network(nn.Module):
    """Written out, as residual blocks are: in a loop over modules one break keeps the whole loop out of graphs."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.pool1, self.pool2 = DiffStride2d(1.5), DiffStride2d(1.5, ramp="inner")
        self.classify = nn.Linear(6, 2)

    def forward(self, x):
        x = self.pool1(self.norm1(self.conv1(x)).relu())
        x = self.pool2(self.norm2(self.conv2(x)).relu())
        return self.classify(x.mean(dim=(2, 3)))


def train(model, steps, seed=0):
    """Strides that cross several output sizes; returns losses and the sizes that were met."""
    torch.manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    x, target = torch.randn(4, 3, 24, 24), torch.tensor([0, 1, 0, 1])
    losses, sizes = [], set()
    layers = [module for module in model.modules() if isinstance(module, DiffStride2d)]
    for n in range(steps):
        with torch.no_grad():
            for layer in layers:
                layer.stride.fill_(1.5 + n / 4)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        sizes.add(layers[0].output_size((24, 24)))
    return losses, sizes


@pytest.mark.slow
def test_moving_strides_compile_a_bounded_number_of_times():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch.manual_seed(0)
    model, twin = Network(), Network()
    twin.load_state_dict(model.state_dict())
    compiled = torch.compile(model, backend=counter)
    _, sizes = train(compiled, steps=3)
    early = counter.frame_count
    assert early >= 3, "the parts around the two layers were meant to be compiled"
    losses, more = train(compiled, steps=14)
    assert len(sizes | more) >= 6
    assert counter.frame_count == early, "a new size compiled anew although two were seen"
    train(twin, steps=3)
    expected, _ = train(twin, steps=14)
    assert losses == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_values_do_not_compile_anew():
    """A stride that moves within one output size changes no graph."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    model = Network()
    compiled = torch.compile(model, backend=counter)
    x = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        model.pool1.stride.fill_(1.45)
    compiled(x).sum().backward()
    first = counter.frame_count
    assert first >= 3
    for step in range(1, 6):
        with torch.no_grad():
            model.pool1.stride.fill_(1.45 + step * 1e-3)
        compiled(x).sum().backward()
    assert counter.frame_count == first


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about itself
@pytest.mark.parametrize("ramp", ["inner", "outer", "cosine"])
def test_under_autocast(ramp):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), DiffStride2d(2.3, ramp=ramp, grid="fixed"))
    x = torch.randn(2, 3, 32, 32)
    anystride.regrid_(model, x)

    def gradients(network):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = network(x)
        out.float().square().mean().backward()
        return model[1].stride.grad.clone(), model[0].weight.grad.clone()

    for compiled, eager in zip(gradients(torch.compile(model, backend="aot_eager")), gradients(model), strict=True):
        torch.testing.assert_close(compiled, eager, rtol=0.05, atol=0.02 * eager.abs().max().item())
