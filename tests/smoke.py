"""The package as it is installed, without pytest: `python tests/smoke.py`, and what extras add: `... smoke.py lab`."""

import math
import struct
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import torch
from torch import nn

import anystride

for layer, size in (
    (anystride.DiffStride1d, (32,)),
    (anystride.DiffStride2d, (32, 24)),
    (anystride.DiffStride3d, (8, 16, 16)),
):
    for ramp in ("outer", "inner", "cosine"):
        pool = layer(2.0, ramp=ramp)
        x = torch.randn(2, 3, *size, requires_grad=True)
        y = pool(x)
        assert tuple(y.shape[2:]) == pool.output_size(size)
        y.square().mean().backward()
        assert pool.stride.grad is not None
        assert torch.isfinite(pool.stride.grad).all()

model = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1)
)
images = torch.randn(2, 3, 32, 32)
plan = anystride.convert_(model, images)
assert len(plan.replaced) == 2, plan
budget = anystride.Budget(0.5 * anystride.macs(model, images).item())
optimiser = torch.optim.SGD(anystride.param_groups(model, lr=0.01), momentum=0.9)
for _ in range(3):
    optimiser.zero_grad()
    (model(images).square().mean() + budget(anystride.macs(model, images))).backward()
    optimiser.step()
anystride.fit_macs_(model, images, budget.limit)
assert anystride.summary(model, images).macs <= budget.limit
before = model.eval()(images)
anystride.freeze_(model, images)
assert torch.allclose(model(images), before, atol=1e-4)


def command(*arguments: str) -> str:
    """What a command of anystride prints."""
    done = subprocess.run([sys.executable, "-m", "anystride", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plot(folder: Path) -> None:
    """A picture of the windows."""
    import matplotlib

    matplotlib.use("Agg")
    learned = nn.Sequential(anystride.DiffStride2d(2.0))
    anystride.plot_windows(learned, images).figure.savefig(folder / "windows.png")
    assert (folder / "windows.png").stat().st_size > 0


def lab(folder: Path) -> None:
    """A network trained on images of a folder, which then names the class of a file."""
    from PIL import Image

    for shade, name in ((40, "dark"), (210, "light")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(30):
            Image.new("RGB", (32, 32), (shade + number,) * 3).save(folder / "images" / name / f"{number}.png")
    command("train", "--data", str(folder / "images"), "--epochs", "1", "--width", "4", "--out", str(folder / "run"))
    said = command("predict", str(folder / "run"), str(folder / "images/dark/0.png"))
    assert "dark" in said, said


def paper(folder: Path) -> None:
    """Sounds of a folder; a network of torchvision's family."""
    for pitch in (300, 1200):
        (folder / "sounds" / f"{pitch}").mkdir(parents=True)
        for number in range(30):
            samples = [int(9000 * math.sin(2 * math.pi * (pitch + 5 * number) * t / 16000)) for t in range(8000)]
            with wave.open(str(folder / "sounds" / f"{pitch}" / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    command("train", "--data", str(folder / "sounds"), "--epochs", "1", "--width", "4", "--out", str(folder / "heard"))
    assert "table-a5" in command("paper", "list")


def cluster(folder: Path) -> None:
    """One run of a grid as a task of Ray."""
    small = ("--width", "4", "--epochs", "1", "--train-size", "64", "--test-size", "32", "--seeds", "1")
    which = ("--data", "scenes", "--only", "strided-2x2x2", "--executor", "ray", "--out", str(folder / "grid"))
    command("paper", "table3", *small, *which)
    assert list((folder / "grid").rglob("record.json"))


def export(folder: Path) -> None:
    """ONNX Runtime computes what PyTorch computes."""
    import numpy as np
    import onnxruntime

    program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    program.save(folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(found, before.detach().numpy(), atol=1e-4)


def zoo(folder: Path) -> None:
    """A network of timm."""
    import timm

    network = timm.create_model("resnet10t", num_classes=10)
    learned = anystride.convert_(network, torch.randn(1, 3, 64, 64))
    assert learned.replaced
    anystride.save(network, learned, folder / "network.pt")


assert anystride.__version__ in command("--version")
for name in sys.argv[1:]:
    with tempfile.TemporaryDirectory() as made:
        {"plot": plot, "lab": lab, "paper": paper, "cluster": cluster, "export": export, "zoo": zoo}[name](Path(made))
    print("extra", name, "works")
print("anystride", anystride.__version__, "works with torch", torch.__version__, "and Python", sys.version.split()[0])
