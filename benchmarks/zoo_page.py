"""docs/compatibility.md, from what benchmarks/zoo.py and benchmarks/field.py found."""

import html
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from examine import ROLES, TOLERANCE, fine
from zoo_models import listed

Rows = dict[str, dict[str, Any]]
PACKAGES = """
torch timm torchvision torchaudio segmentation_models_pytorch monai onnx onnxruntime transformers diffusers
ultralytics dynamic_network_architectures braindecode tsai speechbrain kornia facenet-pytorch open_clip_torch torchcrepe
efficientnet-pytorch
"""
COLUMNS = """places | learn | tied | follow | keep | stay | MACs | ONNX | result |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|---|"""
FIELD = """
## The field

Other networks that people use, as `python benchmarks/field.py` converted them: from libraries, as small as their
configuration allows, and in our own words after public definitions. Beyond the checks above, looking (`macs`, a dry
run) must leave a fresh network as it was, bit for bit; a network that ran before gets the plan that a fresh one gets;
after strides have moved, an output that had the input's size has it still, at both input sizes, or the plan warns;
freezing at the second size agrees as well; and weights and plan, or the whole network saved, give the same again.
Every third network is exported to ONNX.

"""


def passed(record: dict[str, Any]) -> bool:
    return bool(record.get("strides")) and all(fine(result) for result in record["checks"].values())


def counts(record: dict[str, Any]) -> bool:
    """Whether a network's downsampling is more than one patch embedding: by its places, or by timm's own levels.

    What did not get so far that this is known counts, as one that fails.
    """
    return "places" not in record or max(record["places"], record["levels"]) > 1


def reasons(record: dict[str, Any]) -> tuple[str, list[str]]:
    """What became of a network in one short sentence, and the quotations behind it."""
    checks = record["checks"]
    if "plain" in record:
        return "not tried: the network itself refuses the inputs", [record["plain"]]
    if wrong := [f"{name}: {result}" for name, result in checks.items() if not fine(result)]:
        return "**fails** " + ", ".join(line.split(":")[0] for line in wrong), wrong
    if not record["strides"]:
        whys = [*record["why"], *record["notes"]] or ["no layer changes the resolution"]
        return f"nothing is converted: {_short(whys[0])}", whys
    behind = [f"{name} {result}" for name, result in checks.items() if "warned" in result or result.startswith("n/a")]
    warned = ["a size is warned of"] if any("warned" in result for result in checks.values()) else []
    stay = [f"{record['staying']} stay: {_short(record['why'][0])}"] if record["staying"] else []
    return "; ".join(["passes", *warned, *stay]), [*record["why"], *behind]


def verdict(record: dict[str, Any]) -> str:
    """What became of a network, for the terminal."""
    sentence, behind = reasons(record)
    return sentence if sentence == "passes" else f"{sentence} ({'; '.join(behind)[:600]})"


def _short(reason: str) -> str:
    """A reason without what it quotes."""
    return re.split(r"[:(]|, which", reason)[0].strip()[:80]


def _table(title: str, part: Rows) -> str:
    """One section, folded: a row per network, its reasons folded away."""
    good = sum(map(passed, part.values()))
    text = f"\n<details>\n<summary>{title or 'others'}: {good} of {len(part)} pass</summary>\n\n"
    text += f"| family | network | input | {COLUMNS}\n"
    for row, r in sorted(part.items(), key=lambda item: (item[1].get("family", ""), item[0])):
        roles = [str(r["roles"][role]) if "roles" in r else "" for role in ROLES]
        ratio = f"{r['macs'][1] / max(r['macs'][0], 1):.2f}" if r.get("macs") else ""
        onnx = r["checks"].get("onnx", "")
        sizes = "x".join(map(str, r["input"])) if "input" in r else ", ".join((r.get("inputs") or [[]])[0][:2])
        sentence, behind = reasons(r)
        quoted = "<br>".join(html.escape(line) for line in behind)
        result = f"{sentence} <details><summary>more</summary>{quoted}</details>" if behind else sentence
        cells = [r.get("family", ""), row.split(":")[-1], sizes, str(r.get("places", "")), *roles, ratio,
                 onnx.split(":")[0] if fine(onnx) else "fails" if onnx else "", result]  # fmt: skip
        text += "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |\n"
    return text + "\n</details>\n"


LIBRARIES = {"smp": "segmentation_models_pytorch", "monai": "MONAI, three-dimensional", "": "others"}
KINDS = {  # families of benchmarks/field.py that are no library
    "boxes": "detectors, own words",
    "classifier": "classifiers, own words",
    "dense": "segmentation, own words",
    "enlarged": "super-resolution, own words",
    "map": "maps, own words",
    "scalar": "regressors, own words",
    "sequence": "sequences, own words",
}


