"""Place each kind of sample where its batches are made fastest: backend, device and number of worker processes.

The batches do not depend on device or number of processes. Pixels of the two backends differ by some levels.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from pipelines.base.config import Config
from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores
from pipelines.decode.base import BackendName
from pipelines.decode.choice import BackendChoice, choose_backend
from pipelines.shards.format.manifest import Kind

__all__ = ["MAX_WORKERS", "Placement", "PlacementConfig", "place"]

MIN_CORES = 4
"""Cores from which clips beside a GPU are made in processes. With fewer, the trainer needs them."""
MAX_AUTO_WORKERS = 16
MAX_WORKERS = 256


class PlacementConfig(Config):
    """Options of `placement.images` and `placement.clips`. What is not given is as for the whole pipeline."""

    backend: BackendName | None = None
    """Decoder of this kind; default: the pipeline's `backend`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where pixels are decoded and targets made; the batches come to the trainer's device in any case."""
    num_workers: int | None = Field(default=None, ge=0, le=MAX_WORKERS)
    """Processes that make the batches of this kind on the CPU; 0: threads. Default: the pipeline's `num_workers`, but
    for clips beside a GPU one process per core less two, at most 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the batches of a kind are made, and the reason as a phrase."""

    kind: Kind
    backend: BackendChoice
    device: torch.device
    num_workers: int
    reason: str

    def __str__(self) -> str:
        by = f"{self.num_workers} processes" if self.num_workers else "threads"
        return f"{self.backend.name} on {self.device.type}, {by} ({self.reason})"


def place(
    kind: Kind, given: PlacementConfig, *, backend: BackendName, num_workers: int, device: torch.device
) -> Placement:
    """Return where the batches of a kind are made. `backend` and `num_workers` are the pipeline's.

    Raises UsageError if what is given does not fit together or is not there.
    """
    field = f"placement.{kind}s"
    # 1. Processes, or threads of this process.
    count, reason = _num_workers(kind, given, num_workers, device)
    # 2. The device. Worker processes have no GPU.
    if given.device == "cuda" and device.type != "cuda":
        raise UsageError(f"{field}.device = cuda; the pipeline runs on {device.type}. Use auto or cpu.")
    if given.device == "cuda" and count:
        raise UsageError(f"{field}.device = cuda with {count} worker processes, which have no GPU. Set num_workers: 0.")
    made_on = torch.device("cpu") if count or given.device == "cpu" else device
    # 3. The decoder for that device.
    choice = choose_backend(given.backend or backend, made_on)
    return Placement(kind=kind, backend=choice, device=made_on, num_workers=count, reason=reason or choice.reason)


def _num_workers(kind: Kind, given: PlacementConfig, num_workers: int, device: torch.device) -> tuple[int, str]:
    """Return the number of worker processes, and the reason if it is not the backend's."""
    if given.num_workers is not None:
        return given.num_workers, "num_workers is given" if given.num_workers else ""
    if num_workers:
        return num_workers, "num_workers is given"
    # A rule and not a timed trial, as for the backend. Masks of motion in threads gave 53 to 74 clips/s beside an H200
    # with 16 cores, because the threads take turns at Python's lock.
    cores = num_cores()
    if kind == "clip" and device.type == "cuda" and given.device == "auto" and cores >= MIN_CORES:
        count = min(cores - 2, MAX_AUTO_WORKERS)
        return count, f"{cores} cores beside a GPU, and processes make motion masks faster than threads"
    return 0, ""
