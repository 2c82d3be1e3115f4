"""Strides in the training loops of other libraries."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F

import anystride
from anystride import DiffStride2d, param_groups, stride_scalars
from anystride.integrations.lightning import StrideMonitor

IMAGES, CLASSES = torch.randn(16, 3, 16, 16), torch.arange(16) % 2


def network():
    torch.manual_seed(0)
    pool = DiffStride2d(2.0, ramp="inner")
    return nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def training_step(self, batch):
        images, classes = batch
        return F.cross_entropy(self.net(images), classes)

    def configure_optimizers(self):
        return torch.optim.SGD(param_groups(self, lr=0.5, weight_decay=0.1))


def loader():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, CLASSES), batch_size=4)


@pytest.mark.parametrize(("interval", "rows"), [("epoch", 2), ("step", 8)])
@pytest.mark.filterwarnings("ignore")
def test_lightning_logs_strides(tmp_path, interval, rows):
    logger = CSVLogger(tmp_path)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=logger,
        callbacks=[StrideMonitor(interval)],
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Classifier()
    trainer.fit(module, loader())
    names = {f"stride/{name}" for name in stride_scalars(module)}
    assert names == {"stride/net.1/height", "stride/net.1/width"} <= {*trainer.callback_metrics}
    head, *lines = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    column = head.split(",").index("stride/net.1/height")
    values = [float(line.split(",")[column]) for line in lines if line.split(",")[column]]
    assert len(values) == rows
    assert values[-1] == pytest.approx(module.net[1].effective_stride()[0].item())
    assert values[-1] != 2.0


def test_an_interval_that_is_none_says_so():
    with pytest.raises(ValueError, match="logging_interval must be 'epoch' or 'step', got 'batch'"):
        StrideMonitor("batch")


@pytest.mark.filterwarnings("ignore")
def test_transformers_logs_strides(tmp_path):
    transformers = pytest.importorskip("transformers")
    from anystride.integrations.transformers import StrideMonitor

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, pixel_values, labels):
            return {"loss": F.cross_entropy(self.net(pixel_values), labels)}

    examples = [{"pixel_values": image, "labels": label} for image, label in zip(IMAGES, CLASSES, strict=True)]
    arguments = transformers.TrainingArguments(
        tmp_path, num_train_epochs=2, per_device_train_batch_size=4, logging_steps=2, report_to="none", use_cpu=True,
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    model = Model()
    optimiser = torch.optim.SGD(anystride.param_groups(model, lr=0.5))
    trainer = transformers.Trainer(model, arguments, train_dataset=examples, optimizers=(optimiser, None))
    trainer.add_callback(StrideMonitor(trainer))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "stride/net.1/height" in entry]
    assert [entry["step"] for entry in logged] == [2, 4, 6, 8]
    assert logged[-1]["stride/net.1/height"] == pytest.approx(model.net[1].effective_stride()[0].item())
    assert logged[-1]["stride/net.1/height"] != 2.0
