"""Who takes a pipeline's steps: nobody in particular, a device of a given speed, or a real trainer.

A consumer copies a step's batches to the device (`transfer`), then uses them (`step`); both are timed apart.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Protocol

import torch

from benchmarks.profile.profile_config import ProfileConfig
from pipelines.build import Pipeline, Step
from training.compute import BudgetConfig
from training.parallel import Ranks
from training.session import Session

__all__ = ["Device", "Nobody", "Consumer", "Trainer", "moved", "open_consumer", "sleep_until"]

SPIN_S = 5e-4


class Consumer(Protocol):
    name: str
    flop_per_step: float
    """Forward and backward of one step; 0 if nothing is computed."""

    def step(self, step: Step) -> None:
        """Use a step whose batches are on the device, and wait until that is done."""


class Nobody:
    name = "nobody"
    flop_per_step = 0.0

    def step(self, step: Step) -> None:
        pass


class Device:
    """Busy for samples / rate seconds a step, without using a core."""

    name = "device"
    flop_per_step = 0.0

    def __init__(self, samples_per_s: float, samples_per_step: int) -> None:
        self._step_s = samples_per_step / samples_per_s

    def step(self, step: Step) -> None:
        sleep_until(time.perf_counter() + self._step_s)


class Trainer:
    """The session of a real run, without its log and its checkpoints."""

    name = "trainer"

    def __init__(self, session: Session) -> None:
        self._session = session
        self.flop_per_step = sum(session.flop.values())

    def step(self, step: Step) -> None:
        self._session.learn(step)
        wait_for(self._session.device)


def sleep_until(end_s: float) -> None:
    """Sleep in pieces: one long sleep ends late by up to milliseconds on a busy machine, which is a whole step."""
    while (left_s := end_s - time.perf_counter()) > 0:
        time.sleep(left_s / 2 if left_s > SPIN_S else 0.0)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def moved(step: Step, device: torch.device) -> Step:
    """The same step, its batches on the device, after waiting for the copies."""
    there = replace(step, batches={name: batch.to(device) for name, batch in step.batches.items()})
    wait_for(device)
    return there


def open_consumer(config: ProfileConfig, pipeline: Pipeline, device: torch.device, samples_per_step: int) -> Consumer:
    if config.train is not None:
        budget = config.train.budget or BudgetConfig(steps=1)
        whole = config.train.model_copy(update={"pipeline": config.pipeline, "budget": budget})
        return Trainer(Session(whole, pipeline, Ranks(), device))
    if config.device_samples_per_s is not None:
        return Device(config.device_samples_per_s, samples_per_step)
    return Nobody()


@contextmanager
def nvtx_range(name: str, device: torch.device) -> Iterator[None]:
    """A named range for nsys and the torch profiler, on a GPU; nothing elsewhere."""
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.nvtx.range(name))
        yield
