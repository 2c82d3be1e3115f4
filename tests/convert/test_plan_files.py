"""Plans that were damaged: each is refused by name, or prints, and a model takes it or is as it was."""

import copy
import json
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from anystride import Plan, apply_, convert_
from anystride.convert.rewrite import ordinary
from networks import EveryRole, Segments

DAMAGES = 500  # per network


class Pyramid(nn.Module):
    """One upsampling that follows two maps in turn, a transposed convolution, and a slice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv1d(n, 4, 3, stride=2, padding=1) for n in (2, 4, 4))
        self.up, self.last = nn.Upsample(scale_factor=2), nn.ConvTranspose1d(4, 4, 2, stride=2)
        self.side = nn.Conv1d(2, 4, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        y = self.up(self.up(self.c(b)) + b) + a
        return self.last(y) + self.side(x), self.side(x)[..., ::2] + a


class Blur(nn.Module):
    """A fixed filter."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kernel", torch.ones(4, 1, 3, 3) / 9)

    def forward(self, x):
        return F.conv2d(x, self.kernel, stride=2, padding=1, groups=4)


class Kept(nn.Module):
    """What keeps a size: a table of positions along one axis, a flattened map; with calls of functions and a blur."""

    def __init__(self):
        super().__init__()
        self.stem, self.blur = nn.Conv2d(3, 4, 3, stride=2, padding=1), Blur()
        self.table = nn.Parameter(torch.zeros(1, 4, 8, 1))
        self.pool, self.head = nn.MaxPool2d(2, ceil_mode=True), nn.Linear(4 * 4 * 4, 2)

    def forward(self, x):
        x = self.blur(F.relu(self.stem(x))) + self.table
        y = F.avg_pool2d(self.pool(x), 2)
        return self.head(self.pool(x).flatten(1)), F.interpolate(y, scale_factor=2, mode="bilinear"), y


