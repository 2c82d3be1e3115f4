"""All recipes by name, in the paper's order. Table A.2 is a measurement, not a grid of runs: see `table_a2`."""

from __future__ import annotations

from anystride.lab.paper import (
    figure3,
    figure4,
    learning,
    pareto,
    release,
    smoothness,
    table1,
    table2,
    table3,
    table4,
    table_a2,
    table_a3,
    table_a5,
    table_a7,
)
from anystride.lab.paper.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        table1.RECIPE,
        table2.RECIPE,
        table3.RECIPE,
        figure3.RECIPES[0],
        table4.RECIPE,
        figure4.RECIPE,
        *figure3.RECIPES[1:],
        *table_a3.RECIPES,
        *table_a5.RECIPES,
        table_a7.RECIPE,
        release.RECIPE,
        smoothness.RECIPE,
        pareto.RECIPE,
        learning.RECIPE,
    )
}

MEASUREMENTS = {table_a2.MEASUREMENT.name: table_a2.MEASUREMENT}
"""What is measured at once instead of trained, by name."""
