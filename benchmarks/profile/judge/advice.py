"""Advice: changes of a pipeline, and the samples per second that the fitted model predicts with each.

Each piece of advice is a change of the configuration or of how the shards are stored, and the same change of the model.
What it would cost a stage is measured (alternatives.py) where it cannot be known from the configuration.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import av
import torch

from benchmarks.profile.judge.measurements import Measurements
from benchmarks.profile.measure import alternatives
from benchmarks.profile.measure.costs import source_of
from benchmarks.profile.model.queueing import PipelineModel
from benchmarks.profile.model.simulation import simulate
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.base.errors import FourfoldError
from pipelines.base.machine import num_cores
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.decode.choice import choose_backend
from pipelines.shards.format.manifest import load_manifest
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
    """A possible change. settings: overrides of a ProfileConfig by dotted name. stored: how the shards would have to be
    stored, for `apply`. changes_batches: whether training would see other numbers.
    """

    name: str
    stage: str
    text: str
    change: Callable[[PipelineModel], PipelineModel] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, Any] = field(default_factory=dict)
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
    if share["decode"] >= WORTH_A_LOOK_RATIO:
        options += _decode_options(measured, device)
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
            stored={"in_memory": True},
        )


def _decode_options(measured: Measurements, device: torch.device) -> Iterator[Option]:
    config = measured.config.pipeline
    if "decode image" in measured.costs:
        yield from _image_options(config, device)
    if "decode clip" in measured.costs and stored_codec(config) == "vp9":
        # Only from VP9: of the two codecs that shards are built with, MJPEG is the one that decodes faster.
        decode_s = alternatives.cost_with_codec(config, "mjpeg", device)
        text = "store the clips as MJPEG instead of VP9: about twice the bytes"
        yield _decode_option("codec", text, "clip", decode_s=decode_s, stored={"codec": "mjpeg"})


def _image_options(config: PipelineConfig, device: torch.device) -> Iterator[Option]:
    # 1. Known from the configuration: one decode instead of several.
    if not config.share_decode and sum(TASKS[name].source == "image" for name in config.tasks) > 1:
        text = "share_decode: true, one decoded canvas for all image tasks"
        yield _decode_option("share_decode", text, None, num_decodes=1, settings={"pipeline.share_decode": True})
    # 2. Measured, but only if the stored images are clearly larger than the smallest crop needs.
    needed, found = alternatives.needed_short_side_px(config), alternatives.short_side_px(config)
    if found >= OVERSIZE_RATIO * needed:
        decode_s = alternatives.cost_with_small_images(config, needed, device)
        text = f"store images with a short side of {needed} px instead of {found:.0f}: all that the canvas shows"
        yield _decode_option("small_images", text, "image", decode_s=decode_s, stored={"short_side_px": needed})
    # 3. Measured, if it is installed: the other backend.
    used = choose_backend(config.backend, device).name
    other: Literal["dali", "opencv"] = "dali" if used == "opencv" else "opencv"
    try:
        decode_s = alternatives.cost_with_backend(config, other, ALTERNATIVE_S, device)
    except FourfoldError:
        return  # DALI is not installed
    text = f"backend: {other} instead of {used}"
    yield _decode_option("backend", text, "image", decode_s=decode_s, settings={"pipeline.backend": other})


def _decode_option(
    name: str, text: str, kind: str | None, *, settings: Any = None, stored: Any = None, **feeds: Any
) -> Option:
    """Return an option of the decode stage. `feeds`: what changes in the model's feeds of a kind."""
    return Option(
        name=name,
        stage="decode",
        text=text,
        change=lambda model: model.with_feeds(kind, **feeds),
        settings=settings or {},
        stored=stored or {},
        changes_batches=True,
    )


def _motion_options(config: PipelineConfig, device: torch.device) -> Iterator[Option]:
    task: Any = config.tasks[MOTION]
    size, setting = config.clip_batch_size, f"pipeline.tasks.{MOTION}"
    # 1. Masks were tuned with DIS, so it has nothing better than itself. The GPU's flow unit costs the CPU less.
    if task.engine in ("farneback", "raft"):
        flow_s = alternatives.motion_cost_with(config, {"engine": "dis"}, ALTERNATIVE_S, device) * size
        yield Option(
            name="flow_engine",
            stage=MOTION,
            text=f"tasks.{MOTION}.engine: dis instead of {task.engine}",
            change=lambda model: model.with_task(MOTION, flow_s),
            settings={f"{setting}.engine": "dis"},
            changes_batches=True,
        )
    # 2. A cache that holds fewer clips than an epoch has drops each before it comes again.
    sources = config.sources_of("clip")
    num_clips = sum(len(load_manifest(source.path).select("clip", config.split)) for source in sources)
    num_clips *= 2 if 0 < config.flip_probability < 1 else 1  # a mirrored clip is another one
    if task.remembered_clips < num_clips:
        # Two costs change: of a clip whose target is cached, only one frame is decoded.
        decode_s, motion_s = alternatives.cost_with_targets_cached(config, device)
        yield Option(
            name="remember",
            stage=MOTION,
            text=f"tasks.{MOTION}.remembered_clips: {num_clips}; helps from the second epoch on",
            change=lambda model: model.with_feeds("clip", decode_s=decode_s).with_task(MOTION, motion_s * size),
            settings={f"{setting}.remembered_clips": num_clips},
        )


def stored_codec(config: PipelineConfig) -> str:
    """Return the codec of the first clip, as PyAV calls it."""
    with build_pipeline(config, seed=0) as pipeline:
        source = source_of(pipeline, "clip")
        encoded = source.reader.read(int(source.plan.picks(0).rows[0]))
        with av.open(io.BytesIO(encoded), mode="r") as container:
            return str(container.streams.video[0].codec_context.name)