def summary(zoo: dict[str, Any], field: dict[str, Any]) -> str:
    """What a reader wants first: library by library, how many networks learn, have nothing to learn, and fail."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row, record in zoo["rows"].items():
        key = row.partition(":")[0]
        found.setdefault(LIBRARIES.get(key, key), []).append(record)
    for record in field["rows"].values():
        key = record.get("family", "")
        if "plain" not in record:
            found.setdefault(KINDS.get(key, LIBRARIES.get(key, key)), []).append(record)
    lines = ["| networks of | tried | pass | nothing to learn | fail |", "|---|--:|--:|--:|--:|"]
    for name, records in sorted(found.items(), key=lambda item: -len(item[1])):
        good = sum(map(passed, records))
        bad = sum(any(not fine(result) for result in record["checks"].values()) for record in records)
        lines.append(f"| {name} | {len(records)} | {good} | {len(records) - good - bad} | {bad} |")
    return "\n".join(lines)


INNER = ("2c80cc919b06", "3f4b13f253ed")
"""Sources of rows that were tried when `inner` was the default ramp."""


def older(field: dict[str, Any]) -> str:
    """Which rows were not tried since the raised cosine is the default."""
    names: dict[str, int] = {}
    for record in field["rows"].values():
        key = record.get("family", "")
        if record.get("source") in INNER and "plain" not in record:
            name = KINDS.get(key, LIBRARIES.get(key, key))
            names[name] = names.get(name, 0) + 1
    told = "; ".join(f"{name} {count}" for name, count in sorted(names.items(), key=lambda item: -item[1]))
    return (
        f"Tried before 0.2.0, with the ramp that was the default then, `inner`, and not since: {told}." if told else ""
    )


def zoo_page(results: dict[str, Any], field: dict[str, Any]) -> str:
    """The part of benchmarks/zoo.py, and the head of the page."""
    rows: Rows = results["rows"]
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

Most convolutional networks convert in one call. What fixes the size of its maps (a position table, windows of
attention, a flattened map before a linear layer) keeps it, and the plan says where. No network was adapted; weights are
random.

{summary(results, field)}

"Nothing to learn" are networks without a stride, or whose sizes are fixed at every place. The tables say what fails.
{older(field)}

**timm**: {len(timm)} model modules, each by its smallest network. In {len(relevant)} of them downsampling is more than
one patch embedding: two or more places that reduce the resolution, or two or more levels by timm's own account, however
they are reached. **{len(good)} of these {len(relevant)} pass ({share:.1f} %)**; {more} of the others pass with timm's
option for inputs of any size, which is off by default, and then learn the stride of the patch embedding. Of
{len(others)} other networks (variants in timm, torchvision, segmentation_models_pytorch, MONAI in three dimensions),
{sum(map(passed, others.values()))} pass.

## How networks were tried

`python benchmarks/zoo.py` and `python benchmarks/field.py` convert each network in place and make this page from
[results/zoo.json](../results/zoo.json) and [results/field.json](../results/field.json), which also have sizes,
times and reasons that the tables leave out. The batch has two examples, the host is a CPU. A network has to: give
outputs of the shapes that it gave before; train, with a
finite gradient other than zero at every stride; stay as it is in a second conversion; train with other strides drawn
for all layers, at this input size and at another one where the unconverted network takes that; and give the same
outputs (to {TOLERANCE:g} of the largest value) once `freeze_` has made its strides constant, in PyTorch and, where the
ONNX column says so, from an ONNX file in onnxruntime. A network passes if it has at least one learned stride and
nothing fails.
Versions: {versions}.

**ONNX** was tried for {len(exported)} networks: {sum(e.startswith("ok") for e in exported)} agree,
{sum(e.startswith("n/a") for e in exported)} do not export unconverted either,
{sum(not fine(e) for e in exported)} fail, which then counts as a failure above.

Columns: *places* that reduce the resolution; how many of all places (also those that enlarge) learn a stride of their
own, are *tied* to another's, *follow* a map's size, *keep* the size that they had, or *stay*; multiply-accumulates
against before, blank where an older count was not repeated. Conversion makes a strided layer run at stride 1, hence
the factor at the strides that the network had.
"""
    sections = [
        ("timm: downsampling in several places", relevant),
        ("timm: a single patch embedding, or no downsampling", {k: r for k, r in timm.items() if k not in relevant}),
        ("timm: variants", {k: r for k, r in others.items() if k.startswith("timm:")}),
    ]
    names = {"torchvision": "torchvision", "smp": "segmentation_models_pytorch", "monai": "MONAI, three-dimensional"}
    sections += [(title, {k: r for k, r in others.items() if k.startswith(f"{key}:")}) for key, title in names.items()]
    text += "".join(_table(title, part) for title, part in sections)
    absent = sorted(row for row in primary if row not in rows)
    return text + (f"\nNot run: {', '.join(absent)}.\n" if absent else "")


def field_page(results: dict[str, Any]) -> str:
    """The part of benchmarks/field.py."""
    rows: Rows = results["rows"]
    tried = {row: r for row, r in rows.items() if "plain" not in r}
    nothing = sum(not any(not fine(x) for x in r["checks"].values()) and not r["strides"] for r in tried.values())
    good = sum(map(passed, tried.values()))
    text = FIELD + (
        f"**{good} of {len(tried)} pass**; in {nothing} nothing is converted, {len(tried) - good - nothing} fail.\n"
        f"Versions: {', '.join(f'{name} {version}' for name, version in results['versions'].items())}.\n"
    )
    for family in sorted({r.get("family", "") for r in rows.values()}):
        text += _table(family, {row: r for row, r in rows.items() if r.get("family", "") == family})
    return text


def write_page(root: Path) -> None:
    """docs/compatibility.md, of both records."""
    zoo, field = (json.loads((root / "results" / name).read_text()) for name in ("zoo.json", "field.json"))
    text = zoo_page(zoo, field) + field_page(field)
    save(root / "docs" / "compatibility.md", text)


def header(root: Path, command: str) -> dict[str, Any]:
    """Where the rows come from."""
    git = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "command": command,
        "commit": git.stdout.strip(),
        "versions": {name: version for name in PACKAGES.split() if (version := _version(name))},
        "hardware": f"{cpu[0].partition(':')[2].strip()}, {os.cpu_count()} cores, one thread, {platform.machine()}",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def save(path: Path, text: str) -> None:
    """Write a file in one step."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
