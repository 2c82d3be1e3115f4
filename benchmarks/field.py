"""python benchmarks/field.py [names] [--workers 2]      about an hour on two CPU cores

`convert_` on networks that people use and that no zoo lists: those of libraries (`field_libraries.py`) and those that
are written anew in each project (`field_networks.py`), with random weights and as small as they can be. Each runs in a
process of its own, with a time limit; finished rows are kept, so that the command goes on where it was stopped. A row
whose library is missing is skipped by name. Writes results/field.json and docs/compatibility.md (`--page`: only that).
"""

import importlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import checks
from examine import Network
from field_libraries import LIBRARIES
from rows import ROOT, Job, chosen, due, kept, load, options, run
from zoo_page import write_page

SHARED = ("torchvision", "onnxruntime", "transformers", "diffusers", "segmentation_models_pytorch")


def networks() -> dict[str, Network]:
    """All rows, by name."""
    try:
        own: dict[str, Network] = importlib.import_module("field_networks").NETWORKS
    except ModuleNotFoundError:
        own = {}
    return LIBRARIES | own


def steps(row: str) -> tuple[str, ...]:
    """Every third row is exported, the same ones each time."""
    return checks.STEPS if zlib.crc32(row.encode()) % 3 == 0 else checks.STEPS[:-1]


def examine(row: str, steps: Sequence[str], send: Callable[[Any], None]) -> dict[str, Any]:
    return checks.examine(networks()[row], steps, send)


def main() -> None:
    args = options(__doc__, "field.json", 240).parse_args()
    results = kept(args.out)
    rows = results["rows"]
    todo: list[Job] = [
        (row, () if args.recount else steps(row))
        for row in filter(lambda row: chosen(row, args), networks())
        if due(rows.get(row), args)
    ]

    def merge(row: str, record: dict[str, Any], source: str) -> None:
        rows[row] = record | {"source": source}

    load(SHARED if todo else ())
    run(todo, examine, results, args, merge)
    write_page(ROOT)


if __name__ == "__main__":
    main()
