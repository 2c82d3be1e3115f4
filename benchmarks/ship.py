"""python benchmarks/ship.py [--out results/ship.json]      about ten minutes on two CPU cores

What a converted network is worth outside of PyTorch: convert with random strides, freeze, `torch.compile(fullgraph)`,
`torch.export`, ONNX in ONNX Runtime with another batch size, and static int8 quantisation, whose error stands beside
that of the unconverted network. Weights are random, so an int8 error compares the two networks and says nothing else.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timm
import torch
import torchvision
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static
from torch import Tensor, nn

from anystride import convert_, freeze_, macs
from anystride.lab.record import provenance, write
from anystride.layers import DiffStrideNd

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18": (lambda: timm.create_model("resnet18"), (3, 128, 128)),
    "ResNet-50": (lambda: timm.create_model("resnet50"), (3, 128, 128)),
    "DenseNet-121": (lambda: timm.create_model("densenet121"), (3, 128, 128)),
    "EfficientNet-B0": (lambda: timm.create_model("efficientnet_b0"), (3, 128, 128)),
    "MobileNetV3": (lambda: timm.create_model("mobilenetv3_small_100"), (3, 128, 128)),
    "ConvNeXt-tiny": (lambda: timm.create_model("convnext_tiny"), (3, 128, 128)),
    "R3D-18 (3-D)": (lambda: torchvision.models.video.r3d_18(weights=None), (3, 8, 64, 64)),
}


class Calibration(CalibrationDataReader):
    """A few batches of noise."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self.batches = iter([{"x": batch} for batch in batches])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def error(got: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    return ((got - expected).abs().max() / expected.abs().max()).item()


def run(path: Path, x: Tensor) -> Tensor:
    """ONNX Runtime's output."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def to_onnx(model: nn.Module, x: Tensor, path: Path) -> None:
    """Export with an open batch size."""
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    torch.onnx.export(
        model, (x,), path, dynamo=True, external_data=False, dynamic_shapes=shapes, input_names=["x"], verbose=False
    )


def int8(path: Path, x: Tensor, expected: Tensor) -> float:
    """Error of the statically quantised graph, calibrated on the input that is compared."""
    prepared, quantised = path.with_suffix(".prepared.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        quantised,
        Calibration([batch.numpy() for batch in x.split(1)]),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return error(run(quantised, x), expected)


def ship(make: Callable[[], nn.Module], size: tuple[int, ...]) -> dict[str, Any]:
    """One network's record."""
    torch.manual_seed(0)
    model, x = make(), torch.randn(4, *size)
    model.train()
    with torch.no_grad():
        model(x), model(x)  # batch norms get statistics that random weights can be run with
    model.eval()
    record: dict[str, Any] = {"input": list(size)}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "plain.onnx"
        to_onnx(model, x[:2], path)
        record["int8_error_plain"] = int8(path, x, model(x))
        started = time.perf_counter()
        convert_(model, x)
        record["convert_seconds"] = time.perf_counter() - started
        for module in model.modules():
            if isinstance(module, DiffStrideNd):
                module.stride.mul_(0.9 + 0.3 * torch.rand(module.stride.shape))
        learned, record["macs_learned"] = model(x), macs(model, x[:1]).item()
        freeze_(model, x)
        frozen, record["macs_frozen"] = model(x), macs(model, x[:1]).item()
        record["freeze_error"] = error(frozen, learned)
        record["compile_error"] = error(torch.compile(model, fullgraph=True, backend="aot_eager")(x), learned)
        shapes = ({0: torch.export.Dim("batch", min=1)},)
        record["export_error"] = error(torch.export.export(model, (x[:2],), dynamic_shapes=shapes).module()(x), learned)
        path = Path(folder) / "frozen.onnx"
        to_onnx(model, x[:2], path)
        kinds = {node.op_type for node in onnx.load(path).graph.node}
        record["transforms_in_graph"] = sorted(kinds & {"DFT", "STFT"})
        record["onnx_error"] = error(run(path, x), learned)
        record["int8_error_converted"] = int8(path, x, learned)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/ship.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {}
    for name, (make, size) in NETWORKS.items():
        rows[name] = ship(make, size)
        print(name, json.dumps(rows[name]), flush=True)
    write({"command": "python benchmarks/ship.py", **provenance(), "rows": rows}, options.out)


if __name__ == "__main__":
    main()
