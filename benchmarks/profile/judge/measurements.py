"""Everything the verdict is made of: windows of the running pipeline, of its consumer alone, and what each stage costs.

The model's costs are CPU seconds measured one stage at a time; a running pipeline needs more of them, since its threads
share caches and memory. By how much is the model's `contention`, from the same windows that the samples per second are
from.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.profile.measure.costs import StageCost, measure_costs
from benchmarks.profile.measure.load import cores_to_be_had
from benchmarks.profile.measure.windows import Bench, Window
from benchmarks.profile.model.queueing import PipelineModel, Taking, fit
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.base.machine import num_cores

__all__ = ["Measured", "measure", "median_of", "taking_of"]

COSTS_SHARE, WINDOWS_SHARE = 0.4, 0.6
PROBE_S = 0.1
MIN_CONTENTION, MAX_CONTENTION = 0.7, 2.5
IDLE_RATIO = 0.25
"""A step that uses less of a core than that waits for something else than the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Windows of the pipeline with its consumer and of each alone; the costs of the stages; the fitted model.

    model: on all cores, as if nobody else used the machine. model_here: on those that were to be had.
    """

    config: ProfileConfig
    base: tuple[Window, ...]
    free: tuple[Window, ...]
    consumer: tuple[Window, ...]
    taker_name: str
    flop_per_step: float
    costs: Mapping[str, StageCost]
    model: PipelineModel
    model_here: PipelineModel
    cores_to_be_had: float

    @property
    def samples_per_s(self) -> float:
        return median_of(self.base, lambda window: window.samples_per_s)

    @property
    def free_samples_per_s(self) -> float:
        """Of the pipeline, if nothing were done with its batches."""
        return median_of(self.free or self.base, lambda window: window.samples_per_s)

    @property
    def taker_samples_per_s(self) -> float | None:
        """Of the consumer with data in memory; None for nobody."""
        if self.taker_name == "nobody":
            return None
        return median_of(self.consumer, lambda window: window.samples_per_s)

    @property
    def wait_ratio(self) -> float:
        return median_of(self.base, lambda window: window.wait_ratio)


def median_of(windows: Sequence[Window], value: Callable[[Window], float]) -> float:
    return statistics.median(value(window) for window in windows)


def measure(config: ProfileConfig, seconds: float) -> Measured:
    """Costs first, then all windows in turn, `config.num_repeats` times. Takes about `seconds`."""
    with Bench(config) as base:
        costs = measure_costs(config.pipeline, COSTS_SHARE * seconds, base.device)
        has_taker = base.consumer.name != "nobody"
        num_windows = config.num_repeats * (3 if has_taker else 1)
        window_s = WINDOWS_SHARE * seconds / num_windows
        base.hold()
        had: list[float] = []
        rows: dict[str, list[Window]] = {"base": [], "free": [], "consumer": [base.taker_window(0.0)]}
        rows["consumer"].clear()  # the first step of a trainer builds its buffers
        with Bench(config.model_copy(update={"train": None, "device_samples_per_s": None}), is_taken=False) as free:
            for _ in range(config.num_repeats):
                had.append(cores_to_be_had(PROBE_S))
                rows["base"].append(base.window(window_s))
                base.pause()
                rows["consumer"].append(base.taker_window(window_s if has_taker else 0.0))
                if has_taker:
                    rows["free"].append(free.window(window_s))
                    free.pause()
        taking = taking_of(rows["consumer"], is_overlapped=config.overlap_transfer)
        name, flop = base.consumer.name, base.consumer.flop_per_step
    whole = fit(config.pipeline, costs, taking)
    whole = replace(whole, contention=contention_of(whole, rows["base"]))
    # A window that used more than the probe was given has shown that there were more.
    cores = max(statistics.median(had), median_of(rows["base"], lambda window: window.use.own_s / window.seconds))
    return Measured(
        config=config,
        base=tuple(rows["base"]),
        free=tuple(rows["free"]),
        consumer=tuple(rows["consumer"]),
        taker_name=name,
        flop_per_step=flop,
        costs=costs,
        model=whole,
        model_here=replace(whole, num_cores=cores),
        cores_to_be_had=cores,
    )


def taking_of(windows: Sequence[Window], *, is_overlapped: bool) -> Taking:
    """What a step costs its consumer, of windows without a pipeline."""
    transfer_s = median_of(windows, lambda window: window.transfer_s / window.num_steps)
    step_s = median_of(windows, lambda window: window.step_s / window.num_steps)
    cpu_s = median_of(windows, lambda window: window.use.own_s / window.num_steps)
    if cpu_s < IDLE_RATIO * step_s or step_s < 1e-4:
        return Taking(transfer_s=transfer_s, step_wait_s=step_s, is_overlapped=is_overlapped)
    threads = min(max(round(cpu_s / step_s), 1), num_cores())
    return Taking(
        transfer_s=transfer_s,
        step_cpu_s=cpu_s,
        step_threads=threads,
        step_wait_s=max(step_s - cpu_s / threads, 0.0),
        is_overlapped=is_overlapped,
    )


def contention_of(model: PipelineModel, windows: Sequence[Window]) -> float:
    """CPU seconds of a running step over those of its stages one at a time."""
    if num_cores() == 1 or not model.cpu_s:
        return 1.0
    live_s = median_of(windows, lambda window: window.use.own_s / max(window.num_steps, 1))
    return min(max(live_s / model.cpu_s, MIN_CONTENTION), MAX_CONTENTION)
