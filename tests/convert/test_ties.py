"""Which downsamplers must agree: what is known of classes of maps, and what running a model adds to it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from anystride.convert.groups import Groups
from anystride.convert.labelled import PRIMES
from anystride.convert.sites import Survey
from anystride.convert.ties import find_ties


def test_a_class_is_known_by_what_ran_first():
    groups = Groups()
    for name, size in (("a", (16, 16)), ("b", (8, 8)), ("c", (8, 8))):
        groups.add((name,), size)
    groups.merge(("c",), ("b",), "add in x")
    assert groups.find(("c",)) == groups.find(("b",)) == ("b",)
    assert groups.find(("a",)) == ("a",)
    groups.merge(("c",), ("a",), "cat in y")
    assert groups.find(("c",)) == ("a",)
    assert groups.ties[("a",)] == ["add in x", "cat in y"]


def test_what_is_fixed_fixes_its_class():
    groups = Groups()
    for name in "abc":
        groups.add((name,), (8, 8))
    groups.fix(("b",), "a table of positions")
    assert groups.free(("a",))
    groups.merge(("a",), ("b",), "add")
    assert not groups.free(groups.find(("b",)))
    assert groups.fixed[("a",)] == "a table of positions"
    groups.fix(("a",), "another reason")
    assert groups.fixed[("a",)] == "a table of positions"  # the first one counts
    assert groups.free(("c",))


def test_an_input_is_never_free():
    groups = Groups()
    groups.add(("input", 0), (32, 32))
    assert not groups.free(("input", 0))


class Net(nn.Module):
    """Four convolutions of stride 2, and something that is done with their maps."""

    def __init__(self, meet):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(3, 4, 1, stride=2)
        self.c, self.d = (nn.Conv2d(4, 4, 3, stride=2, padding=1) for _ in range(2))
        self.head, self.meet = nn.Linear(4 * 8 * 8, 2), meet

    def forward(self, x):
        return self.meet(self, x)


def ties(meet):
    """Classes of the four layers by their names, with the reasons that tie or fix them."""
    model, x, sites = Net(meet), torch.randn(1, 3, 32, 32), {}
    Survey(sites).run(model, x, training=False)
    groups, nodes, *_ = find_ties([lambda trial: trial.run(model, x, training=False)], sites)
    classes = {}
    for item, key in nodes.items():
        classes.setdefault(groups.find(item), []).append(key[0])
    found = {frozenset(names): (groups.ties.get(root, []), groups.fixed.get(root)) for root, names in classes.items()}
    return {"".join(sorted(names)): reasons for names, reasons in found.items()}


def test_maps_that_are_added_are_tied():
    assert ties(lambda m, x: m.a(x) + m.b(x)) == {"ab": (["add in the model"], None)}


def test_maps_that_meet_nowhere_are_free():
    assert ties(lambda m, x: m.a(x).mean() + m.b(x).mean()) == {"a": ([], None), "b": ([], None)}


def test_maps_along_chains_that_meet_are_tied_too():
    found = ties(lambda m, x: m.c(F.relu(m.a(x))) + m.d(m.b(x)))
    assert found["cd"] == (["add in the model"], None)
    assert found["ab"] == (["chains that meet further on"], None)


def test_what_a_linear_layer_needs_is_fixed():
    found = ties(lambda m, x: m.head(m.c(m.a(x)).flatten(1)))
    assert found["a"] == ([], None)
    assert found["c"][1].startswith("addmm in head needs its size")


def test_a_size_that_the_model_checks_is_fixed():
    def meet(m, x):
        y = m.a(x)
        if y.shape[2:] != (16, 16):
            raise ValueError("only 16x16")
        return y

    assert ties(meet)["a"][1] == "a refuses another size: only 16x16" or "only 16x16" in ties(meet)["a"][1]


def test_trial_sizes_are_primes_that_no_window_divides():
    assert PRIMES[:4] == [11, 13, 17, 19]


def test_a_search_that_does_not_end_says_so():
    def run(trial):
        trial.groups.fix(trial.groups.add((len(trial.groups.parent),), (4,)), "something new each time")

    with pytest.raises(RuntimeError, match="in 5 runs; use filter or groups"):
        find_ties([run], {}, limit=5)
