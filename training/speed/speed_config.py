"""Configuration of speed, the `speed:` part of a run."""

from typing import Literal

from pydantic import model_validator

from pipelines.base.config import Config

__all__ = ["SpeedConfig"]


class SpeedConfig(Config):
    """Same gradients up to rounding. Defaults are what pays on CPUs as measured (docs/training.md)."""

    compile: Literal["off", "auto"] = "off"
    """auto: on a GPU, trunk and head of each task as one graph of fused kernels. Compiling takes some minutes at the
    start of a run; the next run with the same shapes finds the kernels in a folder. On a CPU auto compiles nothing:
    compiled steps took 0.95 to 1.12 times as long there."""
    recompute: bool = False
    """Keep only what goes into each residual unit of the trunk, and compute the rest again in the backward pass. A step
    takes 1.4 to 1.6 times as long on a CPU, for a fraction of the memory; gradients are the same to the bit."""
    tf32: bool = True
    """On a GPU, multiply what is not bf16 with 10 digits of the mantissa instead of 23. No effect on a CPU."""
    cudnn_benchmark: bool = True
    """On a GPU, try all algorithms of a convolution at its first shape and keep the fastest; the choice, and with it
    the last digits, may differ between two starts. No effect on a CPU."""

    @model_validator(mode="after")
    def _is_tried(self) -> "SpeedConfig":
        if self.compile != "off" and self.recompute:
            raise ValueError("compile and recompute together are not supported: set one of them to off")
        return self
