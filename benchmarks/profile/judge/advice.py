"""What could be changed, and how many samples per second that would give, by the fitted model.

Each piece of advice is a change of the configuration or of how the shards are stored, and the same change of the model.
What it would cost a stage is measured (alternatives.py) where it cannot be known from the configuration.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benchmarks.profile.judge.measurements import Measured
from benchmarks.profile.measure import alternatives
from benchmarks.profile.model.queueing import PipelineModel
from benchmarks.profile.model.simulation import simulate
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.base.errors import FourfoldError
from pipelines.base.machine import num_cores
from pipelines.decode.choice import choose_backend
from pipelines.shards.format.manifest import load_manifest
from training.parallel import choose_device

__all__ = ["Advice", "Option", "advise", "options_of", "settings_options"]

MANY_PREFETCHED = 16
MIN_GAIN = 1.03
"""Less is not worth a line, and below what the model knows."""
OVERSIZE_RATIO = 1.3
WORTH_A_LOOK_RATIO = 0.1
"""Alternatives of a stage are measured if it has more of a step's CPU seconds than that."""
ALTERNATIVE_S = 0.6
LUCAS_KANADE = {"engine": "lucas_kanade"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Something that could be changed. settings: overrides of a ProfileConfig by dotted name. stored: how the shards
    would have to be stored, for `apply`. changes_batches: whether training would see other numbers.
    """

    name: str
    stage: str
    text: str
    change: Callable[[PipelineModel], PipelineModel] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, Any] = field(default_factory=dict)
    changes_batches: bool = False

    def gain(self, model: PipelineModel) -> float:
        """Samples/s with the change over those without."""
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


def advise(measured: Measured, options: tuple[Option, ...]) -> tuple[Advice, ...]:
    """Those that help, the most helpful first."""
    before = measured.samples_per_s
    found = [
        Advice(
            option=option,
            before_samples_per_s=before,
            after_samples_per_s=before * option.gain(measured.model_here),
        )
        for option in options
    ]
    return tuple(sorted((one for one in found if one.gain >= MIN_GAIN), key=lambda one: -one.gain))


def options_of(measured: Measured) -> tuple[Option, ...]:
    """Everything that could be changed here. What has to be measured takes a second each."""
    config, model = measured.config, measured.model
    device = choose_device(config.device)
    options = [*settings_options(config, model)]
    share = {name: cpu_s / max(model.cpu_s, 1e-12) for name, cpu_s in model.cpu_by_stage().items()}
    if share["decode"] >= WORTH_A_LOOK_RATIO:
        options += _decode_options(measured, device)
    if share.get("motion_segmentation", 0.0) >= WORTH_A_LOOK_RATIO:
        options += _motion_options(measured, device)
    return tuple(options)


def settings_options(config: ProfileConfig, model: PipelineModel) -> tuple[Option, ...]:
    """What can be judged from the fitted model alone."""
    return *_queue_options(config), *_taking_options(config, model), *_reading_options(model)


def _queue_options(config: ProfileConfig) -> Iterator[Option]:
    threads = config.pipeline.num_threads or num_cores()
    if threads < num_cores():
        yield Option(
            name="threads",
            stage="threads",
            text=f"num_threads: {num_cores()} instead of {threads}",
            change=lambda model: replace(model, num_threads=num_cores()),
            settings={"pipeline.num_threads": num_cores()},
        )
    if config.pipeline.prefetch_batches < MANY_PREFETCHED:
        yield Option(
            name="prefetch",
            stage="prefetch",
            text=f"prefetch_batches: {MANY_PREFETCHED} instead of {config.pipeline.prefetch_batches}",
            change=lambda model: replace(model, prefetch_batches=MANY_PREFETCHED),
            settings={"pipeline.prefetch_batches": MANY_PREFETCHED},
        )


def _taking_options(config: ProfileConfig, model: PipelineModel) -> Iterator[Option]:
    if model.taking.transfer_s > 0 and not config.overlap_transfer:
        yield Option(
            name="overlap_transfer",
            stage="transfer",
            text="copy the next step's batches to the device while this step runs",
            change=lambda model: replace(model, taking=replace(model.taking, is_overlapped=True)),
            settings={"overlap_transfer": True},
        )


def _reading_options(model: PipelineModel) -> Iterator[Option]:
    if any(feed.wait_s > 0 for feed in model.feeds):
        yield Option(
            name="memory",
            stage="read",
            text="keep the shards where reading does not wait: in memory, or on a disk of this machine",
            change=_without_waits,
            stored={"in_memory": True},
        )


def _without_waits(model: PipelineModel) -> PipelineModel:
    return replace(model, feeds=tuple(replace(feed, waits_s=(0.0,)) for feed in model.feeds))


def _decode_options(measured: Measured, device: torch.device) -> Iterator[Option]:
    config = measured.config.pipeline
    if "decode image" in measured.costs:
        yield from _image_options(measured, device)
    if config.clips is not None and "decode clip" in measured.costs and stored_codec(measured.config) == "vp9":
        decode_s = alternatives.decode_with_codec(config, "mjpeg", device)
        yield Option(
            name="codec",
            stage="decode",
            text="store the clips as MJPEG instead of VP9: about twice the bytes",
            change=lambda model: model.with_decode("clip", decode_s),
            stored={"codec": "mjpeg"},
            changes_batches=True,
        )


def _image_options(measured: Measured, device: torch.device) -> Iterator[Option]:
    config = measured.config.pipeline
    if not config.share_decode and any(feed.num_decodes > 1 for feed in measured.model.feeds):
        yield Option(
            name="share_decode",
            stage="decode",
            text="share_decode: true, one decoded canvas for all image tasks",
            change=_decoded_once,
            settings={"pipeline.share_decode": True},
            changes_batches=True,
        )
    needed, found = alternatives.needed_short_side_px(config), alternatives.short_side_px(config)
    if found >= OVERSIZE_RATIO * needed:
        small_s = alternatives.decode_with_small_images(config, needed, device)
        yield Option(
            name="small_images",
            stage="decode",
            text=f"store images with a short side of {needed} px instead of {found:.0f}: all that the canvas shows",
            change=lambda model: model.with_decode("image", small_s),
            stored={"short_side_px": needed},
            changes_batches=True,
        )
    yield from _backend_options(measured, device)


def _backend_options(measured: Measured, device: torch.device) -> Iterator[Option]:
    config = measured.config.pipeline
    used = choose_backend(config.backend, device).name
    other: Any = "dali" if used == "opencv" else "opencv"
    try:
        decode_s = alternatives.decode_with_backend(config, other, ALTERNATIVE_S, device)
    except FourfoldError:
        return  # DALI is not installed
    yield Option(
        name="backend",
        stage="decode",
        text=f"backend: {other} instead of {used}",
        change=lambda model: model.with_decode("image", decode_s),
        settings={"pipeline.backend": other},
        changes_batches=True,
    )


def _decoded_once(model: PipelineModel) -> PipelineModel:
    return replace(model, feeds=tuple(replace(feed, num_decodes=1) for feed in model.feeds))


def _motion_options(measured: Measured, device: torch.device) -> Iterator[Option]:
    config = measured.config.pipeline
    task: Any = config.tasks["motion_segmentation"]
    size = config.clip_batch_size
    if task.engine in ("dis", "farneback"):
        flow_s = alternatives.motion_with(config, LUCAS_KANADE, ALTERNATIVE_S, device) * size
        preset = f" with preset {task.preset}" if task.engine == "dis" else ""
        yield Option(
            name="flow_engine",
            stage="motion_segmentation",
            text=f"tasks.motion_segmentation.engine: lucas_kanade instead of {task.engine}{preset}",
            change=lambda model: model.with_task("motion_segmentation", flow_s),
            settings={"pipeline.tasks.motion_segmentation.engine": "lucas_kanade"},
            changes_batches=True,
        )
    # A mirrored clip is another one.
    num_clips = count_clips(measured.config) * (2 if 0 < config.flip_probability < 1 else 1)
    if task.remembered_clips < num_clips:
        decode_s, motion_s = alternatives.motion_remembered(config, device)
        yield Option(
            name="remember",
            stage="motion_segmentation",
            text=f"tasks.motion_segmentation.remembered_clips: {num_clips}; helps from the second epoch on",
            change=lambda model: model.with_decode("clip", decode_s).with_task("motion_segmentation", motion_s * size),
            settings={"pipeline.tasks.motion_segmentation.remembered_clips": num_clips},
        )


def count_clips(config: ProfileConfig) -> int:
    sources = config.pipeline.sources_of("clip")
    return sum(len(load_manifest(source.path).select("clip", config.pipeline.split)) for source in sources)


def stored_codec(config: ProfileConfig) -> str:
    """Codec of the first clip, as PyAV calls it."""
    import io

    import av

    from benchmarks.profile.measure.stage_hooks import sources_of
    from pipelines.build import build_pipeline

    with build_pipeline(config.pipeline, seed=0) as pipeline:
        source = sources_of(pipeline)["clip"]
        encoded = source.reader.read(int(source.plan.picks(0).rows[0]))
        with av.open(io.BytesIO(encoded), mode="r") as container:
            return str(container.streams.video[0].codec_context.name)
