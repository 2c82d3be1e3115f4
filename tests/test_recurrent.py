"""Recurrent layers as one operation: the shapes, the counts and the results of torch's own decomposition."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.flop_counter import FlopCounterMode

from anystride import DiffStride1d, convert_, execution, macs, recurrent
from anystride.counting.counter import count
from anystride.execution import Execution
from anystride.trees import leaves_with_paths

KINDS = {
    "rnn": lambda: nn.RNN(3, 5),
    "relu": lambda: nn.RNN(3, 5, nonlinearity="relu"),
    "gru": lambda: nn.GRU(3, 5, num_layers=2),
    "lstm": lambda: nn.LSTM(3, 5),
    "layers both ways": lambda: nn.LSTM(3, 5, num_layers=3, bidirectional=True),
    "projection": lambda: nn.LSTM(3, 5, num_layers=2, proj_size=2, bidirectional=True),
    "batch first": lambda: nn.GRU(3, 5, batch_first=True, bidirectional=True),
    "no biases": lambda: nn.LSTM(3, 5, bias=False, batch_first=True),
    "dropout": lambda: nn.LSTM(3, 5, num_layers=2, dropout=0.5),
}
CELLS = {"rnn cell": nn.RNNCell(3, 5), "gru cell": nn.GRUCell(3, 5), "lstm cell": nn.LSTMCell(3, 5, bias=False)}
INPUTS = {
    "batch": torch.randn(7, 4, 3),
    "one sequence": torch.randn(7, 3),
    "one step": torch.randn(1, 1, 3),
    "packed": pack_sequence([torch.randn(n, 3) for n in (2, 6, 4)], enforce_sorted=False),
}


class Shapes(Execution):
    def __init__(self):
        super().__init__()
        self.names = []

    def operation(self, func, args, kwargs):
        self.names.append(func.overloadpacket.__name__)
        return self.call(func, args, kwargs)


def shapes(tree):
    return [(path, tuple(t.shape), t.dtype) for path, t in leaves_with_paths(tree) if isinstance(t, torch.Tensor)]


def example(x):
    return (x,) if isinstance(x, PackedSequence) else x


def decomposed(model, x, monkeypatch):
    """What torch's own decomposition costs on tensors without data."""
    with monkeypatch.context() as patch:
        patch.setattr(execution, "recurrent_as_one", contextlib.nullcontext)
        return count(model, example(x)).total


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("meta", [True, False], ids=["without data", "with data"])
@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, given, meta, monkeypatch):
    model, x = KINDS[kind]().eval(), INPUTS[given]
    want = model(x)
    run = Shapes()
    got = run.run(model, example(x), training=True, meta=meta)
    assert shapes(got) == shapes(want)
    assert run.names.count("recurrent") == 1
    assert not {"mm", "addmm"} & set(run.names)
    if not meta:
        for one, other in zip(leaves_with_paths(got), leaves_with_paths(want), strict=True):
            if isinstance(one[1], torch.Tensor):
                torch.testing.assert_close(one[1], other[1])
    assert count(model, example(x)).total == decomposed(model, x, monkeypatch) > 0


@pytest.mark.parametrize("meta", [True, False], ids=["without data", "with data"])
@pytest.mark.parametrize("given", [torch.randn(4, 3), torch.randn(3)], ids=["batch", "alone"])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind, given, meta, monkeypatch):
    model = CELLS[kind]
    run = Shapes()
    assert shapes(run.run(model, given, training=False, meta=meta)) == shapes(model(given))
    assert run.names.count("recurrent") == 1
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(given)
    assert count(model, given).total == counter.get_total_flops() // 2
    assert count(model, given).total == decomposed(model, given, monkeypatch) > 0


def test_a_state_that_is_given():
    model, state = nn.LSTM(3, 5), (torch.zeros(1, 2, 5), torch.ones(1, 2, 5))
    assert shapes(Execution().run(model, (torch.randn(7, 2, 3), state), training=False)) == shapes(
        model(torch.randn(7, 2, 3), state)
    )
    with pytest.raises(RuntimeError, match="hidden state is for 2 sequences, got 3"), recurrent.recurrent_as_one(model):
        torch.lstm(torch.empty(7, 3, 3, device="meta"), state, model._flat_weights, True, 1, 0.0, False, False, False)
    with pytest.raises(RuntimeError, match="has 4 features"), recurrent.recurrent_as_one(model):
        torch.lstm(torch.empty(7, 2, 4, device="meta"), state, model._flat_weights, True, 1, 0.0, False, False, False)


class Listens(nn.Module):
    """Strided convolution over time, then an LSTM over what is left."""

    def __init__(self, down):
        super().__init__()
        self.down, self.lstm = down, nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        return self.head(self.lstm(self.down(x).transpose(1, 2))[0])


def test_the_steps_of_a_sequence_follow_the_stride():
    model, x = Listens(DiffStride1d(2.0, ramp="inner")), torch.randn(2, 4, 120)
    value = macs(model, x)
    per_step = 4 * 6 * (4 + 6 + 12 + 6) * 2 + 24
    assert value.item() == 2 * 60 * (per_step + 4 * 120)
    (slope,) = torch.autograd.grad(value, model.down.stride)
    assert slope.item() == pytest.approx(-value.item() / 2, rel=1e-6)


def test_a_network_with_a_long_lstm_converts():
    model, x = Listens(nn.Conv1d(4, 4, 3, stride=2, padding=1)), torch.randn(1, 4, 1600)
    before = model(x)
    runs = []
    model.lstm.register_forward_hook(lambda *_: runs.append(1))
    assert [change.role for change in convert_(model, x).changes] == ["learn"]
    assert model(x).shape == before.shape
    assert model.lstm.weight_ih_l0 is model.lstm._flat_weights[0]
