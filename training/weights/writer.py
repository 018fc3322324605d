"""Checkpoints and kept trunks of a run, written by a thread while training continues.

The state is copied first, so that the steps after it change nothing in the file. One file is written at a time, in
order: a trunk that is kept at a step is on the disk before a checkpoint of a later step. Ranks other than the first
write nothing.
"""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from training.trunk import TRUNK_NAME, Trunk, save_trunk
from training.weights.checkpoint import Checkpoint, CheckpointConfig, disk_errors_told, keep_previous, save_checkpoint

__all__ = ["KEPT_NAME", "CheckpointWriter", "fractions_too_late", "kept_folder", "steps_to_keep"]

KEPT_NAME = "kept"
"""Folder of kept trunks in a run's folder."""


class CheckpointWriter:
    """Thread that writes the files of one run. Its error is raised by the next call, at the latest by `close`."""

    def __init__(self, config: CheckpointConfig, run_dir: Path) -> None:
        self._config, self._run_dir = config, run_dir
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint writer")
        self._pending: Future[None] | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Copy the state and have it written as the run's checkpoint. Raises FourfoldError of the file before it."""
        # Waiting for the file before bounds memory: there is one copy of the state at most.
        self._wait()
        self._submit(partial(self._write_checkpoint, _copied(checkpoint)))

    def keep(self, trunk: Trunk, fraction: float) -> None:
        """Copy the trunk and have it written to `kept_folder`. Raises FourfoldError of the file before it."""
        self._wait()
        self._submit(partial(self._write_trunk, copy.deepcopy(trunk), kept_folder(self._run_dir, fraction)))

    def check(self) -> None:
        """Raise FourfoldError if the last file could not be written. Does not wait."""
        if self._pending is not None and self._pending.done():
            self._wait()

    def close(self) -> None:
        """Wait for the last file. Raises FourfoldError if it could not be written."""
        try:
            self._wait()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            self.close()
        else:
            # The error that ends the run is the one to show.
            self._thread.shutdown()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _submit(self, write: Callable[[], None]) -> None:
        self._pending = self._thread.submit(write)

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        with disk_errors_told(self._run_dir, "a checkpoint"):
            save_checkpoint(checkpoint, self._run_dir)
            keep_previous(self._run_dir, checkpoint.step, self._config.keep_last)

    def _write_trunk(self, trunk: Trunk, folder: Path) -> None:
        with disk_errors_told(self._run_dir, "a trunk to keep"):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()  # of a process that was killed while writing
            save_trunk(trunk, folder)


def kept_folder(run_dir: Path, fraction: float) -> Path:
    """Return the folder of the trunk that is kept at a fraction of a run: `evaluate` takes it as it takes a run."""
    return run_dir / KEPT_NAME / f"{fraction:g}"


def steps_to_keep(fractions: list[float], num_steps: int) -> dict[int, list[float]]:
    """Return the fractions by the step after which the trunk is kept: the first that reaches them."""
    steps: dict[int, list[float]] = {}
    for fraction in fractions:
        # A tolerance, so that 0.3 of 10 steps is 3 and not 4.
        step = max(1, -int(-(fraction * num_steps - 1e-9) // 1))
        steps.setdefault(step, []).append(fraction)
    return steps


def fractions_too_late(fractions: list[float], num_steps: int, step: int, run_dir: Path) -> list[float]:
    """Return the fractions that a run at `step` has passed without keeping its trunk: they were asked for later."""
    passed = [one for at, names in steps_to_keep(fractions, num_steps).items() if at <= step for one in names]
    return [one for one in passed if not (kept_folder(run_dir, one) / TRUNK_NAME).is_file()]


def _copied(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose tensors are copies on the CPU."""
    # Every field, so that one that is added later cannot be forgotten here.
    return Checkpoint(**{field.name: _copied_value(getattr(checkpoint, field.name)) for field in fields(checkpoint)})


def _copied_value(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _copied_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied_value(inner) for inner in value)
    return value
