"""The complexity of a network as a function of its strides (section 2.4.2)."""

import torch
from torch import Tensor, nn

from anystride.layers import DiffStrideNd


def complexity(model: nn.Module) -> Tensor:
    """J of Eq. 6: the sum over layers l of the product over i <= l of 1 / (S_h^i S_w^i), differentiable.

    Each term is the share of the input's positions that is left after layer l, and work in a convolutional network is
    proportional to it. Layers count in the order in which the model registers them, one that is used in several
    branches once. Strides are those in use, and all axes of a layer multiply.

    Args:
        model: a network with at least one DiffStride layer.

    Returns:
        A scalar, to be weighted and added to the loss.

    Raises:
        ValueError: the model learns no stride.

    Example:
        >>> from anystride import DiffStride2d
        >>> complexity(nn.Sequential(DiffStride2d(2.0), DiffStride2d(2.0))).item()
        0.3125
    """
    layers = [module for module in model.modules() if isinstance(module, DiffStrideNd)]
    if not layers:
        raise ValueError("model has no DiffStride layer, so its complexity does not depend on a stride")
    shares, seen = [], set()
    for layer in layers:
        if id(layer.stride) not in seen:
            seen.add(id(layer.stride))
            shares.append(layer.effective_stride().expand(layer.spatial_dims).prod().reciprocal())
    return torch.stack(shares).cumprod(dim=0).sum()
