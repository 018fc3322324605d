"""What more or faster GPUs would need: cores, processes, bytes from storage. From measured costs, by simulation.

Every rank has a pipeline of its own, so a plan for one GPU is multiplied; what is shared is storage and network. Cores
are counted first by the bound (CPU seconds a sample), then raised until the simulated pipeline keeps the device busy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.profile.model.queueing import PipelineModel, Taking
from benchmarks.profile.model.simulation import simulate

__all__ = ["Assumption", "ScalingRow", "assumptions", "plan_scaling"]

KEPT_BUSY_RATIO = 0.98
"""Of its speed, a device must reach with data as it has it in memory."""
LOAD_RATIO = 0.8
"""One process is given so much of what it could do with ample cores: near the limit every further core gives little."""
NUM_STEPS = 40
AMPLE_CORES = 128
"""Of one process. More would help no pipeline: its producing thread and the steps held ready are limits before."""

Assumption = tuple[str, str]
"""A number and what it rests on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRow:
    """Needs of `num_gpus` that take `gpu_samples_per_s` each. Cores, processes and bytes to the device are of one GPU,
    `total_` and read bytes of all. simulated_wait_ratio: share of time the simulated device waits, 0 to 1."""

    num_gpus: int
    gpu_samples_per_s: float
    total_samples_per_s: float
    processes_per_gpu: int
    cores_per_gpu_by_bound: float
    cores_per_gpu: int
    total_cores: int
    simulated_wait_ratio: float
    read_bytes_per_s: float
    device_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _OneGpu:
    processes: int
    by_bound: float
    cores: int
    wait_ratio: float


def plan_scaling(
    model: PipelineModel, num_gpus: Sequence[int], speeds: Sequence[float], sample_bytes: float, step_bytes: float
) -> tuple[ScalingRow, ...]:
    """A row for every number of GPUs and speed. `sample_bytes`: of a file, on average; `step_bytes`: of a step's
    batches on the device."""
    plans = {speed: _plan(model, speed) for speed in sorted(set(speeds))}
    return tuple(
        ScalingRow(
            num_gpus=count,
            gpu_samples_per_s=speed,
            total_samples_per_s=count * speed,
            processes_per_gpu=one.processes,
            cores_per_gpu_by_bound=one.by_bound,
            cores_per_gpu=one.cores,
            total_cores=count * one.cores,
            simulated_wait_ratio=one.wait_ratio,
            read_bytes_per_s=count * speed * sample_bytes,
            device_bytes_per_s=speed * step_bytes / model.samples_per_step,
        )
        for count in num_gpus
        for speed, one in plans.items()
    )


def _plan(model: PipelineModel, samples_per_s: float) -> _OneGpu:
    """Processes and cores so that one GPU waits hardly ever."""
    # Idle cores would make the others faster in the model, and a plan would buy cores to leave them idle.
    busy = model.without_taker().on_busy_cores()
    by_bound = samples_per_s * busy.cpu_s / busy.samples_per_step
    limit = simulate(busy.on_cores(AMPLE_CORES), NUM_STEPS).samples_per_s
    processes = max(math.ceil(samples_per_s / (LOAD_RATIO * limit)), 1)
    while True:
        of_one = samples_per_s / processes
        fed = replace(busy, taking=Taking(step_wait_s=busy.samples_per_step / of_one))
        cores = _fewest_cores(fed, of_one, max(math.ceil(by_bound / processes), 1))
        if cores is not None:
            break
        processes += 1
    return _OneGpu(
        processes=processes,
        by_bound=by_bound,
        cores=cores * processes,
        wait_ratio=simulate(fed.on_cores(cores), NUM_STEPS).wait_ratio,
    )


def _fewest_cores(fed: PipelineModel, samples_per_s: float, least: int) -> int | None:
    """The first number of cores, from `least` on, at which the simulated device is kept busy; None if there is none."""

    def suffices(cores: int) -> bool:
        return simulate(fed.on_cores(cores), NUM_STEPS).samples_per_s >= KEPT_BUSY_RATIO * samples_per_s

    low, high = least - 1, least
    while not suffices(high):
        if high >= AMPLE_CORES:
            return None
        low, high = high, min(2 * high, AMPLE_CORES)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def assumptions(model: PipelineModel, sample_bytes: float) -> tuple[Assumption, ...]:
    """What the numbers of the plan rest on."""
    per_sample_ms = model.cpu_s * model.contention / model.samples_per_step * 1e3
    waits_ms = sum(feed.share * feed.wait_s for feed in model.feeds) / model.samples_per_step * 1e3
    return (
        (
            f"{per_sample_ms:.2f} ms of a core a sample",
            "measured here; other cores are as fast, all busy",
        ),
        (f"{waits_ms:.3f} ms of waiting a sample", "reads come as here, however many GPUs read at once"),
        (f"{sample_bytes / 1e3:.0f} kB a sample", "mean size of the files that were read here, each read once"),
        (f"{KEPT_BUSY_RATIO:.0%} of a device's speed", "asked for; the simulation says how many cores that takes"),
        (
            f"{LOAD_RATIO:.0%} of what a process could do with {AMPLE_CORES} cores",
            "used at most; one thread reads and draws, a task's batch is made by one thread, and few steps are held "
            "ready, so a faster device needs more processes",
        ),
        ("every rank alone", "a GPU's processes share nothing with other GPUs' but storage and network"),
        ("the cores do nothing else", "the trainer's own threads, copies and the system come on top"),
    )
