"""The table of stages: what each does on a core, and what the machine would allow.

Ceilings: reading, against the same samples read at random from memory; decoding with crop and resize, against decoding
alone; an image task, against copying its pixels and its batch once; motion, against optical flow alone; copies to a
device, against page-locked memory; the step, against a matrix product. "Not measured" is None.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.profile.judge.measurements import Measurements
from benchmarks.profile.measure.ceilings import Ceilings
from pipelines.build import memory_of
from pipelines.tasks import TASKS

__all__ = ["StageRow", "decode_limit", "stage_rows"]


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


def stage_rows(measured: Measurements, found: Ceilings) -> tuple[StageRow, ...]:
    """Return rows in the order in which a sample passes the stages; then the step."""
    return (*_feed_rows(measured, found), *_task_rows(measured, found), *_consumer_rows(measured, found))


def _feed_rows(measured: Measurements, found: Ceilings) -> Iterator[StageRow]:
    # Warm and random, as a window of shards is read; a cold disk is a property of the storage, not of this stage.
    read = found.read.random_warm_bytes_per_s if found.read else None
    decode = {"image": found.decode_images_per_s_core, "clip": found.decode_clips_per_s_core}
    for feed in measured.model.feeds:
        kind, times = feed.kind, feed.share * feed.batch_size
        yield _row(measured, f"read {kind}", "bytes", read, "random reads, in memory", times)
        yield _row(measured, f"draw {kind}", f"{kind}s", None, "none", times)
        # Samples are read and drawn once, but decoded once for each task that does not share the canvas.
        times *= feed.num_decodes
        yield _row(measured, f"decode {kind}", f"{kind}s", decode[kind], "decoding alone", times)


def _task_rows(measured: Measurements, found: Ceilings) -> Iterator[StageRow]:
    config = measured.config.pipeline
    batch_bytes = memory_of(config).batch_bytes
    for job in measured.model.jobs:
        kind, ceiling = TASKS[job.task].source, None
        size = config.batch_size_of_task(job.task)
        if kind == "image":
            # Any image task has to read its canvas, 3 bytes a pixel, and to write its part of the batch.
            ceiling = found.memory_copy_bytes_per_s / (batch_bytes[job.task] / size + 3 * config.canvas_px**2)
        else:
            task = config.tasks[job.task]
            # A clip needs the flow of one pair; the glance at half the size is a quarter more.
            ceiling = found.flow_pairs_per_s.get(getattr(task, "engine", ""))
        what = "copying its pixels and its batch" if kind == "image" else "optical flow alone"
        yield _row(measured, job.task, f"{kind}s", ceiling, what, job.share * size)


def _row(
    measured: Measurements, stage: str, unit: str, ceiling_per_s: float | None, ceiling: str, times: float
) -> StageRow:
    """Return one row. `times`: samples of the stage's kind in a step."""
    cost = measured.costs[stage]
    return StageRow(
        stage=stage,
        unit=f"{unit}/s a core",
        achieved_per_s=cost.samples_per_s * (cost.sample_bytes if unit == "bytes" else 1),
        ceiling_per_s=ceiling_per_s,
        ceiling=ceiling,
        cpu_ms_per_sample=cost.busy_s * 1e3,
        cpu_ratio=cost.busy_s * times / max(measured.model.cpu_s, 1e-12),
    )


def _consumer_rows(measured: Measurements, found: Ceilings) -> Iterator[StageRow]:
    """Yield copies and step, where there are any; seconds of a step are of all its samples."""
    cost, size = measured.model.consumer, measured.model.samples_per_step
    # On a CPU nothing is copied, and without a trainer nothing computed: such rows would hold no number.
    if found.to_device_bytes_per_s and cost.transfer_s:
        yield StageRow(
            stage="transfer",
            unit="bytes/s",
            achieved_per_s=memory_of(measured.config.pipeline).step_bytes / cost.transfer_s,
            ceiling_per_s=found.to_device_pinned_bytes_per_s,
            ceiling="copies from page-locked memory",
            cpu_ms_per_sample=0.0,
            cpu_ratio=0.0,
        )
    if measured.flop_per_step and cost.step_s:
        yield StageRow(
            stage="step",
            unit="FLOP/s",
            achieved_per_s=measured.flop_per_step / cost.step_s,
            ceiling_per_s=found.matrix_flop_per_s,
            ceiling="a matrix product",
            cpu_ms_per_sample=cost.step_cpu_s / size * 1e3,
            cpu_ratio=cost.step_cpu_s / max(measured.model.cpu_s, 1e-12),
        )


def decode_limit(measured: Measurements, found: Ceilings) -> float | None:
    """Return samples/s if all cores only decoded, whole images and clips, each as often as the pipeline does."""
    per_s = {"image": found.decode_images_per_s, "clip": found.decode_clips_per_s}
    limits = [(feed.share * feed.batch_size * feed.num_decodes, per_s[feed.kind]) for feed in measured.model.feeds]
    # With one rate missing, the sum would leave out that kind's time, and the limit would be too high.
    if not all(limit for _, limit in limits):
        return None
    return measured.model.samples_per_step / sum(count / limit for count, limit in limits if limit)
