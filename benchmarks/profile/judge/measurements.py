"""Measurements behind the verdict: windows of the running pipeline and of its consumer alone, and each stage's cost.

The model's costs are CPU seconds measured one stage at a time. A running pipeline needs more of them, since its threads
share caches and memory. `contention` of the model says by how much; it comes from the same windows as the samples per
second.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.harness.turns import turns
from benchmarks.profile.measure.costs import StageCost, measure_costs
from benchmarks.profile.measure.load import cores_to_be_had
from benchmarks.profile.measure.windows import Bench, Window
from benchmarks.profile.model.queueing import ConsumerCost, PipelineModel, fit
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.base.machine import num_cores

__all__ = ["Measurements", "consumer_cost", "measure", "median_of"]

COSTS_SHARE, WINDOWS_SHARE = 0.4, 0.6
PROBE_S = 0.1
MIN_CONTENTION, MAX_CONTENTION = 0.7, 2.5
IDLE_RATIO = 0.25
"""A step that uses less of a core than that waits for something else than the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Windows of the pipeline with its consumer (base), of the pipeline alone (free) and of the consumer alone; the
    costs of the stages; the fitted model.

    model: of all cores. model_here: of the cores that others left free during the windows.
    """

    config: ProfileConfig
    base: tuple[Window, ...]
    free: tuple[Window, ...]
    consumer: tuple[Window, ...]
    consumer_name: str
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
        """Samples/s of the pipeline if nothing were done with its batches."""
        return median_of(self.free or self.base, lambda window: window.samples_per_s)

    @property
    def consumer_samples_per_s(self) -> float | None:
        """Samples/s of the consumer with data in memory; None without a consumer."""
        if self.consumer_name == "nobody":
            return None
        return median_of(self.consumer, lambda window: window.samples_per_s)

    @property
    def wait_ratio(self) -> float:
        return median_of(self.base, lambda window: window.wait_ratio)

    @property
    def sample_bytes(self) -> float:
        """Mean bytes of a file, images and clips as they are mixed in a step."""
        feeds = self.model.feeds
        total = sum(feed.batch_size * self.costs[f"read {feed.kind}"].sample_bytes for feed in feeds)
        return total / sum(feed.batch_size for feed in feeds)


def median_of(windows: Sequence[Window], value: Callable[[Window], float]) -> float:
    return statistics.median(value(window) for window in windows)


def measure(config: ProfileConfig, seconds: float) -> Measurements:
    """Measure costs first, then all windows in turns, `config.num_repeats` times. Takes about `seconds`."""
    with Bench(config) as base, Bench(config, has_consumer=False) as free:
        has_consumer = base.consumer.name != "nobody"
        # 1. Stages one at a time, while both pipelines stand still.
        costs = measure_costs(config.pipeline, COSTS_SHARE * seconds, base.device)
        # 2. Steps in memory for the consumer; its first step is not counted, since a trainer builds its buffers in it.
        base.hold()
        base.consumer_window(0.0)
        # 3. Windows, and the cores that were to be had meanwhile.
        window_s = WINDOWS_SHARE * seconds / config.num_repeats / (3 if has_consumer else 1)
        had: list[float] = []
        rows: dict[str, list[Window]] = {name: [] for name in ("base", "consumer", *(["free"] if has_consumer else []))}
        # In turns, so that all three see the same machine while its load by others changes.
        for _, name in turns(rows, config.num_repeats):
            if name == "base":
                # Probed right before the pipeline's own window: what others leave free changes within seconds.
                had.append(cores_to_be_had(PROBE_S))
                rows[name].append(base.turn(window_s))
            elif name == "consumer":
                rows[name].append(base.consumer_window(window_s if has_consumer else 0.0))
            else:
                rows[name].append(free.turn(window_s))
        cost = consumer_cost(rows["consumer"], is_overlapped=config.overlap_transfer)
    model = fit(config.pipeline, costs, cost)
    model = replace(model, contention=contention_of(model, rows["base"]))
    # A window that used more than the probe was given has shown that there were more.
    cores = max(statistics.median(had), median_of(rows["base"], lambda window: window.use.own_s / window.seconds))
    return Measurements(
        config=config,
        base=tuple(rows["base"]),
        free=tuple(rows.get("free", ())),
        consumer=tuple(rows["consumer"]),
        consumer_name=base.consumer.name,
        flop_per_step=base.consumer.flop_per_step,
        costs=costs,
        model=model,
        model_here=replace(model, num_cores=cores),
        cores_to_be_had=cores,
    )


def consumer_cost(windows: Sequence[Window], *, is_overlapped: bool) -> ConsumerCost:
    """Return what a step costs its consumer, from windows without a pipeline."""
    # Medians window by window: one stalled step must not become the cost of all.
    transfer_s = median_of(windows, lambda window: window.transfer_s / window.num_steps)
    step_s = median_of(windows, lambda window: window.step_s / window.num_steps)
    cpu_s = median_of(windows, lambda window: window.use.own_s / window.num_steps)
    found = ConsumerCost(transfer_s=transfer_s, step_wait_s=step_s, is_overlapped=is_overlapped)
    # A device that only waits: its step takes no cores from the pipeline.
    if cpu_s < IDLE_RATIO * step_s or step_s < 1e-4:
        return found
    # A step that computes: its CPU seconds on as many threads as they fill, and the rest of its time is waiting.
    threads = min(max(round(cpu_s / step_s), 1), num_cores())
    return replace(found, step_cpu_s=cpu_s, step_threads=threads, step_wait_s=max(step_s - cpu_s / threads, 0.0))


def contention_of(model: PipelineModel, windows: Sequence[Window]) -> float:
    """Return CPU seconds of a running step over those of its stages one at a time."""
    # On one core no other stage runs beside a stage, so that there is nothing to contend with.
    if num_cores() == 1 or not model.cpu_s:
        return 1.0
    live_s = median_of(windows, lambda window: window.use.own_s / max(window.num_steps, 1))
    return min(max(live_s / model.cpu_s, MIN_CONTENTION), MAX_CONTENTION)
