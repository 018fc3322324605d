"""Consumers of a pipeline's steps: none, a device of a given speed, or a real trainer.

A step's batches are copied to the device (`moved`), then used (`Consumer.step`); both are timed apart.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch

from benchmarks.profile.profile_config import ProfileConfig
from pipelines.build import Pipeline, Step
from training.compute import BudgetConfig
from training.parallel import Ranks
from training.session import Session

__all__ = ["Consumer", "moved", "nvtx_range", "open_consumer", "sleep_until", "wait_for"]

SPIN_S = 5e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """User of a pipeline's steps. `step` uses one whose batches are on the device, and waits until that is done.

    name: "nobody" takes steps and does nothing. flop_per_step: forward and backward; 0 if nothing is computed.
    """

    name: Literal["nobody", "device", "trainer"]
    step: Callable[[Step], None]
    flop_per_step: float = 0.0


def open_consumer(config: ProfileConfig, pipeline: Pipeline, device: torch.device, samples_per_step: int) -> Consumer:
    """Open the trainer of `config.train`: the session of a real run without log and checkpoints; a device that is busy
    for samples / `config.device_samples_per_s` seconds a step and uses no core; or nobody."""
    if config.train is not None:
        # A session needs a budget for its schedule; the profile ends by time. Nothing is held out, since only steps
        # are timed.
        budget = config.train.budget or BudgetConfig(steps=1)
        whole = config.train.model_copy(update={"pipeline": config.pipeline, "budget": budget, "held_out": None})
        session = Session(whole, pipeline, Ranks(), device)

        def learn(step: Step) -> None:
            session.learn(step)
            # Kernels run after the call returns: without waiting, a step would seem to take as long as launching it.
            wait_for(device)

        return Consumer(name="trainer", step=learn, flop_per_step=sum(session.flop.values()))
    if config.device_samples_per_s is not None:
        step_s = samples_per_step / config.device_samples_per_s
        return Consumer(name="device", step=lambda _: sleep_until(time.perf_counter() + step_s))
    return Consumer(name="nobody", step=lambda _: None)


def sleep_until(end_s: float) -> None:
    """Sleep in pieces: on a busy machine, one long sleep ends late by up to milliseconds, which is a whole step."""
    while (left_s := end_s - time.perf_counter()) > 0:
        time.sleep(left_s / 2 if left_s > SPIN_S else 0.0)


def wait_for(device: torch.device) -> None:
    """Wait for all work on a GPU; a CPU has none under way."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def moved(step: Step, device: torch.device) -> Step:
    """Return the same step with its batches on the device, after waiting for the copies."""
    there = replace(step, batches={name: batch.to(device) for name, batch in step.batches.items()})
    wait_for(device)
    return there


def nvtx_range(name: str, device: torch.device) -> AbstractContextManager[object]:
    """Open a named range for nsys and the torch profiler, on a GPU; nothing elsewhere."""
    if device.type != "cuda":
        return nullcontext()
    found: AbstractContextManager[object] = torch.cuda.nvtx.range(name)
    return found
