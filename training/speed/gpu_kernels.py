"""Settings of torch's GPU kernels for the time of a run: TF32 and the choice of cuDNN's algorithms."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.speed.speed_config import SpeedConfig

__all__ = ["gpu_kernels"]


@contextmanager
def gpu_kernels(config: SpeedConfig, device: torch.device) -> Iterator[None]:
    """Set what `config` says inside the block, and put it back. Nothing to do on a CPU."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = config.tf32
    cudnn.benchmark = config.cudnn_benchmark
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
