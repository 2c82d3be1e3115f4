"""python benchmarks/conversion.py [--seeds 3] [--out results/conversion.json]      about eight minutes on two CPU cores

How much a trained network changes when it is converted, and what brings it back: a small ResNet of timm learns the
digit scenes with its usual strides; then its outputs and accuracy right after `convert_`, after batch-norm
recalibration (one pass over the training data), and after one and three epochs of fine-tuning, beside the same
fine-tuning without conversion.
"""

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from anystride import convert_
from anystride.lab.data.scenes import scene_task
from anystride.lab.record import provenance, write
from budget import accuracy, predict, train

EPOCHS, LR = 6, 0.1
FINE_TUNING = (1, 3)
VARIANTS: dict[str, dict[str, Any]] = {
    "inner, R = 4": {},
    "inner, R = 1": {"smoothness": 1.0},
    "spectral": {"method": "spectral"},
}


def network() -> nn.Module:
    """A narrow ResNet whose stem is made for small images."""
    model = timm.create_model("resnet10t", in_chans=1, num_classes=10, channels=(16, 32, 64, 128), stem_width=16)
    model.maxpool = nn.Identity()
    return model


def one(seed: int) -> dict[str, Any]:
    """All stages for one seed."""
    task = scene_task(4000, 1000, seed=seed)
    torch.manual_seed(seed)
    model = network()
    train(model, task, EPOCHS, lr=LR)
    logits = predict(model)(task.test_images)
    result: dict[str, Any] = {"seed": seed, "trained": accuracy(predict(model), task)}

    def moved(changed: nn.Module) -> float:
        """Root mean square of the change of the logits, relative to their standard deviation."""
        change: Tensor = predict(changed)(task.test_images) - logits
        return (change.square().mean().sqrt() / logits.std()).item()

    def fine_tuned(start: nn.Module, epochs: int) -> float:
        tuned = copy.deepcopy(start)
        torch.manual_seed(seed)
        train(tuned, task, epochs, lr=LR / 5)
        return accuracy(predict(tuned), task)

    result["fine_tuned"] = [fine_tuned(model, epochs) for epochs in FINE_TUNING]
    for name, options in VARIANTS.items():
        changed = copy.deepcopy(model)
        convert_(changed, task.train_images[:1], **options)
        variant: dict[str, Any] = {"converted": accuracy(predict(changed), task), "moved": moved(changed)}
        update_bn(task.train_images.split(256), changed)
        variant |= {"recalibrated": accuracy(predict(changed), task), "recalibrated_moved": moved(changed)}
        variant["fine_tuned"] = [fine_tuned(changed, epochs) for epochs in FINE_TUNING]
        result[name] = variant
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/conversion.json"))
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        rows.append(one(seed))
        print(rows[-1], flush=True)
    command = f"python benchmarks/conversion.py --seeds {options.seeds}"
    write({"command": command, **provenance(), "rows": rows}, options.out)


if __name__ == "__main__":
    main()
