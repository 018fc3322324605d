"""Batches of a pipeline in two parts without a common sample: to fit probes, and to judge them."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from pipelines.base.errors import UsageError
from pipelines.build import Pipeline, PipelineConfig, build_pipeline
from pipelines.shards.format.manifest import Kind
from pipelines.tasks import TASKS
from pipelines.tasks.base import TaskBatch
from training.diagnostics.held_out import first_batches, num_batches_of

__all__ = ["Part", "parts_of"]

HELD_OUT_SPLIT = "val"
MOST_PER_BATCH: dict[Kind, int] = {"image": 32, "clip": 8}
"""Larger batches would only take memory."""
FEWEST_SAMPLES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A batch, and whether its samples are held out."""

    batch: TaskBatch
    is_held_out: bool


def parts_of(config: PipelineConfig, kind: Kind, num_samples: int, *, seed: int, augment: bool) -> Iterator[Part]:
    """Yield every task's batches of a kind: `num_samples` samples to fit probes, then as many held-out ones.

    Held-out samples are those of split val; where there is none, others of the training split. Where there are fewer,
    all are used. Raises UsageError for fewer than 4.
    """
    config = _of_kind(config, kind)
    with ExitStack() as opened:
        training = opened.enter_context(build_pipeline(config, seed=seed, augment=augment))
        held_out = _held_out(config, seed=seed, augment=augment)
        if held_out is not None:
            opened.enter_context(held_out)
            for pipeline in (training, held_out):
                num_batches = num_batches_of(pipeline, num_samples)
                for batch in first_batches(pipeline, num_batches):
                    yield Part(batch=batch, is_held_out=pipeline is held_out)
            return
        # 1. Without another split: batches that hold at most half of the samples each.
        num_there = training.plans[kind].num_samples
        if num_there < FEWEST_SAMPLES:
            raise UsageError(f"{kind}s: {num_there} samples in split {config.split}; need at least {FEWEST_SAMPLES}.")
        size = min(config.batch_size_of(kind), num_there // 2)
        if size < config.batch_size_of(kind):
            config = config.model_copy(update={"batch_size": size, "clip_batch_size": size})
            training = opened.enter_context(build_pipeline(config, seed=seed, augment=augment))
        # 2. One pass sees no sample twice: its first half is for fitting, whole batches only.
        num_fit = min(-(-num_samples // size), num_there // size // 2)
        done = dict.fromkeys(training.tasks, 0)
        for batch in first_batches(training, dict.fromkeys(training.tasks, 2 * num_fit)):
            done[batch.task] += 1
            yield Part(batch=batch, is_held_out=done[batch.task] > num_fit)


def _of_kind(config: PipelineConfig, kind: Kind) -> PipelineConfig:
    """The same with the tasks of one kind, in threads of this process, in batches of moderate size."""
    own = {name: options for name, options in config.tasks.items() if TASKS[name].source == kind}
    # Every task looks at all samples here.
    tasks = {name: options.model_copy(update={"batch_size": None}) for name, options in own.items()}
    sizes = {
        "batch_size": min(config.batch_size, MOST_PER_BATCH["image"]),
        "clip_batch_size": min(config.clip_batch_size, MOST_PER_BATCH["clip"]),
    }
    return config.in_threads().model_copy(update={"tasks": tasks, "prefetch_batches": 1, **sizes})


def _held_out(config: PipelineConfig, *, seed: int, augment: bool) -> Pipeline | None:
    if config.split == HELD_OUT_SPLIT:
        return None
    try:
        return build_pipeline(config.model_copy(update={"split": HELD_OUT_SPLIT}), seed=seed, augment=augment)
    except UsageError:
        # The training split was built before, so all else is right: there is no such split.
        return None
