"""Rows of benchmarks/field.py: torchvision, ultralytics, kornia, facenet-pytorch, open_clip, efficientnet-pytorch."""

from typing import Any

import torch

from examine import Network
from field_entries import LARGE, SQUARE, Example, lively, made, noise, several, table

VISION, KORNIA, FACES = "torchvision.models", "kornia.feature", "facenet_pytorch"
RETINA, ROI = ("head",), ("rpn.head", "backbone")
FEW = {
    "rpn_post_nms_top_n_train": 16,
    "rpn_post_nms_top_n_test": 16,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 4,
}
SSD = {"weights": None, "weights_backbone": None, "num_classes": 2}


def scenes(extra: str = "") -> Example:
    """Images with targets, as detectors of torchvision take them."""

    def example(scale: int) -> tuple[Any, Any]:
        height, width = ((128, 128), (160, 128))[scale]
        target: dict[str, Any] = {"boxes": torch.tensor([[16.0, 16, 80, 96]]), "labels": torch.tensor([1])}
        if extra == "masks":
            target["masks"] = torch.zeros(1, height, width, dtype=torch.uint8)
            target["masks"][:, 16:96, 16:80] = 1
        if extra == "keypoints":
            target["keypoints"] = torch.tensor([[[40.0, 40, 1]] * 17])
        return [torch.rand(3, height, width) for _ in range(2)], [target, dict(target)]

    return example


def detector(name: str, extra: str = "", watch: tuple[str, ...] = ROI, **kwargs: Any) -> Network:
    options = {"weights": None, "weights_backbone": None, "num_classes": 2, "min_size": 128, "max_size": 256} | kwargs
    options |= FEW if watch is ROI else {}
    return Network(f"torchvision:{name}", "torchvision detection", made(f"{VISION}.detection", name, **options),
                   scenes(extra), watch=watch)  # fmt: skip


def segmenter(name: str) -> Network:
    build = made(f"{VISION}.segmentation", name, weights=None, weights_backbone=None, num_classes=4)
    return Network(f"torchvision:{name}", "torchvision segmentation", build, noise(LARGE))


def video(name: str, frames: int = 8, side: int = 64) -> Network:
    sizes = ((3, frames, side, side), (3, frames + 4, side, side))
    build = made(f"{VISION}.video", name, weights=None, num_classes=5)
    return Network(f"torchvision:{name}", "torchvision video", build, noise(sizes))


def quantisable(name: str, **kwargs: Any) -> Network:
    build = made(f"{VISION}.quantization", name, weights=None, quantize=False, num_classes=5, **kwargs)
    return Network(f"torchvision:quantization.{name}", "torchvision quantisation", build, noise(LARGE))


def yolo(name: str, kind: str = "DetectionModel") -> Network:
    build = made("ultralytics.nn.tasks", kind, f"{name}.yaml", verbose=False)
    return Network(f"ultralytics:{name}", "ultralytics", build, noise(LARGE))


def kornia(name: str, sizes: Any, module: str = KORNIA, **kwargs: Any) -> Network:
    return Network(f"kornia:{name}", "kornia", made(module, name, **kwargs), noise(sizes))


def patches(name: str) -> Network:
    sizes = {"PNet": ((3, 48, 48), (3, 64, 48)), "RNet": ((3, 24, 24), (3, 32, 24)), "ONet": ((3, 48, 48), (3, 64, 48))}
    return Network(f"facenet:{name}", "facenet-pytorch", made(f"{FACES}.models.mtcnn", name, pretrained=False),
                   noise(sizes[name]))  # fmt: skip


TOWER = {"layers": (1, 1, 1, 1), "output_dim": 16, "heads": 4, "image_size": 128, "width": 16}
VISION_ROWS = table(
    detector("fasterrcnn_mobilenet_v3_large_fpn"),
    detector("fasterrcnn_resnet50_fpn"),
    detector("maskrcnn_resnet50_fpn", "masks"),
    detector("keypointrcnn_resnet50_fpn", "keypoints"),
    detector("retinanet_resnet50_fpn", watch=RETINA),
    detector("fcos_resnet50_fpn", watch=RETINA),
    Network("torchvision:ssdlite320", "torchvision detection",
            made(f"{VISION}.detection", "ssdlite320_mobilenet_v3_large", **SSD), scenes(), watch=RETINA),
    segmenter("fcn_resnet50"),
    segmenter("deeplabv3_mobilenet_v3_large"),
    segmenter("lraspp_mobilenet_v3_large"),
    video("r3d_18"),
    video("mc3_18"),
    video("r2plus1d_18"),
    Network("torchvision:raft_small", "torchvision optical flow",
            made(f"{VISION}.optical_flow", "raft_small", weights=None),
            several(noise(LARGE), noise(LARGE), 2)),
    quantisable("resnet18"),
    quantisable("mobilenet_v2"),
    quantisable("googlenet", init_weights=False, aux_logits=False),
    quantisable("shufflenet_v2_x0_5"),
    yolo("yolov8n"),
    yolo("yolo11n"),
    yolo("yolov5n"),
    yolo("yolov8n-seg", "SegmentationModel"),
    yolo("yolov8n-cls", "ClassificationModel"),
    yolo("yolov8n-pose", "PoseModel"),
    kornia("HardNet", ((1, 32, 32), (1, 48, 32)), pretrained=False),
    kornia("SOSNet", ((1, 32, 32), (1, 48, 32)), pretrained=False),
    kornia("HyNet", ((1, 32, 32), (1, 48, 32)), pretrained=False),
    kornia("Unet", LARGE, "kornia.feature.disk._unets", in_features=3, down=[16, 16, 16], up=[16, 17]),
    kornia("DexiNed", SQUARE, "kornia.models.dexined", pretrained=False),
    kornia("KeyNet", ((1, 64, 64), (1, 96, 64)), pretrained=False),
    kornia("TFeat", ((1, 32, 32), (1, 48, 32)), pretrained=False),
    Network("facenet:InceptionResnetV1", "facenet-pytorch", made(FACES, "InceptionResnetV1", num_classes=4),
            noise(((3, 160, 160), (3, 192, 160)))),
    patches("PNet"),
    patches("RNet"),
    patches("ONet"),
    Network("open_clip:ModifiedResNet", "open_clip", made("open_clip.modified_resnet", "ModifiedResNet", **TOWER),
            noise(LARGE)),
    Network("efficientnet:b0", "efficientnet-pytorch",
            lively(made("efficientnet_pytorch", "EfficientNet.from_name", "efficientnet-b0", num_classes=4)),
            noise(LARGE)),
)  # fmt: skip
