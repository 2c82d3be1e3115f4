"""A callback for Lightning."""

from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from anystride import stride_scalars


class StrideMonitor(Callback):
    """Logs the strides of the module that is trained, as `LearningRateMonitor` logs learning rates.

    They go to every logger of the trainer, and into `trainer.callback_metrics`, under the names of
    `anystride.stride_scalars`.

    Args:
        logging_interval: "epoch", at the end of each, or "step", whenever the trainer logs steps.
        prefix: before each name.

    Raises:
        ValueError: `logging_interval` is none of the two.

    Example:
        >>> trainer = Trainer(callbacks=[StrideMonitor()], logger=False, enable_checkpointing=False)
    """

    def __init__(self, logging_interval: Literal["epoch", "step"] = "epoch", prefix: str = "stride/") -> None:
        if logging_interval not in ("epoch", "step"):
            raise ValueError(f"logging_interval must be 'epoch' or 'step', got {logging_interval!r}")
        self.logging_interval, self.prefix = logging_interval, prefix

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any, **more: Any) -> None:
        if self.logging_interval == "step":
            self._log(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.logging_interval == "epoch":
            self._log(pl_module)

    def _log(self, module: LightningModule) -> None:
        scalars = {self.prefix + name: value for name, value in stride_scalars(module).items()}
        module.log_dict(scalars, on_step=self.logging_interval == "step", on_epoch=self.logging_interval == "epoch")
