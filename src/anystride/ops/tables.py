"""What matrices of one grid have in common: waves on the input's grid and on the output's, by frequency."""

import math

import torch
from torch import Tensor

from anystride.ops.cache import matrices


def tables(length: int, h: int, device: str) -> Tensor:
    """(h, h + L + 2) in float64: all that matrices of one grid (L, h) have in common, side by side.

    Synthesis (h, h) has a cosine or sine of the output's grid per column, analysis (h, L) one of the input's per row,
    with multiplicities m and 1 / L; then come the frequency of each, and sqrt(m / h). From the cache; to a compiler the
    table is a constant (`layers.hold_sizes`).
    """
    where = torch.device(device)
    return matrices.get(("tables", length, h, where), _one_table, length, h, where)[0]


def _one_table(length: int, h: int, device: torch.device) -> tuple[Tensor]:
    return (make_tables(length, h, device),)


def make_tables(length: int, h: int, device: torch.device) -> Tensor:
    paired, unpaired = (h - 1) // 2, 1 - h % 2
    k = torch.arange(paired + 1 + unpaired, device=device)
    cosines, sines = slice(None), slice(1, paired + 1)

    def waves(samples: int) -> tuple[Tensor, Tensor]:
        # The angle in turns of 1 / samples is an integer, which is reduced exactly.
        turns = torch.outer(torch.arange(samples, device=device), k) % samples
        angle = turns.double().mul_(2 * math.pi / samples)
        return angle.cos()[:, cosines], angle.sin()[:, sines]

    synthesis = torch.cat(waves(h), dim=1)
    analysis = torch.cat(waves(length), dim=1).t()
    bins = torch.cat([k[cosines], k[sines]]).unsqueeze(1)
    multiplicity = torch.where((bins == 0) | (2 * bins == h), 1.0, 2.0).double()
    analysis = analysis * (multiplicity / length)
    return torch.cat([synthesis, analysis, bins.double(), (multiplicity / h).sqrt()], dim=1)
