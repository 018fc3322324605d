"""What a GPU does otherwise than a CPU, on CPU tensors: products in TF32, and copies of constants from the host.

    with DeviceLike() as device:
        result = call()
    device.num_host_copies

With TF32 on, as torch has it for convolutions and `speed.tf32` for all products, a GPU keeps 10 bits of the fraction of
each float32 factor.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

__all__ = ["DeviceLike", "as_tf32"]

PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    {torch.einsum, torch.conv2d, torch.conv3d, torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__}
)
CONSTANTS: frozenset[Callable[..., Any]] = frozenset({torch.tensor, torch.as_tensor, torch.Tensor.new_tensor})
DROPPED_BITS = 13
"""Of the 23 bits of float32's fraction."""


def as_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor rounded to TF32, halves to even; those that are not float32 as they are."""
    if tensor.dtype != torch.float32:
        return tensor
    bits = tensor.contiguous().view(torch.int32)
    half = (1 << (DROPPED_BITS - 1)) - 1 + ((bits >> DROPPED_BITS) & 1)
    return ((bits + half) & -(1 << DROPPED_BITS)).view(torch.float32)


class DeviceLike(TorchFunctionMode):
    """Rounds the factors of products and counts constants made of Python's numbers, which a GPU needs a copy of.

    The host waits for such a copy, since its memory is not page-locked. num_host_copies: constants so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_host_copies = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_host_copies += func in CONSTANTS
        if func in PRODUCTS:
            args = tree_map(lambda one: as_tf32(one) if isinstance(one, torch.Tensor) else one, args)
        return func(*args, **(kwargs or {}))
