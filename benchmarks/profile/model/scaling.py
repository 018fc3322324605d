"""Needs of more or faster GPUs: cores, processes, bytes from storage. From measured costs, by simulation.

Every rank has a pipeline of its own, so a plan for one GPU is multiplied; storage and network are shared. Cores are
counted by the bound first (CPU seconds a sample), then raised until the simulated pipeline keeps the device busy.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.profile.model.queueing import ConsumerCost, PipelineModel
from benchmarks.profile.model.simulation import simulate

__all__ = ["ScalingRow", "assumptions", "plan_scaling"]

KEPT_BUSY_RATIO = 0.98
"""Share of its speed with data in memory that a device must reach."""
LOAD_RATIO = 0.8
"""Share of its speed with ample cores that a process is planned for: near the limit every further core gives little."""
NUM_STEPS = 40
AMPLE_CORES = 128
"""Of one process. More would help no pipeline: its producing thread and the steps held ready are limits before."""


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


def plan_scaling(
    model: PipelineModel, num_gpus: Sequence[int], speeds: Sequence[float], sample_bytes: float, step_bytes: float
) -> tuple[ScalingRow, ...]:
    """Return a row for every number of GPUs and speed. `sample_bytes`: of a file, on average; `step_bytes`: of a step's
    batches on the device."""
    one_gpu = [_one_gpu(model, speed, sample_bytes, step_bytes) for speed in sorted(set(speeds))]
    return tuple(
        replace(
            row,
            num_gpus=count,
            total_samples_per_s=count * row.gpu_samples_per_s,
            total_cores=count * row.cores_per_gpu,
            read_bytes_per_s=count * row.read_bytes_per_s,
        )
        for count in num_gpus
        for row in one_gpu
    )


def _one_gpu(model: PipelineModel, samples_per_s: float, sample_bytes: float, step_bytes: float) -> ScalingRow:
    """Return processes and cores with which one GPU hardly ever waits."""
    # Idle cores would make the others faster in the model, and a plan would buy cores to leave them idle.
    busy = model.without_consumer().on_busy_cores()
    by_bound = samples_per_s * busy.cpu_s / busy.samples_per_step
    limit = simulate(busy.on_cores(AMPLE_CORES), NUM_STEPS).samples_per_s
    # One process too few and one core too many, so that the loop below begins with the least number of processes.
    processes, cores = max(math.ceil(samples_per_s / (LOAD_RATIO * limit)), 1) - 1, AMPLE_CORES + 1
    # One process more whenever no number of cores keeps its part of the device busy: its threads are the limit then.
    while cores > AMPLE_CORES:
        processes += 1
        of_one = samples_per_s / processes
        fed = replace(busy, consumer=ConsumerCost(step_wait_s=busy.samples_per_step / of_one))
        cores = _fewest_cores(fed, of_one, max(math.ceil(by_bound / processes), 1))
    return ScalingRow(
        num_gpus=1,
        gpu_samples_per_s=samples_per_s,
        total_samples_per_s=samples_per_s,
        processes_per_gpu=processes,
        cores_per_gpu_by_bound=by_bound,
        cores_per_gpu=cores * processes,
        total_cores=cores * processes,
        simulated_wait_ratio=simulate(fed.on_cores(cores), NUM_STEPS).wait_ratio,
        read_bytes_per_s=samples_per_s * sample_bytes,
        device_bytes_per_s=samples_per_s * step_bytes / model.samples_per_step,
    )


def _fewest_cores(fed: PipelineModel, samples_per_s: float, least: int) -> int:
    """Return the fewest cores, at least `least`, that keep the device busy; AMPLE_CORES + 1 if there are none."""

    def is_busy(cores: int) -> bool:
        return simulate(fed.on_cores(cores), NUM_STEPS).samples_per_s >= KEPT_BUSY_RATIO * samples_per_s

    # More cores never make the simulated pipeline slower, so the first sufficient number is found by halving.
    choices = range(least, AMPLE_CORES + 1)
    return least + bisect_left(choices, True, key=is_busy) if choices else AMPLE_CORES + 1


def assumptions(model: PipelineModel, sample_bytes: float) -> tuple[tuple[str, str], ...]:
    """Return numbers of the plan, each with what it rests on."""
    per_sample_ms = model.cpu_s * model.contention / model.samples_per_step * 1e3
    waits_ms = sum(feed.share * feed.wait_s for feed in model.feeds) / model.samples_per_step * 1e3
    return (
        (f"{per_sample_ms:.2f} ms of a core a sample", "measured here; other cores are as fast, all busy"),
        (f"{waits_ms:.3f} ms of waiting a sample", "reads come as here, however many GPUs read at once"),
        (f"{sample_bytes / 1e3:.0f} kB a sample", "mean size of the files that were read here, each read once"),
        (f"{KEPT_BUSY_RATIO:.0%} of a device's speed", "to be reached; the simulation says how many cores that takes"),
        (
            f"{LOAD_RATIO:.0%} of what a process could do with {AMPLE_CORES} cores",
            "used at most; one thread reads and draws, a task's batch is made by one thread, and few steps are held "
            "ready, so a faster device needs more processes",
        ),
        ("every rank alone", "a GPU's processes share nothing with other GPUs' but storage and network"),
        ("the cores do nothing else", "the trainer's own threads, copies and the system come on top"),
    )
