"""How a plan reads: within 80 columns, groups of places, a reason once; as HTML and as plain values."""

import html
import re
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from anystride import convert_, freeze_, summary
from anystride.columns import WIDTH
from networks import EveryRole, Segments


def squashed(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def plans():
    """Plans of networks that are small, deep, branching, and in need of sizes that stay."""
    nets = {
        "every role": (EveryRole(), torch.zeros(4, 3, 32, 32)),
        "segments": (Segments(), torch.zeros(2, 3, 32, 32)),
        "resnet": (timm.create_model("resnet18"), torch.zeros(8, 3, 64, 64)),
        "hrnet": (timm.create_model("hrnet_w18_small"), torch.zeros(2, 3, 64, 64)),
    }
    return {name: convert_(net, example, dry_run=True) for name, (net, example) in nets.items()}


@pytest.mark.parametrize("name", ["every role", "segments", "resnet", "hrnet"])
def test_a_plan_fits_80_columns_and_names_every_place(plans, name):
    text = str(plans[name])
    assert max(map(len, text.splitlines())) <= WIDTH
    told = {word.strip(",").replace("(model)", "") for word in text.split()}
    drawn = {re.sub(r"\d+-\d+|\d+", "n", word) for word in told}
    for change in plans[name].changes:
        assert change.key in told or re.sub(r"\d+", "n", change.key) in drawn, change.key


def test_a_reason_stands_once(plans):
    text = squashed(str(plans["resnet"]))
    assert text.count("layer2.0.downsample.0") == 1
    assert text.count("add_ in layer2.0") == 1


def test_a_long_path_gets_a_line_of_its_own():
    model = nn.Sequential()
    inner = model
    for step in range(9):
        inner.add_module(f"a_long_name_{step}", nn.Sequential())
        inner = inner[0]
    inner.append(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    lines = str(convert_(model, torch.zeros(1, 3, 32, 32))).splitlines()
    [at] = [number for number, line in enumerate(lines) if line.endswith("a_long_name_8.0")]
    assert lines[at + 1].split() == ["convolution", "2x2", "32x32", "->", "16x16"]


def test_costs_are_those_of_one_example(plans):
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1)), torch.zeros(4, 3, 32, 32)
    plan = convert_(model, x, dry_run=True)
    assert plan.batch == 4
    assert plan.macs[0] == 4 * 16 * 16 * 8 * 27
    assert f"multiply-accumulates per example: {16 * 16 * 8 * 27:,} before" in str(plan)
    apart = replace(plan, batch=None)
    assert f"multiply-accumulates for the example input: {4 * 16 * 16 * 8 * 27:,} before" in squashed(str(apart))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, x, other):
        return self.conv(x).mean((-2, -1)) + other.mean()


@pytest.mark.parametrize(
    ("example", "batch"),
    [
        ((torch.zeros(4, 3, 32, 32), torch.zeros(7)), 4),
        ({"x": torch.zeros(4, 3, 32, 32), "other": torch.zeros(1, 2, 2)}, 4),
        ({"x": torch.zeros(3, 32, 32), "other": torch.zeros(5, 2, 2)}, 1),
    ],
    ids=["vector", "beside", "no batch"],
)
def test_examples_are_those_of_the_first_map(example, batch):
    plan, model = convert_(Two(), example), Two()
    assert plan.batch == batch
    convert_(model, example)
    assert summary(model, example).batch == batch


class Frames(nn.Sequential):
    """Every frame of a film by itself."""

    def forward(self, film):
        return super().forward(film.flatten(0, 1)).unflatten(0, film.shape[:2])


def test_frames_that_are_folded_into_the_batch_are_one_example():
    model = Frames(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    plan = convert_(model, torch.zeros(2, 5, 3, 32, 32), dry_run=True)
    assert plan.batch == 2
    assert f"per example: {5 * 16 * 16 * 8 * 27:,} before" in str(plan)


def test_a_list_of_images_says_nothing_about_examples():
    class Detects(nn.Sequential):
        def forward(self, images):
            return super().forward(torch.stack(images))

    images = [torch.zeros(3, 32, 32) for _ in range(2)]
    plan = convert_(Detects(nn.Conv2d(3, 8, 3, stride=2, padding=1)), (images,), dry_run=True)
    assert plan.batch is None
    assert "for the example input" in str(plan)


def test_a_network_that_was_converted_says_so():
    model, x = Segments(), torch.zeros(1, 3, 32, 32)
    convert_(model, x)
    again = convert_(model, x)
    assert "learns 2 strides already" in str(again)
    assert "learns 2 strides already" in repr(again)
    freeze_(model.eval(), x)
    assert "is frozen" in str(convert_(model, x))


def test_a_network_without_strides_says_so():
    assert "Nothing in this model" in str(convert_(nn.Sequential(nn.Conv2d(3, 8, 3)), torch.zeros(1, 3, 8, 8)))


def test_the_representation_is_one_line(plans):
    for plan in plans.values():
        assert "\n" not in repr(plan)
        assert len(repr(plan)) < WIDTH


def test_a_notebook_shows_every_place_with_a_bar(plans):
    plan = plans["hrnet"]
    page = plan._repr_html_()
    assert page.count("<tr>") == len(plan.changes) + 1
    assert page.count("width:") == len(plan.changes)
    for change in plan.changes:
        assert html.escape(change.key) in page


def test_values_are_plain(plans):
    [*rows] = plans["resnet"].to_dicts()
    assert [row["layer"] for row in rows] == [change.key for change in plans["resnet"].changes]
    assert rows[0] == {
        "layer": "conv1",
        "was": "convolution",
        "stride": (2, 2),
        "becomes": "learns",
        "stride_of": None,
        "size_in": (64, 64),
        "size_out": (32, 32),
        "size_now": (32, 32),
        "why": "",
    }
