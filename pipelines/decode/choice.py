"""Choose the decoding backend from the hardware and the installed packages, and start it."""

from dataclasses import dataclass
from typing import Literal

import torch

from pipelines.base.errors import UsageError
from pipelines.base.thread_pool import ThreadPool
from pipelines.decode.base import Backend, BackendName

__all__ = ["BackendChoice", "choose_backend", "open_backend"]

CPU_ADVANTAGE = "makes images faster than DALI, and clips at least twice as fast"
"""Measured on two busy cores, medians of 7 turns: 500 x 375 JPEG to a 256 canvas 1.1 to 1.7 times as fast, clips of 10
frames of 240 x 320 in VP9 2.2 to 2.9 times, in MJPEG 2 to 4 times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """Name of the chosen backend, and the reason as a phrase for `fourfold doctor` and logs."""

    name: Literal["opencv", "dali"]
    reason: str


def choose_backend(name: BackendName, device: torch.device) -> BackendChoice:
    """Return the backend: the named one; for `auto` DALI on a GPU where it is installed, OpenCV elsewhere.

    `python -m benchmarks.studies.gpu.gpu_check` times both and says whether this rule is right on a machine. Raises
    UsageError if `name` is dali and DALI is missing.
    """
    # A rule and not a timed trial: pixels of the two differ by some levels, so a choice that depends on a stopwatch
    # would make batches differ from run to run.
    from pipelines.decode.dali import require_dali

    if name == "opencv":
        return BackendChoice(name="opencv", reason="asked for")
    if name == "dali":
        require_dali()
        return BackendChoice(name="dali", reason="asked for")
    if device.type != "cuda":
        return BackendChoice(name="opencv", reason=f"device is {device.type}, where OpenCV {CPU_ADVANTAGE}")
    # DALI may be installed and not load (a driver that is too old): that is a reason, not an error, for `auto`.
    try:
        require_dali()
    except UsageError as error:
        return BackendChoice(name="opencv", reason=str(error))
    return BackendChoice(name="dali", reason="device is cuda and DALI is installed")


def open_backend(choice: BackendChoice, *, device: torch.device, threads: ThreadPool) -> Backend:
    """Start the chosen backend. OpenCV uses `threads`, DALI starts as many of its own."""
    if choice.name == "dali":
        from pipelines.decode.dali import DaliBackend

        return DaliBackend(device=device, num_threads=threads.num_threads)
    from pipelines.decode.opencv import OpenCVBackend

    return OpenCVBackend(threads=threads, pin_memory=device.type == "cuda")
