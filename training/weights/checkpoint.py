"""`checkpoint.pt`: everything a run needs to resume to the bit. Under that name it is always whole.

Holds weights, every task's optimizer, the position of the pipeline and the step. Read with `weights_only=True`: a
checkpoint can hold tensors and plain values, and cannot run code.
"""

import errno
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator

from pipelines.base.atomic import atomic_file
from pipelines.base.config import Config
from pipelines.base.errors import DataError, FourfoldError

__all__ = [
    "CHECKPOINT_NAME",
    "MODEL_NAME",
    "Checkpoint",
    "CheckpointClock",
    "CheckpointConfig",
    "disk_errors_told",
    "keep_model_only",
    "keep_previous",
    "load_checkpoint",
    "load_model_weights",
    "save_checkpoint",
]

CHECKPOINT_NAME = "checkpoint.pt"
MODEL_NAME = "model.pt"
NAMED_CHECKPOINTS = "checkpoint-*.pt"
FORMAT_VERSION = 3
"""2: optimizers have two groups of parameters. States of 1 would be given to other parameters. 3: `optimizers` is the
state of the updater, with counts of updates that 2 lacks."""


class CheckpointConfig(Config):
    """When to save, beside the end of the run and Ctrl-C. A kill loses at most the steps since the last checkpoint."""

    every_s: float = Field(default=300.0, gt=0.0)
    """Larger loses more work to a kill; smaller spends more time writing."""
    every_steps: int | None = Field(default=None, ge=1)
    """Save at multiples of this number of steps instead of by the clock."""
    keep_at: list[float] = Field(default_factory=list)
    """Fractions of the run's steps, such as [0.1, 0.3, 1.0], after which the trunk is kept under `kept/`, for learning
    curves. Each costs the bytes of a trunk."""
    keep_last: int = Field(default=1, ge=1)
    """Checkpoints to keep, by the step in their names; more than 1 costs as many times the bytes."""

    @field_validator("keep_at")
    @classmethod
    def _is_growing(cls, value: list[float]) -> list[float]:
        if any(not 0.0 < one <= 1.0 for one in value) or value != sorted(set(value)):
            raise ValueError("need fractions above 0 and up to 1, from the smallest to the largest, each once")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """State after `step` steps. `samples_seen` per task; `seconds` and `cpu_seconds` of training so far, over all
    resumes; `optimizers`: the updater's state; `world_size`: ranks that trained, 0 in files that do not tell."""

    step: int
    seconds: float
    samples_seen: dict[str, int]
    position: dict[str, int]
    model: dict[str, Any]
    optimizers: dict[str, dict[str, Any]]
    cpu_seconds: float = 0.0
    world_size: int = 0
    format_version: int = FORMAT_VERSION


class CheckpointClock:
    """Clock that says when the next checkpoint is due."""

    def __init__(self, config: CheckpointConfig) -> None:
        self._config = config
        self._saved_s = time.monotonic()

    def is_step_due(self, step: int) -> bool:
        """Whether to save after this step because of its number: the same on all ranks."""
        return self._config.every_steps is not None and step % self._config.every_steps == 0

    @property
    def is_time_due(self) -> bool:
        """Whether to save because of the time by this rank's clock; never where steps are counted."""
        return self._config.every_steps is None and time.monotonic() - self._saved_s >= self._config.every_s

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


def keep_previous(run_dir: Path, step: int, keep_last: int) -> None:
    """Give the checkpoint just saved a name with its step, and delete all such names but the `keep_last` newest.

    Files that training no longer has a name for are gone; with keep_last 1 there is `checkpoint.pt` alone.
    """
    path = run_dir / CHECKPOINT_NAME
    if keep_last > 1:
        named = run_dir / f"{path.stem}-{step:08d}.pt"
        named.unlink(missing_ok=True)  # of a run that was moved back to an older checkpoint
        # A second name for the same bytes: no time, no space, and never half a file.
        os.link(path, named)
    older = sorted(run_dir.glob(NAMED_CHECKPOINTS))
    for old in older[: len(older) - (keep_last if keep_last > 1 else 0)]:
        old.unlink()


@contextmanager
def disk_errors_told(run_dir: Path, what: str) -> Iterator[None]:
    """Raise FourfoldError, one message with advice, for an error of the disk inside the block. what: as "the log"."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch's zip writer turns an error of the disk into one of its own, with the first as its context.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise FourfoldError(
            f"{run_dir}: cannot write {what} ({cause.strerror or cause}). {_advice_for(cause)}, then run the same "
            "command again: it resumes from the last checkpoint."
        ) from error


def _advice_for(error: OSError) -> str:
    """Return what to do about a file that could not be written, without a full stop."""
    return "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "Look at the disk"


def keep_model_only(run_dir: Path) -> None:
    """Put `model.pt`, the weights of trunk and heads, in place of all checkpoints: what only a resuming run reads goes.

    A run without heads, of random weights, has nothing beside its `trunk.pt` and gets no such file.
    """
    checkpoint = load_checkpoint(run_dir)
    if checkpoint is not None and any(name.startswith("heads.") for name in checkpoint.model):
        with atomic_file(run_dir / MODEL_NAME) as file:
            torch.save(checkpoint.model, file)
    for path in (run_dir / CHECKPOINT_NAME, *run_dir.glob(NAMED_CHECKPOINTS)):
        path.unlink(missing_ok=True)


def load_model_weights(run_dir: Path) -> dict[str, Any] | None:
    """Return the weights of trunk and heads of a run, on the CPU; None if it kept none. Raises DataError."""
    checkpoint = load_checkpoint(run_dir)
    if checkpoint is not None:
        return checkpoint.model
    path = run_dir / MODEL_NAME
    if not path.is_file():
        return None
    try:
        weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged or of another version ({reason}). Pretrain again.") from error
    return weights


def load_checkpoint(run_dir: Path) -> Checkpoint | None:
    """Return the checkpoint of a run, on the CPU; None if there is none. Raises DataError if it cannot be read."""
    path = run_dir / CHECKPOINT_NAME
    for leftover in run_dir.glob(f".{CHECKPOINT_NAME}.*.tmp"):
        leftover.unlink(missing_ok=True)  # of a process that was killed while writing; all ranks delete it
    if not path.is_file():
        return None
    try:
        # weights_only: a checkpoint from elsewhere could otherwise run code when it is read.
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, TypeError, EOFError) as error:
        # An empty file gives an error without a word, half a file one with a paragraph.
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot read it ({reason}). {_way_out(run_dir)}") from error
    if checkpoint.format_version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version {checkpoint.format_version}; this fourfold reads {FORMAT_VERSION}. "
            f"Delete {run_dir} to start again."
        )
    return checkpoint


def _way_out(run_dir: Path) -> str:
    """Return what to do about a damaged checkpoint: the one before may be there under its own name."""
    named = sorted(run_dir.glob(NAMED_CHECKPOINTS))
    older = f"Copy {named[-2]} over it to resume from there, or delete" if len(named) > 1 else "Delete"
    return f"{older} {run_dir} to start again."
