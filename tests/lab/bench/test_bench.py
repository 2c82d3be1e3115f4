"""What the tables of `anystride bench` share: timing, memory, moving strides, the oracle and the contestants."""

from __future__ import annotations

import statistics
from collections import Counter

import pytest
import torch
from torch import nn

pytest.importorskip("lightning", reason="needs the extra 'lab'")

import anystride
from anystride.functional import diffstride, resampling_matrix
from anystride.lab.bench import network, timing
from anystride.lab.bench.contestants import SHORT, TITLES, BlurPool, contestants
from anystride.lab.bench.crossover import crossing_length, fourier, gains_of
from anystride.lab.bench.limits import Limits
from anystride.lab.bench.moves import Moves
from anystride.lab.bench.operator import cases
from anystride.lab.bench.oracle import FourierStride, diffstride_fft
from anystride.lab.bench.steps import Trainee, sgd
from anystride.lab.bench.timing import WARM_UP, Contestant, in_turn, peak_bytes
from anystride.ops.window import output_length

CPU = torch.device("cpu")


def test_contestants_run_equally_often_and_in_changing_order():
    calls, prepared = [], Counter()
    contestants = {
        name: Contestant(lambda name=name: calls.append(name), lambda name=name: prepared.update([name]))
        for name in "abc"
    }
    times = in_turn(contestants, 5, CPU)
    rounds = [tuple(calls[at : at + 3]) for at in range(0, len(calls), 3)]
    assert len(rounds) == WARM_UP + 5
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1
    assert set(prepared.values()) == {WARM_UP + 5}
    assert all(0 <= spread.low <= spread.median <= spread.high for spread in times.values())
    calls.clear()
    in_turn(contestants, 5, CPU)
    assert rounds == [tuple(calls[at : at + 3]) for at in range(0, len(calls), 3)]  # the order is a seed's


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_quartiles_of_a_few_rounds_are_among_what_was_seen(repeats, monkeypatch):
    clock = iter([0, 1] * WARM_UP + [0, 1, 0, 9, 0, 2])  # a run starts and ends
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    spread = in_turn({"a": Contestant(lambda: None)}, repeats, CPU)["a"]
    seen = [1, 9, 2][:repeats]
    assert min(seen) <= spread.low <= spread.median <= spread.high <= max(seen)
    assert spread.median == statistics.median(seen)


def test_the_peak_of_a_step():
    def step():
        a = torch.ones(1000)
        b = torch.ones(500)
        del a, b
        torch.ones(1200)

    assert peak_bytes(Contestant(step), CPU, [torch.zeros(10)]) == 1500 * 4 + 40


