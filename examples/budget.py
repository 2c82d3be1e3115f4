# python examples/budget.py  (about four minutes on two CPU cores; --quick: one, to see it run)
"""A converted timm ResNet learns its strides within half of its multiply-accumulates; then it runs in ONNX Runtime."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import anystride
from anystride.lab.data.scenes import scene_task
from anystride.lab.record import run_example


def train(model, task, epochs, budget=None, batch=64, lr=0.1):
    """One pass of the usual loop per epoch; what is new is one line of the loss."""
    example = task.train_images[:1]
    groups = anystride.param_groups(model, lr=lr, weight_decay=5e-4, stride_lr=lr / 10)
    optimiser = torch.optim.SGD(groups, momentum=0.9)
    steps = epochs * (len(task.train_images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [group["lr"] for group in groups], total_steps=steps)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(task.train_images)).split(batch)[: len(task.train_images) // batch]:
            loss = cross_entropy(model(task.train_images[chosen]), task.train_labels[chosen])
            if budget is not None:
                loss = loss + budget(anystride.macs(model, example))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def accuracy(predict, task):
    """Share of the test scenes that are named rightly."""
    return (predict(task.test_images).argmax(1) == task.test_labels).float().mean().item()


def predict(model):
    """The model in evaluation mode, as a function."""
    model.eval()
    return torch.no_grad()(model)


def main(quick=False):
    """Train twice, export once; returns accuracies and costs."""
    torch.manual_seed(0)
    task = scene_task(1000 if quick else 4000, 200 if quick else 1000, seed=0)
    epochs = 3 if quick else 12
    example = task.train_images[:1]

    def network():
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", in_chans=1, num_classes=10, channels=(16, 32, 64, 128), stem_width=16)
        # The stem is made for photographs of 224 pixels; scenes have 32.
        model.maxpool = nn.Identity()
        return model

    before = network()
    train(before, task, epochs)
    result = {"strided": (accuracy(predict(before), task), anystride.macs(before, example).item())}

    model = network()
    # Maps of a few samples: a ramp of one bin blurs them less than the default of four.
    print(anystride.convert_(model, example, ramp="inner", smoothness=1.0))
    # At stride 1, the convolutions cost more than they did: the budget is half of what training starts from.
    start = anystride.macs(model, example).item()
    train(model, task, epochs, budget=anystride.Budget(limit=start / 2))
    for name, stride in anystride.learned_strides(model).items():
        print(f"{name}: {', '.join(f'{s:.2f}' for s in stride.tolist())}")
    result["learned"] = (accuracy(predict(model), task), anystride.macs(model, example).item())

    anystride.freeze_(model, example)
    result["frozen"] = (accuracy(predict(model), task), anystride.macs(model, example).item())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        batch = torch.export.Dim("batch", min=1, max=4096)
        torch.onnx.export(
            model,
            (task.test_images[:2],),
            path,
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: batch},),
            input_names=["image"],
            verbose=False,
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        run = session.run(None, {"image": task.test_images.numpy()})[0]
    difference = np.abs(run - predict(model)(task.test_images).numpy()).max()
    result["ONNX Runtime"] = (accuracy(lambda _: torch.from_numpy(run), task), result["frozen"][1])

    print(f"\n{'':14}accuracy   MMAC per image")
    for name, (right, macs) in result.items():
        print(f"{name:14}{100 * right:7.1f} %{macs / 1e6:12.2f}")
    print(
        f"\nconverted, at the strides that it had: {start / 1e6:.2f} MMAC; budget: half of it, {start / 2e6:.2f} MMAC"
    )
    print(f"ONNX Runtime differs from PyTorch by {difference:.1e}")
    return result, start, difference


def figures(quick):
    """What a record keeps."""
    result, start, difference = main(quick)
    rows = {name: {"accuracy": right, "multiply_accumulates": macs} for name, (right, macs) in result.items()}
    return {"seed": 0, "rows": rows, "converted_multiply_accumulates": start, "onnx_difference": difference.item()}


if __name__ == "__main__":
    run_example(figures, __file__, __doc__)
