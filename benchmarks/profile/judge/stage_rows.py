"""The table of stages: what each does on a core, what the machine would allow, and where the pipeline's time went.

Ceilings: reading, against the same samples read at random from memory; decoding with crop and resize, against decoding
alone; an image task, against copying its pixels and its batch once; motion, against tracking alone; copies to a device,
against page-locked memory; the step, against a matrix product. "Not measured" is None.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.profile.judge.measurements import Measured
from benchmarks.profile.measure.ceilings import Ceilings
from benchmarks.profile.measure.costs import StageCost
from benchmarks.profile.measure.windows import Window
from benchmarks.profile.model.simulation import simulate
from pipelines.build import memory_of
from pipelines.decode.clip_planes import chosen_frames
from pipelines.run.stage_stats import StageStats
from pipelines.tasks import TASKS

__all__ = ["Blocked", "StageRow", "blocked_of", "decode_limit", "gains_without", "stage_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """A stage. Rates are of `unit`; ratio: achieved over ceiling, 0 to 1 and more where the ceiling does more work than
    is needed (large JPEGs are decoded at reduced size). cpu_ratio: share of a step's CPU seconds."""

    stage: str
    unit: str
    achieved_per_s: float | None
    ceiling_per_s: float | None
    ceiling: str
    cpu_ms_per_sample: float
    cpu_ratio: float

    @property
    def ratio(self) -> float | None:
        if self.achieved_per_s is None or not self.ceiling_per_s:
            return None
        return self.achieved_per_s / self.ceiling_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """Where a stage's wall time went in the running pipeline, all windows together. The three sum to 1."""

    stage: str
    busy_ratio: float
    blocked_on_input_ratio: float
    blocked_on_output_ratio: float


def stage_rows(measured: Measured, found: Ceilings) -> tuple[StageRow, ...]:
    """By order of a sample's way; then the step."""
    return (*_feed_rows(measured, found), *_task_rows(measured, found), *_taker_rows(measured, found))


def _feed_rows(measured: Measured, found: Ceilings) -> Iterator[StageRow]:
    read = found.read.random_warm_bytes_per_s if found.read else None
    decode = {"image": found.decode_images_per_s_core, "clip": found.decode_clips_per_s_core}
    for feed in measured.model.feeds:
        costs = {name: measured.costs[f"{name} {feed.kind}"] for name in ("read", "draw", "decode")}
        bytes_per_s = costs["read"].sample_bytes * costs["read"].samples_per_s
        unit = f"{feed.kind}s/s a core"
        rows = (
            ("read", "bytes/s a core", bytes_per_s, read, "random reads, in memory"),
            ("draw", unit, costs["draw"].samples_per_s, None, "none"),
            ("decode", unit, costs["decode"].samples_per_s, decode[feed.kind], "decoding alone"),
        )
        for name, row_unit, achieved, ceiling, what in rows:
            times = feed.share * feed.batch_size * (feed.num_decodes if name == "decode" else 1)
            yield _row(measured, costs[name], (row_unit, achieved, ceiling, what), times)


def _task_rows(measured: Measured, found: Ceilings) -> Iterator[StageRow]:
    batch_bytes = memory_of(measured.config.pipeline).batch_bytes
    for job in measured.model.jobs:
        cost = measured.costs[job.task]
        size = measured.config.pipeline.batch_size_of(cost.kind)
        ceiling, what = _task_ceiling(measured, found, job.task, batch_bytes[job.task] / size)
        yield _row(measured, cost, (f"{cost.kind}s/s a core", cost.samples_per_s, ceiling, what), job.share * size)


def _task_ceiling(measured: Measured, found: Ceilings, task: str, sample_bytes: float) -> tuple[float | None, str]:
    config = measured.config.pipeline
    if TASKS[task].source == "image":
        moved = sample_bytes + 3 * config.canvas_px**2
        return found.memory_copy_bytes_per_s / moved, "copying its pixels and its batch"
    options = config.tasks[task]
    engine = getattr(options, "engine", "")
    preset = f" {getattr(options, 'preset', '')}" if engine == "dis" else ""
    pairs_per_s = found.flow_pairs_per_s.get(f"{engine}{preset}")
    pairs = len(chosen_frames(config.num_frames)) - 1
    return (pairs_per_s / pairs if pairs_per_s else None), "tracking alone"