@pytest.mark.parametrize("axes", [{33: 2.37}, {33: 2.37, 31: 3.11}, {17: 2.37, 15: 2.9, 19: 2.71}], ids=len)
def test_the_oracle_is_the_same_operator(axes):
    """What the benchmarks compare with computes the same function (odd output sizes: no unpaired bin)."""
    x = torch.randn(2, 3, *axes, dtype=torch.float64, requires_grad=True)
    stride = torch.tensor(list(axes.values()), dtype=torch.float64, requires_grad=True)
    y = diffstride(x, stride)
    assert all(n % 2 for n in y.shape[2:])
    z = diffstride_fft(x, stride)
    torch.testing.assert_close(z, y, rtol=0, atol=1e-6)
    grad = torch.randn_like(y)
    expected, found = (torch.autograd.grad(out, (x, stride), grad) for out in (y, z))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_oracle_keeps_the_range_of_strides():
    """Below what a map can use, it acts and learns as the operator: with a stride of 1 on 9 samples."""
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    strides = [torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    y, z = diffstride(x, strides[0]), diffstride_fft(x, strides[1])
    torch.testing.assert_close(z, y, rtol=0, atol=1e-6)
    grad = torch.randn_like(y)
    y.backward(grad)
    z.backward(grad)
    torch.testing.assert_close(strides[1].grad, strides[0].grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_oracle_returns_half_precision(dtype):
    layer = FourierStride(torch.full((2,), 2.0))
    assert layer(torch.randn(1, 2, 16, 16, dtype=dtype)).dtype == dtype
    convolution = nn.Conv2d(2, 3, 3, padding=1, dtype=dtype)
    assert layer(torch.randn(1, 2, 16, 16, dtype=dtype), convolution=convolution).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("spatial", [(20,), (16, 18), (10, 12, 14)], ids=len)
def test_all_contestants_halve_a_map(spatial):
    layers = contestants(4, spatial)
    assert list(layers) == list(TITLES) == list(SHORT)
    for name, layer in layers.items():
        y = layer(torch.randn(2, 4, *spatial))
        expected = [output_length(n, 2.0) if name in ("outer", "fft") else n // 2 for n in spatial]
        assert list(y.shape) == [2, 4, *expected], name


def test_blur_pooling_keeps_constants_and_stops_the_highest_frequency():
    blur = BlurPool(2, 2)
    torch.testing.assert_close(blur(torch.full((1, 2, 7, 8), 3.0)), torch.full((1, 2, 4, 4), 3.0))
    checkers = (torch.arange(8) % 2 * 2.0 - 1).expand(1, 2, 8, 8)
    torch.testing.assert_close(blur(checkers), torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize(("ramp", "size"), [("outer", 32), ("inner", 32), ("outer", 16), ("outer", 8), ("inner", 8)])
def test_strides_move_and_sizes_stay(ramp, size):
    layer = anystride.DiffStride2d(2.0, ramp=ramp)
    x = torch.randn(1, 2, size, size)
    shape = layer(x).shape
    moves = Moves(layer, lengths=(size, size))
    seen = set()
    for _ in range(200):
        moves()
        assert layer(x).shape == shape
        seen.add(tuple(layer.effective_stride().tolist()))
    assert len(seen) == 200


@pytest.mark.parametrize("name", network.METHODS)
def test_sizes_stay_while_a_network_is_timed(name):
    audio = network.cases(True, True)[0]
    built = audio.build(network.METHODS[name])
    trainee = Trainee(built, torch.randn(2, *audio.shape), sgd(built))
    sizes: dict[str, list[torch.Size]] = {}
    for where, module in built.named_modules():
        if where.endswith("pool"):
            module.register_forward_hook(
                lambda _module, _inputs, y, where=where: sizes.setdefault(where, []).append(y.shape)
            )
    before = {key: value.clone() for key, value in built.state_dict().items() if key.endswith("stride")}
    for _ in range(8):
        trainee.training.prepare()
        trainee.training.run()
    assert all(len(set(each[1:])) == 1 for each in sizes.values())  # the first step may bring a stride into its range
    assert (name in ("strided", "spectral")) == (not before)
    assert all(not torch.equal(built.state_dict()[key], value) for key, value in before.items())


def test_the_floor_is_the_slower_of_moving_and_multiplying():
    limit = Limits({16: 10.0, 64: 5.0}, {"float32": 100.0})
    assert limit.floor(16, 4, 0, "float32") == 2
    assert limit.floor(64, 16, 0, "float32") == 16
    assert limit.floor(16, 4, 1000, "float32") == 10


def test_operator_has_every_type_and_layout():
    for on_cpu in (True, False):
        found = cases(on_cpu, quick=False)
        assert len(set(found)) == len(found)
        dtypes = {case.dtype for case in found}
        assert dtypes == {torch.float32, torch.bfloat16, torch.float16}
        assert {case.layout for case in found if len(case.shape) == 4} == {"contiguous", "channels last"}
    assert {len(case.shape) for case in found} == {3, 4, 5}


@pytest.mark.parametrize("length", [64, 67, 75])
def test_both_ways_of_the_crossover_are_the_same_operator(length):
    x = torch.randn(2, 3, length, dtype=torch.float64)
    matrix = resampling_matrix(length, 2.0, dtype=torch.float64)
    found = fourier(x, gains_of(length).double(), len(matrix))
    torch.testing.assert_close(found, x @ matrix.t(), rtol=0, atol=1e-6)


def test_the_crossing_is_where_one_wins_for_good():
    def row(length, dense, fft):
        return {"length": length, "prime": False, "dense": {"seconds": dense}, "fft": {"seconds": fft}}

    rows = [row(64, 1, 2), row(128, 2, 1), row(256, 1, 2), row(1024, 2, 1)]
    assert crossing_length(rows, False, "fft") == pytest.approx(512)
    assert crossing_length(rows[:3], False, "fft") is None
    assert crossing_length(rows[3:], False, "fft") == 1024


def test_a_compiler_that_fails_leaves_a_reason(monkeypatch):
    def compiler(module, **_):
        if any(isinstance(each, FourierStride) for each in module.modules()):
            raise RuntimeError("no transforms\nhere")
        return module

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)
    monkeypatch.setattr(network, "METHODS", {name: network.METHODS[name] for name in ("strided", "fft", "inner")})
    monkeypatch.setattr(network, "cases", lambda on_cpu, quick, cases=network.cases: cases(on_cpu, quick)[1:])
    record = network.BENCH.record(network.Setup(CPU, 1, quick=True, compiled=True))
    rows = {(row["mode"], row["method"]): row for row in record.rows}
    assert len(rows) == 7  # the fixed grid is compiled only
    assert rows["compiled", "fft"]["training"] is None
    assert rows["compiled", "fft"]["reason"] == "RuntimeError: no transforms"
    assert rows["compiled", "inner"]["training"]["eager"] > 0
    page = network.BENCH.render(record)
    assert "resnet18, compiled" in page
    assert "Not measured: DiffStride outer, R = 4, by FFT: RuntimeError: no transforms." in page
