"""Nested arguments and results: their leaves, paths, and copies with other tensors."""

import collections
import dataclasses
import types
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves

from anystride import convert_, macs
from anystride.execution import arguments
from anystride.trees import leaves_with_paths, map_tensors, tensors

A, B, C = torch.ones(2), torch.ones(3), torch.ones(4)


class Pair(NamedTuple):
    image: torch.Tensor
    mask: object


@dataclasses.dataclass(frozen=True)
class Sample:
    image: torch.Tensor
    more: object = None


@dataclasses.dataclass
class Output(collections.OrderedDict):
    """As those of Hugging Face: a dictionary whose entries are attributes, too."""

    logits: object = None

    def __post_init__(self):
        self["logits"] = self.logits

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


class Listed:
    """An object that holds tensors, as a list of images in many detectors."""

    def __init__(self, tensors, mask):
        self.tensors, self.mask, self.sizes = tensors, mask, []


@pytest.mark.parametrize(
    "tree",
    [A, None, 3, {"image": [A, {"b": (B, 2)}]}, [A, [B, C]], (), Pair(A, [B]), collections.OrderedDict(a=A, b={4: B}),
     torch.return_types.max((A, B)), collections.defaultdict(list, a=[A])],
)  # fmt: skip
def test_paths_are_those_of_torch(tree):
    leaves, _ = tree_flatten_with_path(tree)
    assert [(path, id(leaf)) for path, leaf in leaves_with_paths(tree)] == [(keystr(p), id(x)) for p, x in leaves]
    assert [id(leaf) for _, leaf in leaves_with_paths(tree)] == [id(leaf) for leaf in tree_leaves(tree)]


TREES = {
    "dataclass": (Sample(A, [B]), [".image", ".more[0]"]),
    "user dictionary": (collections.UserDict(a=A, b=(B,)), ["['a']", "['b'][0]"]),
    "model output": (Output(logits=A), ["['logits']"]),
    "read-only mapping": (types.MappingProxyType({"a": A}), ["['a']"]),
    "deque": (collections.deque([A, B]), ["[0]", "[1]"]),
    "object": (Listed(A, B), [".tensors", ".mask"]),
    "images of many sizes": ([A, B, C], ["[0]", "[1]", "[2]"]),
    "all in one": ((Sample({"x": Pair(A, None)}),), ["[0].image['x'].image", "[0].image['x'].mask", "[0].more"]),
}


@pytest.mark.parametrize("kind", TREES)
def test_other_containers(kind):
    tree, paths = TREES[kind]
    assert [path for path, _ in leaves_with_paths(tree)] == paths
    before = [id(t) for t in tensors(tree)]
    made = map_tensors(lambda t: t + 1, tree)
    assert type(made) is type(tree)
    assert made is not tree
    assert [path for path, _ in leaves_with_paths(made)][:2] == paths[:2]
    assert all(torch.equal(new, old + 1) for new, old in zip(tensors(made), tensors(tree), strict=True))
    assert [id(t) for t in tensors(tree)] == before, "the original stays"


def test_an_object_that_holds_itself():
    tree = Listed(A, B)
    tree.me = tree
    assert [path for path, _ in leaves_with_paths(tree)] == [".tensors", ".mask", ".me"]
    assert map_tensors(lambda t: t + 1, tree).tensors[0] == 2


def test_an_attribute_of_an_output_is_its_entry():
    made = map_tensors(lambda t: t + 1, Output(logits=A))
    assert made.logits is made["logits"]


def test_a_packed_sequence_keeps_its_lengths_on_the_host():
    packed = pack_sequence([torch.ones(2, 3), torch.ones(4, 3)], enforce_sorted=False)
    made = map_tensors(lambda t: t.to("meta"), packed)
    assert isinstance(made, PackedSequence)
    assert made.data.is_meta
    assert not made.batch_sizes.is_meta


def test_containers_are_copied():
    tree = {"a": [A], "b": [1, 2]}
    made = map_tensors(lambda t: t, tree)
    made["a"].append(B)
    made["b"].pop()
    assert tree == {"a": [A], "b": [1, 2]}


def test_arguments():
    pair = Pair(A, B)
    assert arguments((A, B)) == ((A, B), {})
    assert arguments([A, B])[0][0] is not None
    assert len(arguments([A, B])[0]) == 1
    assert arguments(pair)[0] == (pair,)
    assert arguments(collections.UserDict(x=A)) == ((), {"x": A})
    assert arguments(Sample(A))[0][0].image is A


class Nested(nn.Module):
    """Unpacks its argument by `take`, and gives a nested result."""

    def __init__(self, take):
        super().__init__()
        self.take, self.conv = take, nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, *args, **kwargs):
        return Sample(Pair(Output(logits=self.conv(self.take(*args, **kwargs))), None))


X = torch.ones(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("example", "take"),
    [
        (Pair(X, None), lambda pair: pair.image),
        (Sample(X), lambda sample: sample.image),
        (collections.UserDict(image=X), lambda image: image),
        ((collections.UserDict(image=X),), lambda batch: batch["image"]),
        ([X[0], X[0, :, :16, :16]], lambda images: images[0][None]),
        ((Listed(X, None),), lambda listed: listed.tensors),
        ({"batch": {"image": Sample([X])}}, lambda batch: batch["image"].image[0]),
    ],
    ids=["named tuple", "dataclass", "keywords", "user dictionary", "list of images", "object", "nested"],
)
def test_models_take_nested_arguments(example, take):
    model = Nested(take)
    cost = macs(model, example)
    assert cost.item() == 16 * 16 * 4 * 3 * 9
    plan = convert_(model, example)
    assert [change.name for change in plan.changes if change.role == "learn"] == ["conv"]
    assert macs(model, example).item() > 0


def test_hugging_faces_batches():
    batches = pytest.importorskip("transformers.feature_extraction_utils")
    batch = batches.BatchFeature({"pixel_values": X})
    assert list(arguments(batch)[1]) == ["pixel_values"]
    made = map_tensors(lambda t: t.to("meta"), batch)
    assert type(made) is type(batch)
    assert made["pixel_values"].is_meta
    assert not batch["pixel_values"].is_meta
    outputs = pytest.importorskip("transformers.modeling_outputs")
    found = outputs.BaseModelOutput(last_hidden_state=A, hidden_states=(A, B))
    assert [path for path, _ in leaves_with_paths(found)][1:] == ["['hidden_states'][0]", "['hidden_states'][1]"]
    assert map_tensors(lambda t: t + 1, found).last_hidden_state[0] == 2
