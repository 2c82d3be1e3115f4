"""Weights and card of a network that ships with the package, from a finished run.

    python benchmarks/pretrained.py RUN NAME    # writes src/anystride/lab/weights/NAME.safetensors and NAME.md

RUN is the folder of a run of `anystride paper` or `anystride train`.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

import anystride
from anystride.lab.bundled import HEADER, WEIGHTS
from anystride.lab.run.checkpoint import read_checkpoint
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import load

CARD = """# {name}

A ResNet-18 of width {width} for images of {side}x{side}, whose strides were learned within the
multiply-accumulates of strided convolutions at ({budget}).

| | |
|---|---|
| data | {examples} |
| training | {epochs} epochs, batches of {batch}, SGD, rates up to {lr:g}, crops and flips |
| command | `{command}` |
| commit | `{commit}` |
| test accuracy | {accuracy:.1f} %, after the last epoch |
| multiply-accumulates | {macs:.2f} million per image |
| strides, vertical and horizontal | {strides} |
| parameters | {parameters:,} |
| weights | safetensors, float32, Apache-2.0 |

CIFAR-10 is by Krizhevsky (2009). This copy of it was compressed once more as JPEG, so that accuracies
compare with those of the same copy alone. The network shows what learned strides are, and gives
tutorials something to start from. It is far from the best that CIFAR-10 allows, and it knows ten
classes of small pictures and nothing else: do not use it to decide anything.

```python
import anystride.lab

trained = anystride.lab.pretrained("{name}")
trained.predict(["photo.jpg"])
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    saved = read_checkpoint(options.run / "last.ckpt")
    record = load(options.run / "record.json")
    values = {**saved["hyper_parameters"], "epoch": saved["epoch"] + 1}
    weights = {name: tensor.contiguous() for name, tensor in saved["state_dict"].items()}
    path = WEIGHTS / f"{options.name}.safetensors"
    save_file(weights, path, {HEADER: json.dumps(values)})
    path.chmod(0o644)
    trained = anystride.lab.pretrained(options.name)
    config = RunConfig.from_json(record.configuration)
    strides = anystride.learned_strides(trained.model)
    card = CARD.format(
        name=options.name,
        width=config.width,
        side=config.image_size,
        budget=config.budget_macs.partition(":")[2].replace(",", ", ") or "none",
        examples=record.examples,
        epochs=config.epochs,
        batch=config.batch_size,
        lr=config.lr,
        command=" ".join(record.command),
        commit=record.commit[:12],
        accuracy=100 * record.accuracy,
        macs=record.multiply_accumulates / 1e6,
        strides=", ".join(f"({', '.join(f'{value:.2f}' for value in stride.tolist())})" for stride in strides.values()),
        parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
    )
    (WEIGHTS / f"{options.name}.md").write_text(card)
    print(card)


if __name__ == "__main__":
    main()
