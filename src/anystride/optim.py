"""What a training loop calls: parameter groups, the strides by name, and when held sizes may change."""

from typing import Any

from torch import Tensor, nn

from anystride.execution import Execution, run_once
from anystride.geometry import axis_names
from anystride.layers import DiffStrideNd
from anystride.resample import CHILD, Leads, Shares


def learned_strides(model: nn.Module) -> dict[str, Tensor]:
    """The strides that a model has learned so far, by parameter name; a shared one appears once.

    Values are those in use (`DiffStrideNd.effective_stride`), detached. Under `fully_shard` all processes must call it,
    and under FullyShardedDataParallel within its `summon_full_params`.

    Example:
        >>> from anystride import DiffStride2d
        >>> learned_strides(nn.Sequential(nn.Conv2d(3, 8, 3), DiffStride2d(stride=(2.0, 3.0))))
        {'1.stride': tensor([2., 3.])}
    """
    strides, seen = {}, set()
    for name, module in model.named_modules():
        if isinstance(module, DiffStrideNd) and id(module.stride) not in seen:
            seen.add(id(module.stride))
            name = name.replace("_fsdp_wrapped_module.", "").removesuffix("_fsdp_wrapped_module")
            strides[f"{name}.stride" if name else "stride"] = module.effective_stride().detach()
    return strides


def stride_scalars(model: nn.Module) -> dict[str, float]:
    """The strides that a model has learned so far as plain numbers, for any logger.

    Returns:
        One number per name: the layer's, a slash, and "height", "width", "depth", "length" or "shared", as in
        `{"layer2.0.conv1/height": 2.01}`. Values are those in use; a stride that several layers share appears once, at
        the layer that leads. A model that is compiled or wrapped for several devices has the names that it had.

    Example:
        >>> from anystride import DiffStride2d
        >>> stride_scalars(nn.Sequential(nn.Conv2d(3, 8, 3), DiffStride2d(stride=(2.0, 3.0))))
        {'1/height': 2.0, '1/width': 3.0}
    """
    scalars: dict[str, float] = {}
    for name, (layer, axes) in learned_layers(model).items():
        values = layer.effective_stride().detach().tolist()
        names = axes if len(values) == len(axes) else ("shared",)
        scalars |= {f"{name}/{axis}" if name else axis: value for axis, value in zip(names, values, strict=True)}
    return scalars


def learned_layers(model: nn.Module) -> dict[str, tuple[DiffStrideNd, tuple[str, ...]]]:
    """The layers that learn a stride, each once: by the name that a user knows, with the names of their axes."""
    while (below := _below(model)) is not None:
        model = below
    found: dict[nn.Module, tuple[str, tuple[str, ...]]] = {}
    for name, module in model.named_modules():
        name = name.replace("_fsdp_wrapped_module.", "").removesuffix("_fsdp_wrapped_module")
        if isinstance(module, Leads) and not isinstance(module, Shares):
            words = axis_names(len(module.geometry.stride))
            host = name.removesuffix(CHILD).removesuffix(".")
            found.setdefault(module.pool, (host, tuple([words[axis] for axis in module.pooled])))
    for name, module in model.named_modules():
        if isinstance(module, DiffStrideNd):
            found.setdefault(module, (name, axis_names(module.spatial_dims)))
    return {name: (layer, axes) for layer, (name, axes) in found.items() if isinstance(layer, DiffStrideNd)}


def _below(model: nn.Module) -> nn.Module | None:
    """The model that a wrapper of torch runs; None for any other module."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        below: nn.Module = model.module
        return below
    return model._modules.get("_orig_mod")  # torch.compile's; importing its class takes a second


def param_groups(
    model: nn.Module, lr: float, weight_decay: float = 0.0, stride_lr: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups for any `torch.optim` optimiser: strides never decay and may have their own learning rate.

    Args:
        model: the network; parameters that require no gradient are left out.
        lr: learning rate.
        weight_decay: decay of all parameters but strides.
        stride_lr: learning rate of the strides; `lr` if None.

    Returns:
        One group, or two if the model learns strides.

    Raises:
        ValueError: FullyShardedDataParallel has made one parameter of strides and weights.

    Example:
        >>> import torch
        >>> from anystride import DiffStride2d
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), DiffStride2d())
        >>> optimiser = torch.optim.SGD(param_groups(model, lr=0.1, weight_decay=5e-3), momentum=0.9)
        >>> [group["weight_decay"] for group in optimiser.param_groups]
        [0.005, 0.0]
    """
    strides = {id(module.stride) for module in model.modules() if isinstance(module, DiffStrideNd)}
    for module in model.modules():
        if isinstance(module, DiffStrideNd) and not {"stride", "parametrizations"} & {
            *module._parameters,
            *module._modules,
        }:
            raise ValueError(
                "model must keep its strides apart from its weights: wrap it with "
                "FullyShardedDataParallel(model, use_orig_params=True), or with fully_shard"
            )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trained if id(parameter) not in strides]
    learned = [parameter for parameter in trained if id(parameter) in strides]
    groups = [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": learned, "lr": lr if stride_lr is None else stride_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def regrid_(model: nn.Module, example_input: Any = None) -> nn.Module:
    """Let the maps of layers with `grid="fixed"` take the sizes of their present strides, in place.

    Between two calls these layers move their windows on grids that stand still, so a compiled network stays as it is
    and runs as a CUDA graph or on a TPU. Call it once before compiling, then for example at the start of each epoch: a
    network whose sizes changed is compiled anew at its next step. Layers with other grids are left alone.

    Args:
        model: the network, not its compiled wrapper.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; only shapes matter. The new sizes
            are noted for it at once, which `torch.compile` needs. Without it, the next call notes them.

    Returns:
        `model`.

    Example:
        >>> import torch
        >>> from anystride import DiffStride2d
        >>> model, x = nn.Sequential(DiffStride2d(2.0, ramp="inner", grid="fixed")), torch.randn(1, 3, 32, 32)
        >>> _ = regrid_(model, x), model[0].stride.data.fill_(2.5)
        >>> model(x).shape, regrid_(model, x)(x).shape
        (torch.Size([1, 3, 16, 16]), torch.Size([1, 3, 13, 13]))
    """
    for module in model.modules():
        if isinstance(module, DiffStrideNd):
            module.regrid()
    if example_input is not None:
        noted = run_once(_HeldSizes, model, example_input, training=model.training)
        for layer, sizes in noted.sizes.items():
            layer._held.update(sizes)
    return model


class _HeldSizes(Execution):
    """A pass that remembers which sizes fixed grids held in it; the layers themselves forget."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[DiffStrideNd, dict[tuple[int, ...], tuple[int, ...]]] = {}

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, DiffStrideNd):
            self.sizes[module] = dict(module._held)
