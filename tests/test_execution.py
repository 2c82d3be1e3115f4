"""What runs without data, what needs data, and what says so."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from anystride import convert_, macs
from anystride.execution import Execution, NeedsDataError, lacks_data, run_once

X = torch.ones(2, 3, 16, 16)


@torch.library.custom_op("anystride_tests::double", mutates_args=(), device_types="cpu")
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


class Reads(nn.Module):
    """A convolution with a stride, and something that looks at values."""

    def __init__(self, read):
        super().__init__()
        self.conv, self.read = nn.Conv2d(3, 4, 3, stride=2, padding=1), read
        self.constants = (torch.ones(1),)

    def forward(self, x):
        self.read(x)
        return self.conv(x)


READS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum() > 0),
    "branch": lambda x: 1 if (x > 0).all() else 2,
    "float": lambda x: float(x[0, 0, 0, 0]),
    "range": lambda x: list(range(x[0, 0, 0, 0].long())),
    "tensor of numbers": lambda x: torch.tensor([x[0, 0, 0, 0], 1.0]),
    "list": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "host": lambda x: x.cpu(),
    "copy": lambda x: torch.zeros(2, 3, 16, 16).copy_(x),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "equal": lambda x: torch.equal(x, x + 1),
    "allclose": lambda x: torch.allclose(x, x),
    "unique": lambda x: x.unique(),
    "unique of a dimension": lambda x: x.unique(dim=0),
    "unique_consecutive": lambda x: x.unique_consecutive(),
    "repeats": lambda x: torch.repeat_interleave(x[0, 0, 0].long()),
    "bincount": lambda x: torch.bincount(x.flatten().long()),
    "an operation for data alone": double,
    "two devices": lambda x: x + torch.zeros(1),
    "boxes": lambda x: pytest.importorskip("torchvision").ops.nms(x[0, 0, :, :4].cumsum(1), x[0, 0, 0], 0.5),
}


@pytest.mark.parametrize("kind", READS)
def test_what_reads_data_says_so(kind):
    model = Reads(READS[kind]).eval()
    model(X)
    with pytest.raises(NeedsDataError):
        Execution().run(model, X, training=False)
    assert macs(model, X).item() == 2 * 8 * 8 * 4 * 3 * 9
    assert [change.role for change in convert_(model, X).changes] == ["learn"]


class Refuses(Execution):
    """Gives convolutions' outputs another size, and catches what operations raise, as a search for sizes does."""

    def operation(self, func, args, kwargs):
        try:
            out = self.call(func, args, kwargs)
        except NeedsDataError:
            raise
        except Exception as error:
            raise ValueError(f"about sizes: {error}") from error
        is_map = func.overloadpacket is torch.ops.aten.convolution
        return out.new_zeros(*out.shape[:2], 13, 13) if is_map else out


SIZES = {
    "linear": lambda x: F.linear(x.flatten(1), x.new_zeros(2, 256)),
    "addition": lambda x: x + x.new_zeros(8, 8),
    "concatenation": lambda x: torch.cat([x, x.new_zeros(2, 4, 8, 8)], 1),
    "view": lambda x: x.view(2, 4, 64),
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_refusal_about_sizes_is_none_about_data(kind):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), Reads(SIZES[kind]))
    model[1].conv = nn.Identity()
    model(X)
    with pytest.raises(ValueError, match="about sizes"):
        Refuses().run(model, X, training=False)
    Execution().run(model, X, training=False)  # it needs none


@pytest.mark.parametrize("kind", READS)
def test_a_need_of_data_is_no_refusal(kind):
    model = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1), Reads(READS[kind]))
    with pytest.raises(NeedsDataError):
        Refuses().run(model, X, training=False)


def test_what_works_without_data():
    for read in (
        lambda x: x[x.argmax(1)[0, :2, :2] * 0],
        lambda x: x.masked_fill(x > 0, 0.0),
        lambda x: torch.repeat_interleave(x, 2, 1),
        lambda x: torch.nonzero_static(x, size=3),
    ):
        Execution().run(Reads(read), X, training=False)


def test_the_error_of_the_model_is_the_one_that_counts():
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("no such thing" if not x.is_meta else "without data")

    with pytest.raises(KeyError, match="no such thing"):
        run_once(Execution, Fails(), X, training=False)
    assert not lacks_data(KeyError("size 3 is not 4"))
