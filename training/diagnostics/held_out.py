"""Measure every task on held-out samples while a run trains, beside predictions that see no pixel.

Samples of another split, without augmentation, always the same ones. Each task's loss and metrics stand beside those of
its head's references: the best constant prediction, and the best one that knows only the place of a cell. A task whose
model is no better than they are on held-out samples has learned nothing that carries over, whatever its training loss.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from pydantic import Field

from pipelines.base.config import Config
from pipelines.build import Pipeline, PipelineConfig, build_pipeline
from pipelines.tasks.base import TaskBatch
from training.model import Model
from training.updates.losses import Loss

__all__ = [
    "HeldOut",
    "HeldOutConfig",
    "first_batches",
    "most_batches",
    "num_batches_of",
    "open_held_out",
    "problems_of",
    "unchanged_buffers",
]

MANY_PASSES = 50
"""Above this many passes over the same samples, a task may be learned by heart."""
LARGE_GAP = 2.0
"""Held-out loss / training loss from which on a task counts as learned by heart, if references do no worse."""

Values = dict[str, float]
Reference = Callable[[TaskBatch], Loss]


class HeldOutConfig(Config):
    """What is measured beside training. It changes no weight: a run with other values has the same result."""

    split: str = "val"
    """Split of the shards to measure on. Where the shards lack it, the run says so and measures nothing."""
    samples: int = Field(default=256, ge=1)
    """Images, and clips, measured each time. More is steadier; each costs a forward pass. Short runs measure fewer, at
    least a batch: a tenth of what they train on, over all measurements."""
    times: int = Field(default=10, ge=1)
    """Measurements of a run, evenly spread, the last one at its end. Each also decodes the samples again."""


class HeldOut:
    """Held-out samples of a run, and the references fitted to targets of its training samples."""

    def __init__(
        self, pipeline: Pipeline, references: Mapping[str, Mapping[str, Reference]], num_batches: Mapping[str, int]
    ) -> None:
        self._pipeline, self._references, self._num_batches = pipeline, references, num_batches

    def measure(self, model: Model, device: torch.device) -> dict[str, dict[str, Values]]:
        """Return task -> "model" or a reference's name -> "loss" and metrics, means over batches.

        Batches are normalised by their own statistics, as in training; every buffer of the model is put back.
        """
        sums: dict[tuple[str, str], list[Values]] = {}
        with torch.no_grad(), unchanged_buffers(model):
            for batch in first_batches(self._pipeline, self._num_batches):
                losses = {"model": model(batch.to(device))}
                losses |= {name: reference(batch) for name, reference in self._references[batch.task].items()}
                for name, loss in losses.items():
                    sums.setdefault((batch.task, name), []).append(_values(loss))
        found: dict[str, dict[str, Values]] = {}
        for (task, name), rows in sums.items():
            found.setdefault(task, {})[name] = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        return found

    def close(self) -> None:
        self._pipeline.close()


def open_held_out(
    config: HeldOutConfig, pipeline: PipelineConfig, model: Model, *, seed: int, num_steps: int
) -> HeldOut:
    """Return what measures a run of `num_steps`. Raises UsageError where the shards have no such split."""
    held_out = _unaugmented(pipeline, config.split, seed)
    # References see training targets only: fitted to held-out ones, they would know what they are asked.
    with _unaugmented(pipeline, pipeline.split, seed) as training:
        batches: dict[str, list[TaskBatch]] = {name: [] for name in training.tasks}
        for batch in first_batches(training, num_batches_of(training, config.samples)):
            batches[batch.task].append(batch)
    references = {name: model.head(name).references(found) for name, found in batches.items()}
    most = most_batches(config, num_steps)
    num_batches = {name: min(most, count) for name, count in num_batches_of(held_out, config.samples).items()}
    return HeldOut(held_out, references, num_batches)


def most_batches(config: HeldOutConfig, num_steps: int) -> int:
    """Return the batches of every task that one measurement of a run of `num_steps` has, at most."""
    return max(1, num_steps // (10 * config.times))


def num_batches_of(pipeline: Pipeline, num_samples: int) -> dict[str, int]:
    """Return how many batches of every task hold `num_samples` samples, at most those of one pass."""
    return {
        name: min(-(-num_samples // pipeline.plans[task.source].local_batch_size), pipeline.pass_steps[name])
        for name, task in pipeline.tasks.items()
    }


def first_batches(pipeline: Pipeline, num_batches: Mapping[str, int]) -> Iterator[TaskBatch]:
    """Yield the first `num_batches` of every task, from the start of the pipeline."""
    pipeline.restore(dict.fromkeys(pipeline.position(), 0))
    left = dict(num_batches)
    while any(left.values()):
        for name, batch in next(pipeline).batches.items():
            if left[name]:
                left[name] -= 1
                yield batch


def problems_of(task: str, training_loss: float, held_out: Mapping[str, Values], num_passes: float) -> Iterator[str]:
    """Yield what is wrong with a task's learning, a sentence each."""
    loss = held_out["model"]["loss"]
    blind = [name for name, values in held_out.items() if name != "model" and values["loss"] <= loss]
    if blind:
        yield (
            f"{task}: held-out loss {loss:.3f} is no better than the {blind[0]} prediction, which sees no pixel "
            f"({held_out[blind[0]]['loss']:.3f})."
        )
        if loss > LARGE_GAP * training_loss:
            yield (
                f"{task}: learned by heart: loss {training_loss:.3f} on training samples, {loss:.3f} on held-out ones. "
                "Use more samples or a smaller budget."
            )
    if num_passes > MANY_PASSES:
        yield (
            f"{task}: every sample was seen {num_passes:.0f} times; above {MANY_PASSES}, it may be learned by heart. "
            "Use more samples or a smaller budget."
        )


def _unaugmented(config: PipelineConfig, split: str, seed: int) -> Pipeline:
    # Threads of this process: worker processes would stay in memory between two measurements.
    changed = config.in_threads().model_copy(update={"split": split, "prefetch_batches": 1})
    return build_pipeline(changed, seed=seed, augment=False)


def _values(loss: Loss) -> Values:
    return {"loss": float(loss.total)} | {name: float(value) for name, value in loss.metrics.items()}


@contextmanager
def unchanged_buffers(model: Model) -> Iterator[None]:
    """Put every buffer back afterwards: measuring moves the running statistics of batch norm."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
