"""Advice: changes of a pipeline, and the samples per second that the fitted model predicts with each.

Each piece of advice is a change of the configuration or of how the shards are stored, and the same change of the model.
What it would cost a stage is measured (alternatives.py) where it cannot be known from the configuration.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benchmarks.profile.judge.measurements import Measurements
from benchmarks.profile.measure import alternatives
from benchmarks.profile.model.queueing import PipelineModel
from benchmarks.profile.model.simulation import simulate
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.base.machine import num_cores
from pipelines.build import PipelineConfig
from pipelines.tasks import TASKS
from training.parallel import choose_device

__all__ = ["Advice", "Option", "advise", "options_of", "settings_options"]

MANY_PREFETCHED = 16
MIN_GAIN = 1.03
"""Less is not worth a line, and below what the model knows."""
OVERSIZE_RATIO = 1.3
WORTH_A_LOOK_RATIO = 0.1
"""Alternatives of a stage are measured if it has more of a step's CPU seconds than that."""
ALTERNATIVE_S = 0.6
MOTION = "motion_segmentation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A possible change. settings: overrides of a ProfileConfig by dotted name; {} where other shards are needed.
    changes_batches: whether training would see other numbers."""

    name: str
    stage: str
    text: str
    change: Callable[[PipelineModel], PipelineModel] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    changes_batches: bool = False

    def gain(self, model: PipelineModel) -> float:
        """Return samples/s with the change over those without."""
        return simulate(self.change(model)).samples_per_s / simulate(model).samples_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """An option that helps, with what it is predicted to give. after_samples_per_s: at the same load by others."""

    option: Option
    before_samples_per_s: float
    after_samples_per_s: float

    @property
    def gain(self) -> float:
        return self.after_samples_per_s / self.before_samples_per_s


def advise(measured: Measurements, options: tuple[Option, ...]) -> tuple[Advice, ...]:
    """Return the options that help, the most helpful first."""
    # On the cores that were free while `before` was measured: both then stand at the same load by others.
    before, model = measured.samples_per_s, measured.model_here
    found = [
        Advice(option=option, before_samples_per_s=before, after_samples_per_s=before * option.gain(model))
        for option in options
    ]
    return tuple(sorted((one for one in found if one.gain >= MIN_GAIN), key=lambda one: -one.gain))


def options_of(measured: Measurements) -> tuple[Option, ...]:
    """Return everything that could be changed here. What has to be measured takes a second each."""
    config, model = measured.config, measured.model
    device = choose_device(config.device)
    options = [*settings_options(config, model)]
    # Measuring an alternative takes a second. A stage with less than a tenth of the CPU time gains at most a ninth,
    # even if it becomes free.
    share = {name: cpu_s / max(model.cpu_s, 1e-12) for name, cpu_s in model.cpu_by_stage().items()}
    if "decode image" in measured.costs and share["decode"] >= WORTH_A_LOOK_RATIO:
        options += _image_options(config.pipeline, device)
    if share.get(MOTION, 0.0) >= WORTH_A_LOOK_RATIO:
        options += _motion_options(config.pipeline, device)
    return tuple(options)


def settings_options(config: ProfileConfig, model: PipelineModel) -> tuple[Option, ...]:
    """Return the options that can be judged from the fitted model alone."""
    return tuple(_settings_options(config, model))


def _settings_options(config: ProfileConfig, model: PipelineModel) -> Iterator[Option]:
    # 1. Settings that cost nothing, or memory.
    threads = config.pipeline.num_threads or num_cores()
    if threads < num_cores():
        yield Option(
            name="threads",
            stage="threads",
            text=f"num_threads: {num_cores()} instead of {threads}",
            change=lambda model: replace(model, num_threads=num_cores()),
            settings={"pipeline.num_threads": num_cores()},
        )
    # A deeper queue bridges uneven reads, and costs nothing but memory.
    if config.pipeline.prefetch_batches < MANY_PREFETCHED:
        yield Option(
            name="prefetch",
            stage="prefetch",
            text=f"prefetch_batches: {MANY_PREFETCHED} instead of {config.pipeline.prefetch_batches}",
            change=lambda model: replace(model, prefetch_batches=MANY_PREFETCHED),
            settings={"pipeline.prefetch_batches": MANY_PREFETCHED},
        )
    # 2. Where the model has seen a wait, what would avoid it.
    if model.consumer.transfer_s > 0 and not config.overlap_transfer:
        yield Option(
            name="overlap_transfer",
            stage="transfer",
            text="copy the next step's batches to the device while this step runs",
            change=lambda model: replace(model, consumer=replace(model.consumer, is_overlapped=True)),
            settings={"overlap_transfer": True},
        )
    if any(feed.wait_s > 0 for feed in model.feeds):
        yield Option(
            name="memory",
            stage="read",
            text="keep the shards where reading does not wait: in memory, or on a disk of this machine",
            change=lambda model: model.with_feeds(waits_s=(0.0,)),
        )


def _image_options(config: PipelineConfig, device: torch.device) -> Iterator[Option]:
    # 1. Known from the configuration: one decode instead of several.
    if not config.share_decode and sum(TASKS[name].source == "image" for name in config.tasks) > 1:
        yield Option(
            name="share_decode",
            stage="decode",
            text="share_decode: true, one decoded canvas for all image tasks",
            change=lambda model: model.with_feeds(num_decodes=1),
            settings={"pipeline.share_decode": True},
            changes_batches=True,
        )
    # 2. Measured, but only if the stored images are clearly larger than the smallest crop needs.
    needed, found = alternatives.needed_short_side_px(config), alternatives.short_side_px(config)
    if found >= OVERSIZE_RATIO * needed:
        decode_s = alternatives.cost_with_small_images(config, needed, device)
        yield Option(
            name="small_images",
            stage="decode",
            text=f"store images with a short side of {needed} px instead of {found:.0f}: all that the canvas shows",
            change=lambda model: model.with_feeds("image", decode_s=decode_s),
            changes_batches=True,
        )


def _motion_options(config: PipelineConfig, device: torch.device) -> Iterator[Option]:
    task: Any = config.tasks[MOTION]
    # Masks were tuned with DIS, so it has nothing better than itself. The GPU's flow unit costs the CPU less.
    if task.engine in ("farneback", "raft"):
        flow_s = alternatives.motion_cost_with(config, {"engine": "dis"}, ALTERNATIVE_S, device)
        yield Option(
            name="flow_engine",
            stage=MOTION,
            text=f"tasks.{MOTION}.engine: dis instead of {task.engine}",
            change=lambda model: model.with_task(MOTION, flow_s * config.clip_batch_size),
            settings={f"pipeline.tasks.{MOTION}.engine": "dis"},
            changes_batches=True,
        )
