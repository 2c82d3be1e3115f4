"""What was frozen leaves Python: graphs without breaks, torch.export and ONNX, with batches of any size."""

import copy

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from anystride import DiffStride1d, DiffStride2d, DiffStride3d, convert_
from anystride.freeze import freeze_

BATCH = torch.export.Dim("batch", min=1, max=64)


class Network(nn.Module):
    """A tied residual block, a pooling that reaches beyond the border, and an upsampling that follows."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.MaxPool2d(3, 2, ceil_mode=True)
        self.deep, self.norm = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.shortcut = nn.Conv2d(6, 8, 1, stride=2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Conv2d(14, 4, 3, padding=1)

    def forward(self, x):
        a = self.pool(self.stem(x).relu())
        b = (self.norm(self.deep(a)) + self.shortcut(a)).relu()
        return self.head(torch.cat([a, self.up(b)], 1))


@pytest.fixture(scope="module")
def networks():
    """Learned and frozen, for two sizes."""
    torch.manual_seed(0)
    model = Network()
    convert_(model, torch.randn(1, 3, 32, 24), ramp="inner")
    with torch.no_grad():
        model.stem.resample.pool.stride.copy_(torch.tensor([1.9, 2.3]))
    model.eval()
    return model, freeze_(copy.deepcopy(model), torch.randn(2, 3, 32, 24), torch.randn(2, 3, 24, 24))


def off(got, expected):
    return (got - expected).abs().max().item()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.slow
def test_one_graph_for_the_compiler(networks, dynamic):
    learned, frozen = networks
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(frozen, fullgraph=True, backend=counter, dynamic=dynamic)
    for batch, size in ((2, (32, 24)), (3, (32, 24)), (5, (32, 24)), (3, (24, 24))):
        x = torch.randn(batch, 3, *size)
        assert off(compiled(x), learned(x)) < 1e-5
    assert counter.frame_count <= 3, "one per size, and one for the second batch size"
    with pytest.raises(ValueError, match="layer 'stem' was frozen for"):
        frozen(torch.randn(2, 3, 28, 28))


@pytest.mark.parametrize("size", [(32, 24), (24, 24)])
def test_torch_export_with_any_batch(networks, size):
    learned, frozen = networks
    program = torch.export.export(frozen, (torch.randn(2, 3, *size),), dynamic_shapes=({0: BATCH},))
    exported = program.module()
    for batch in (1, 5):
        x = torch.randn(batch, 3, *size)
        assert off(exported(x), learned(x)) < 1e-5
        last = x.contiguous(memory_format=torch.channels_last)
        assert off(exported(last), learned(x)) < 1e-5


def to_onnx(model, x):
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: BATCH},))
    return program.model_proto


def session(proto):
    import onnxruntime

    running = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in running.get_inputs())
    return lambda x: torch.from_numpy(running.run(None, {name: x.numpy()})[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
class TestOnnx:
    """Third parties' deprecations on the way there are not ours."""

    @pytest.fixture(autouse=True)
    def _tools(self):
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")

    def test_network(self, networks):
        learned, frozen = networks
        proto = to_onnx(frozen, torch.randn(2, 3, 32, 24))
        kinds = [node.op_type for node in proto.graph.node]
        assert "DFT" not in kinds
        assert "Expand" not in kinds
        # Two axes of the stem, the pooling, the block and its shortcut, and no product besides.
        assert kinds.count("MatMul") == 8
        run = session(proto)
        for batch in (1, 2, 7):
            x = torch.randn(batch, 3, 32, 24)
            assert off(run(x), learned(x)) < 1e-4

    @pytest.mark.parametrize("axes", [1, 3])
    def test_other_numbers_of_axes(self, axes):
        layer = (DiffStride1d, DiffStride2d, DiffStride3d)[axes - 1](tuple((1.5, 2.5, 2.0)[:axes]), smoothness=2.0)
        size = (2, 3, *(20, 16, 12)[:axes])
        model = nn.Sequential(layer, nn.ReLU())
        run = session(to_onnx(freeze_(copy.deepcopy(model), torch.randn(size)).eval(), torch.randn(size)))
        x = torch.randn(4, *size[1:])
        assert off(run(x), model(x)) < 1e-5