NETWORKS = {
    "every-role": (EveryRole, (2, 3, 32, 32), {}),
    "segments": (Segments, (2, 3, 16, 24), {"ramp": "inner", "padding_mode": "circular"}),
    "pyramid": (Pyramid, (2, 2, 32), {"method": "spectral"}),
    "kept": (Kept, (2, 3, 32, 32), {"grid": 2, "shared": True}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    make, shape, options = NETWORKS[request.param]
    model, x = make().eval(), torch.randn(shape)
    plan = convert_(copy.deepcopy(model), x, **options)
    return model, x, plan


def leaves(value, path=()):
    """The paths of all values within an object, its containers included."""
    yield path
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def damaged(data, choose):
    """A plan's data with one thing changed, and what that is."""
    data = copy.deepcopy(data)
    paths = [path for path in leaves(data) if path]
    path = choose.choice(paths)
    owner, key = at(data, path[:-1]), path[-1]
    if choose.random() < 0.15:  # two values change places
        other = choose.choice([p for p in paths if p[-1] == key and len(p) == len(path)])
        there = at(data, other[:-1])
        if other[: len(path)] != path:
            owner[key], there[key] = there[key], owner[key]
        return data, ("swap", path, other)
    if choose.random() < 0.15:
        del owner[key]
        return data, ("delete", path)
    values = [
        None,
        True,
        "bogus",
        "",
        0,
        1,
        7,
        -1,
        1e308,
        -(10**30),
        10**400,
        float("nan"),
        float("inf"),
        2.5,
        [],
        [1],
        {},
    ]
    if isinstance(owner[key], str):
        values += [owner[key][: len(owner[key]) // 2], owner[key] + "x", "input:nothing", "input"]
    if isinstance(owner[key], int):
        values += [owner[key] + 1, owner[key] - 1, 2 * owner[key]]
    owner[key] = choose.choice(values)
    return data, ("replace", path, owner[key] if not isinstance(owner[key], int) else float(min(owner[key], 10**30)))


def only_a_run_tells(what):
    """Whether a damage gives a plan that another network could have: layers that are alike have changed places, or a
    layer that runs several times follows others in turn, whose sizes at that call are in no plan.
    """
    return what[1][-1] == "name" or "turns" in what[1]


def check(text, network, what):
    """A plan's text is refused, or what it says is done, or it changes nothing."""
    model, x, _ = network
    try:
        plan = Plan.from_json(text)
    except ValueError as error:
        assert str(error).startswith("text must be a plan as Plan.to_json writes it, but "), what  # noqa: PT017
        assert len(str(error).splitlines()) == 1, what  # noqa: PT017
        return "refused"
    assert str(plan), what
    assert Plan.from_json(plan.to_json()) == plan, what
    fresh = copy.deepcopy(model)
    try:
        apply_(fresh, plan)
    except ValueError as error:
        assert "plan" in str(error), what  # noqa: PT017
        assert [(n, type(m)) for n, m in fresh.named_modules()] == [(n, type(m)) for n, m in model.named_modules()], (
            what
        )
        return "does not fit"
    try:
        with torch.no_grad():
            fresh(x)
    except RuntimeError:
        if only_a_run_tells(what):
            return "does not fit"
        raise
    return "runs"


def test_damaged_plans(network):
    data = json.loads(network[2].to_json())
    choose = random.Random(1)
    found = {"refused": 0, "does not fit": 0, "runs": 0}
    for _ in range(DAMAGES):
        changed, what = damaged(data, choose)
        try:
            found[check(json.dumps(changed), network, what)] += 1
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert found["refused"] > 0.6 * DAMAGES
    assert found["runs"] > 0


def test_plans_that_were_cut(network):
    text = network[2].to_json()
    for length in range(0, len(text) - 1, max(1, len(text) // 50)):
        assert check(text[:length], network, length) == "refused"
    assert check(text, network, "whole") == "runs"
    assert check("[" * 100_000, network, "deep") == "refused"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "bogus", "in the plan, 'method' must be one of 'diffstride', 'spectral', got 'bogus'"),
        ("ramp", "steep", "'ramp' must be one of 'outer', 'inner', 'cosine', got 'steep'"),
        ("smoothness", float("inf"), "'smoothness' must be a number from 1e-09 to 1e.09, got inf"),
        ("smoothness", 0, "'smoothness' must be a number"),
        ("rolloff", 2, "'rolloff' must be a number above 0 and at most 1, got 2"),
        ("tolerance", None, "'tolerance' must be a number from 0.0001 to 0.2, got None"),
        ("padding_mode", "zeros", "'padding_mode' must be one of 'auto', 'replicate', 'reflect', 'circular', null"),
        ("grid", 0, "'grid' must be 'free', 'fixed' or a whole number of at least 1, got 0"),
        ("shared", 1, "'shared' must be one of True, False, got 1"),
        ("macs", [1], r"'macs' must be null or two whole numbers of at least 0, got \(1,\)"),
        ("notes", [3], r"'notes' must be a list of texts, got \(3,\)"),
        ("speed", 3, "in the plan has a field 'speed', which no plan has; remove it"),
        ("schema", 4, "its 'schema' must be a number from 1 to 3"),
    ],
)
def test_fields_of_a_plan(field, value, message):
    data = json.loads(Plan().to_json()) | {field: value}
    with pytest.raises(ValueError, match=message):
        Plan.from_json(json.dumps(data))


def test_a_plan_that_was_made_by_hand():
    """What `apply_` is given is checked as what comes from a file."""
    with pytest.raises(ValueError, match="in the plan, 'method' must be one of"):
        apply_(nn.Sequential(), Plan(method="fft"))
    with pytest.raises(ValueError, match="in the plan, padding_mode must be 'circular' for ramp='inner'"):
        apply_(nn.Sequential(), Plan(ramp="inner", padding_mode="reflect"))


def test_a_missing_field_is_named():
    data = json.loads(Plan().to_json())
    del data["rolloff"]
    with pytest.raises(ValueError, match="in the plan lacks the field 'rolloff'; it must be a number above 0"):
        Plan.from_json(json.dumps(data))
    assert Plan.from_json(json.dumps(data | {"schema": 1})) == Plan()  # as version 0.1 wrote it


class Picks(nn.Module):
    """A call whose function only another call knows."""

    def __init__(self):
        super().__init__()
        self.picked = 0

    def pick(self):
        self.picked += 1
        return F.relu

    def forward(self, x):
        return F.max_pool2d(self.pick()(x), 2)


def test_finding_a_call_runs_nothing_of_the_model():
    """Plans of version 0.1 tell a call by its number among those of torch."""
    model = Picks()
    assert ordinary(model, 0).startswith("forward:")
    assert model.picked == 0
