"""A frozen layer takes the place of the converted one in the network, with its hooks and what was told of it."""

import copy
from typing import Any

from torch import nn

from anystride.filters import Bias, compose
from anystride.frozen import FrozenConv, FrozenLayer
from anystride.hosts import put_off
from anystride.resample import CHILD

_PADS: dict[str, tuple[type[nn.Module], ...]] = {
    "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    "replicate": (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    "circular": (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
}
# Everything that a module knows about its hooks: their handles point at these very dictionaries.
HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    *("_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
)


def exchange(root: nn.Module, layer: Any, frozen: FrozenLayer) -> None:
    """Put a frozen layer in the place of the converted one, which becomes what it was, and a part of it."""
    told = {name: getattr(layer, name) for name in vars(layer) if name not in vars(frozen) and not name.startswith("_")}
    put_off(layer)
    for name, value in told.items():  # a network may ask for what the layer told, and for what it was given
        setattr(frozen, name, value)
    if isinstance(frozen, FrozenConv):
        layer.stride = layer.resample.layer_stride
        if layer.padding_mode != "zeros":
            pad = _PADS[layer.padding_mode][layer.weight.dim() - 3](tuple(layer._reversed_padding_repeated_twice))
            frozen._modules = {"pad": pad, **frozen._modules}
            layer.padding, layer.padding_mode = (0,) * (layer.weight.dim() - 2), "zeros"
        if frozen.how is not None:
            layer.stride, layer.padding, layer.dilation = frozen.how.stride, frozen.how.padding, frozen.how.dilation
        if frozen.composed is not None:
            weight = layer.weight
            wide = compose(weight, frozen.composed, told["dilation"])
            layer.weight = nn.Parameter(wide, weight.requires_grad)
            layer.kernel_size, frozen.composed = tuple(wide.shape[2:]), None
        if frozen.bias_comes_late and layer.bias is not None:
            frozen.add_module("late", Bias(layer.bias, layer.weight.dim() - 2))
            layer.bias = None
    delattr(layer, CHILD)
    for name in HOOKS:  # the user's hooks saw the map before and after both
        setattr(frozen, name, getattr(layer, name))
        setattr(layer, name, copy.copy(getattr(nn.Identity(), name)))
    for key, hook in list(frozen._forward_pre_hooks.items()):
        if type(hook).__module__.startswith("torch.nn.utils"):  # these make the weight
            layer._forward_pre_hooks[key] = frozen._forward_pre_hooks.pop(key)
    for parent in list(root.modules()):
        for name, child in list(parent._modules.items()):
            if child is layer:
                parent._modules[name] = frozen
    if frozen.inner in frozen._modules:
        frozen._modules[frozen.inner] = layer