def _row(
    measured: Measured, cost: StageCost, rates: tuple[str, float | None, float | None, str], times: float
) -> StageRow:
    """`times`: samples of the stage's kind in a step."""
    unit, achieved, ceiling, what = rates
    return StageRow(
        stage=cost.name,
        unit=unit,
        achieved_per_s=achieved,
        ceiling_per_s=ceiling,
        ceiling=what,
        cpu_ms_per_sample=cost.busy_s * 1e3,
        cpu_ratio=cost.busy_s * times / max(measured.model.cpu_s, 1e-12),
    )


def _taker_rows(measured: Measured, found: Ceilings) -> Iterator[StageRow]:
    """Copies and step, where there are any; seconds of a step are of all its samples."""
    taking, size = measured.model.taking, measured.model.samples_per_step
    if found.to_device_bytes_per_s and taking.transfer_s:
        step_bytes = memory_of(measured.config.pipeline).step_bytes
        yield StageRow(
            stage="transfer",
            unit="bytes/s",
            achieved_per_s=step_bytes / taking.transfer_s,
            ceiling_per_s=found.to_device_pinned_bytes_per_s,
            ceiling="copies from page-locked memory",
            cpu_ms_per_sample=0.0,
            cpu_ratio=0.0,
        )
    if measured.flop_per_step and taking.step_s:
        yield StageRow(
            stage="step",
            unit="FLOP/s",
            achieved_per_s=measured.flop_per_step / taking.step_s,
            ceiling_per_s=found.matrix_flop_per_s,
            ceiling="a matrix product",
            cpu_ms_per_sample=taking.step_cpu_s / size * 1e3,
            cpu_ratio=taking.step_cpu_s / max(measured.model.cpu_s, 1e-12),
        )


def decode_limit(measured: Measured, found: Ceilings) -> float | None:
    """Samples/s if all cores only decoded, whole images and clips, each as often as the pipeline does."""
    per_s = {"image": found.decode_images_per_s, "clip": found.decode_clips_per_s}
    seconds = 0.0
    for feed in measured.model.feeds:
        limit = per_s[feed.kind]
        if not limit:
            return None
        seconds += feed.share * feed.batch_size * feed.num_decodes / limit
    return measured.model.samples_per_step / seconds if seconds else None


def gains_without(measured: Measured) -> dict[str, float]:
    """The cost of the mix: by task, how many times as many steps/s the pipeline alone would give without it."""
    model = measured.model.without_taker()
    if len(model.jobs) < 2:
        return {}
    whole = simulate(model).samples_per_s / model.samples_per_step
    found = {}
    for job in model.jobs:
        other = model.without_task(job.task)
        found[job.task] = simulate(other).samples_per_s / other.samples_per_step / whole
    return found


def blocked_of(windows: Sequence[Window]) -> tuple[Blocked, ...]:
    """The pipeline's own clocks, over all windows."""
    names = [stage.name for stage in windows[0].stages]
    return tuple(_blocked(name, [window.stage(name) for window in windows]) for name in names)


def _blocked(name: str, stages: Sequence[StageStats]) -> Blocked:
    parts: Mapping[str, Callable[[StageStats], float]] = {
        "busy_ratio": lambda stage: stage.busy_s,
        "blocked_on_input_ratio": lambda stage: stage.blocked_on_input_s,
        "blocked_on_output_ratio": lambda stage: stage.blocked_on_output_s,
    }
    sums = {key: sum(map(part, stages)) for key, part in parts.items()}
    total = sum(sums.values())
    return Blocked(stage=name, **{key: seconds / total if total else 0.0 for key, seconds in sums.items()})
