"""docs/compatibility.md, from what benchmarks/zoo.py found."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from zoo_models import listed

# Largest difference, as a part of the largest value, at which two outputs are the same.
TOLERANCE = 1e-4

ROLES = ("learn", "share", "follow", "keep", "stay")


def fine(result: str) -> bool:
    return result.startswith(("ok", "n/a"))


def passed(record: dict[str, Any]) -> bool:
    return bool(record.get("strides")) and all(fine(result) for result in record["checks"].values())


def counts(record: dict[str, Any]) -> bool:
    """Whether a network's downsampling is more than one patch embedding: by its places, or by timm's own levels.

    What did not get so far that this is known counts, as one that fails.
    """
    return "places" not in record or max(record["places"], record["levels"]) > 1


def verdict(record: dict[str, Any]) -> str:
    """The last column of the table."""
    checks = record["checks"]
    if "plain" in record:
        return f"not tried: the network itself refuses the inputs: {record['plain']}"
    wrong = [f"{name}: {result}" for name, result in checks.items() if not fine(result)]
    if wrong:
        return "**fails** " + "; ".join(wrong)
    if not record["strides"]:
        whys = [*record["why"], *record["notes"]] or ["no layer changes the resolution"]
        return "nothing is converted: " + "; ".join(whys[:2])
    extra = [f"{name} {result}" for name, result in checks.items() if result.startswith("n/a") and name != "size2"]
    if record["staying"]:
        extra.append(f"{record['staying']} stay: {record['why'][0]}")
    return "; ".join(["passes", *extra])


def page(results: dict[str, Any]) -> str:
    """docs/compatibility.md."""
    rows: dict[str, dict[str, Any]] = results["rows"]
    primary = listed()
    timm = {row: r for row, r in rows.items() if row.startswith("timm:") and primary.get(row)}
    relevant = {row: r for row, r in timm.items() if counts(r)}
    good = [row for row, r in relevant.items() if passed(r)]
    optional = {r["family"] for row, r in rows.items() if "," in row and passed(r)}
    more = sum(r.get("family") in optional for row, r in relevant.items() if row not in good)
    others = {row: r for row, r in rows.items() if row in primary and row not in timm}
    exported = [r["checks"]["onnx"] for r in rows.values() if "onnx" in r["checks"]]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    share = 100 * len(good) / max(len(relevant), 1)
    text = f"""# Compatibility

What `convert_` does to public network definitions, as `python benchmarks/zoo.py` found it. The page is generated from
[results/zoo.json](../results/zoo.json), which also has the sizes, times and reasons that the tables leave out. Weights
are random, the batch has two examples, and the host is a CPU.
Versions: {versions}.

Each network is converted in place and then has to: give outputs of the shapes that it gave before; train, with a
finite gradient other than zero at every stride; stay as it is in a second conversion; train with other strides drawn
for all layers, at this input size and at another one where the unconverted network takes that; and give the same
outputs (to {TOLERANCE:g} of the largest value) once `freeze_` has made its strides constant, in PyTorch and, where the
ONNX column says so, from an ONNX file in onnxruntime. A network passes if it has at least one learned stride and
nothing fails.

**timm**: {len(timm)} model modules, each by its smallest network. In {len(relevant)} of them downsampling is more than
one patch embedding: two or more places that reduce the resolution, or two or more levels by timm's own account, however
they are reached. **{len(good)} of these {len(relevant)} pass ({share:.1f} %)**; {more} of the others pass with timm's
option for inputs of any size, which is off by default, and then learn the stride of the patch embedding. Of
{len(others)} other networks (variants in timm, torchvision, segmentation_models_pytorch, MONAI in three dimensions),
{sum(map(passed, others.values()))} pass.

**ONNX** was tried for {len(exported)} networks: {sum(e.startswith("ok") for e in exported)} agree,
{sum(e.startswith("n/a") for e in exported)} do not export unconverted either,
{sum(not fine(e) for e in exported)} fail, which then counts as a failure above.

Columns: *places* that reduce the resolution; how many of all places (also those that enlarge) learn a stride of their
own, are *tied* to another's, *follow* a map's size, *keep* the size that they had, or *stay*; multiply-accumulates
against before. Conversion makes a strided layer run at stride 1, hence the factor at the strides that the network had.
"""
    sections = [
        ("timm: downsampling in several places", relevant),
        ("timm: a single patch embedding, or no downsampling", {k: r for k, r in timm.items() if k not in relevant}),
        ("timm: variants", {k: r for k, r in others.items() if k.startswith("timm:")}),
    ]
    names = {"torchvision": "torchvision", "smp": "segmentation_models_pytorch", "monai": "MONAI, three-dimensional"}
    sections += [(title, {k: r for k, r in others.items() if k.startswith(f"{key}:")}) for key, title in names.items()]
    for title, part in sections:
        text += (
            f"\n## {title}\n\n| module | network | input | places | learn | tied | follow | keep | stay | MACs | ONNX |"
        )
        text += " result |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|---|\n"
        for row, r in sorted(part.items(), key=lambda item: (item[1].get("family", ""), item[0])):
            roles = [str(r["roles"][role]) if "roles" in r else "" for role in ROLES]
            macs = f"{r['macs'][1] / max(r['macs'][0], 1):.2f}" if "macs" in r else ""
            onnx = r["checks"].get("onnx", "")
            cells = [r.get("family", ""), row.split(":")[1], "x".join(map(str, r.get("input", ()))),
                     str(r.get("places", "")), *roles, macs,
                     onnx.split(":")[0] if fine(onnx) else "fails" if onnx else "", verdict(r)]  # fmt: skip
            text += "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |\n"
    absent = sorted(row for row in primary if row not in rows)
    return text + (f"\nNot run: {', '.join(absent)}.\n" if absent else "")


def header(root: Path) -> dict[str, Any]:
    """Where the rows come from."""
    git = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
    packages = ("torch", "timm", "torchvision", "segmentation_models_pytorch", "monai", "onnx", "onnxruntime")
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "command": "python benchmarks/zoo.py --onnx",
        "commit": git.stdout.strip(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "hardware": f"{cpu[0].partition(':')[2].strip()}, {os.cpu_count()} cores, one thread, {platform.machine()}",
    }


def save(path: Path, text: str) -> None:
    """Write a file in one step."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
