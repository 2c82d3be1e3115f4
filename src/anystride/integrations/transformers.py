"""A callback for the `Trainer` of transformers."""

from typing import Any

from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from anystride import stride_scalars


class StrideMonitor(TrainerCallback):
    """Logs the strides of the model that is trained, whenever the trainer logs.

    They go where its other numbers go (`report_to`, `trainer.state.log_history`), under the names of
    `anystride.stride_scalars`.

    Args:
        trainer: the trainer to which it is added, whose `log` it calls.
        prefix: before each name.

    Example:
        `trainer.add_callback(StrideMonitor(trainer))`. So that strides do not decay, give the trainer an optimiser:
        `Trainer(..., optimizers=(torch.optim.AdamW(anystride.param_groups(model, lr=1e-3, weight_decay=0.05)), None))`.
    """

    def __init__(self, trainer: Trainer, prefix: str = "stride/") -> None:
        self.trainer, self.prefix = trainer, prefix

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        if control.should_log:
            self._log()

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        if control.should_log:
            self._log()

    def _log(self) -> None:
        model = self.trainer.model
        scalars = stride_scalars(model) if isinstance(model, nn.Module) else {}
        if scalars:
            self.trainer.log({self.prefix + name: value for name, value in scalars.items()})
