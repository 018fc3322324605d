"""`checkpoint.pt`: everything a run needs to resume to the bit. Under that name it is always whole.

Holds weights, every task's optimizer, the position of the pipeline and the step. Read with `weights_only=True`: a
checkpoint can hold tensors and plain values, and cannot run code.
"""

import pickle
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from pipelines.base.atomic import atomic_file
from pipelines.base.config import Config
from pipelines.base.errors import DataError

__all__ = ["CHECKPOINT_NAME", "Checkpoint", "CheckpointClock", "CheckpointConfig", "load_checkpoint", "save_checkpoint"]

CHECKPOINT_NAME = "checkpoint.pt"
FORMAT_VERSION = 3
"""2: optimizers have two groups of parameters. States of 1 would be given to other parameters. 3: `optimizers` is the
state of the updater, with counts of updates that 2 lacks."""


class CheckpointConfig(Config):
    """When to save, beside the end of the run and Ctrl-C. A kill loses at most the steps since the last checkpoint."""

    every_s: float = Field(default=300.0, gt=0.0)
    """Larger loses more work to a kill; smaller spends more time writing."""
    every_steps: int | None = Field(default=None, ge=1)
    """Save at multiples of this number of steps instead of by the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """State after `step` steps. `samples_seen` per task; `seconds` and `cpu_seconds` of training so far, over all
    resumes; `optimizers`: the updater's state."""

    step: int
    seconds: float
    samples_seen: dict[str, int]
    position: dict[str, int]
    model: dict[str, Any]
    optimizers: dict[str, dict[str, Any]]
    cpu_seconds: float = 0.0
    format_version: int = FORMAT_VERSION


class CheckpointClock:
    """Clock that says when the next checkpoint is due."""

    def __init__(self, config: CheckpointConfig) -> None:
        self._config = config
        self._saved_s = time.monotonic()

    def is_due(self, step: int) -> bool:
        if self._config.every_steps is not None:
            return step % self._config.every_steps == 0
        return time.monotonic() - self._saved_s >= self._config.every_s

    def restart(self) -> None:
        self._saved_s = time.monotonic()


def save_checkpoint(checkpoint: Checkpoint, run_dir: Path) -> Path:
    """Write a checkpoint under a temporary name, then rename it; return its path."""
    path = run_dir / CHECKPOINT_NAME
    # Not `dataclasses.asdict`: it would copy every tensor.
    content = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    with atomic_file(path) as file:
        torch.save(content, file)
    return path


def load_checkpoint(run_dir: Path) -> Checkpoint | None:
    """Return the checkpoint of a run, on the CPU; None if there is none. Raises DataError if it cannot be read."""
    path = run_dir / CHECKPOINT_NAME
    for leftover in run_dir.glob(f".{CHECKPOINT_NAME}.*.tmp"):
        leftover.unlink()  # of a process that was killed while writing
    if not path.is_file():
        return None
    try:
        # weights_only: a checkpoint from elsewhere could otherwise run code when it is read.
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, TypeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot read it ({reason}). Delete {run_dir} to start again.") from error
    if checkpoint.format_version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version {checkpoint.format_version}; this fourfold reads {FORMAT_VERSION}. "
            f"Delete {run_dir} to start again."
        )
    return checkpoint
