"""The tables of docs/upsample.md and docs/scales.md, from the records of the examples in results/examples.

    python benchmarks/example_tables.py            # writes them
    python benchmarks/example_tables.py --check    # only says whether they are what the records say

A record that is not there leaves its place in the page as it is.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "examples"
Rows = dict[str, list[dict[str, Any]]]


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Mean and deviation."""
    values = [scale * value for value in values]
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def column(found: list[dict[str, Any]], name: str, scale: float = 1.0, digits: int = 1) -> str:
    return spread([each[name] for each in found], scale, digits)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)])


def unet(rows: Rows) -> str:
    cells = [[kind, column(r, "overlap", 100), column(r, "multiply_accumulates", 1e-6, 2)] for kind, r in rows.items()]
    return table(("shrinks and enlarges by", "overlap, %", "MMAC per scene"), cells)


def scales(rows: Rows) -> str:
    accuracies = [name for name in next(iter(rows.values()))[0] if name.startswith("accuracy")]
    names = [f"{name.replace('accuracy x', 'digits x')}, %" for name in accuracies]
    cells = [
        [kind, *(column(r, name, 100) for name in accuracies), column(r, "multiply_accumulates", 1e-6, 2)]
        for kind, r in rows.items()
    ]
    return table(("network", *names, "MMAC per scene"), cells)


def per_example(rows: Rows) -> str:
    accuracies = [name for name in rows["one for all"][0] if name.startswith("accuracy")]
    strides = [name for name in rows["one for all"][0] if name.startswith("stride")]
    names = [f"{name.replace('accuracy x', 'digits x')}, %" for name in accuracies]
    cells = [
        [
            kind,
            *(column(r, name, 100) for name in accuracies),
            *(column(r, name, 1, 2) for name in strides),
            column(r, "multiply_accumulates", 1e-6, 2),
        ]
        for kind, r in rows.items()
    ]
    return table(("stride", *names, *strides, "MMAC per scene"), cells)


TABLES: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "unet": ("upsample.md", unet),
    "scales": ("scales.md", scales),
    "per_example": ("scales.md", per_example),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    wrong = []
    for name, (page, made) in TABLES.items():
        record, path = RECORDS / f"{name}.json", ROOT / "docs" / page
        if not record.exists():
            continue
        text = made(json.loads(record.read_text())["rows"])
        before = path.read_text()
        after = re.sub(
            rf"<!-- {name} -->.*?<!-- end -->", f"<!-- {name} -->\n{text}\n<!-- end -->", before, flags=re.DOTALL
        )
        if f"<!-- {name} -->" not in before or after != before:
            wrong.append(page)
            if not options.check:
                path.write_text(after)
    if wrong and options.check:
        sys.exit(f"not what the records say: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
