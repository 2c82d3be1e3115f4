"""All tables of `anystride bench` by name, in the order of the page."""

from __future__ import annotations

from anystride.lab.bench import crossover, grid, growth, network, operator, throughput, unit
from anystride.lab.bench.base import Bench

_ALL: tuple[Bench, ...] = (
    operator.BENCH,
    network.BENCH,
    growth.BENCH,
    throughput.BENCH,
    unit.BENCH,
    crossover.BENCH,
    grid.BENCH,
)
TABLES = {bench.name: bench for bench in _ALL}
