"""The trainer on a device: seconds of a step for each task of a recipe, plain and compiled, and its wait for data."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.harness.spread import spread_of
from benchmarks.harness.turns import Job, time_in_turns
from benchmarks.profile.measure.consumers import wait_for
from benchmarks.recipe_files import find_recipe
from benchmarks.studies.gpu.gpu_checks import Sizes
from pipelines.build import build_pipeline
from training.config import PretrainConfig
from training.parallel import Ranks
from training.session import Session
from training.speed.compiled import compiled_forward

__all__ = ["data_wait", "recipe_config", "recipe_tasks", "step_time"]

STEPS_PER_REPEAT = 4
NUM_STREAMED_STEPS = 24


def recipe_config(
    shards: Path, sizes: Sizes, tasks: Mapping[str, Any] | None = None, *, is_small: bool
) -> PretrainConfig:
    """Return the recipe `paper` on these shards; `tasks` instead of its own, `is_small` with a small trunk."""
    value = _recipe()
    value["pipeline"] |= {"images": str(shards), "clips": str(shards)}
    value["pipeline"] |= {"batch_size": sizes.batch_size, "clip_batch_size": sizes.clip_batch_size}
    value["held_out"] = None
    if is_small:
        # One grid an image on the common canvas: four need a canvas that small images do not fill.
        value["pipeline"]["tasks"] = recipe_tasks(is_small=True)
        value["pipeline"] |= {
            "canvas_px": sizes.canvas.canvas_px,
            "clip_height_px": sizes.canvas.clip_height_px,
            "clip_width_px": sizes.canvas.clip_width_px,
            "num_frames": sizes.canvas.num_frames,
        }
        value |= {"trunk": {"depth": 18, "width": 0.25}, "heads": {"preset": "small"}}
    if tasks is not None:
        value["pipeline"]["tasks"] = dict(tasks)
    return PretrainConfig.model_validate(value)


def recipe_tasks(*, is_small: bool) -> dict[str, Any]:
    """Return the options of the recipe's tasks."""
    tasks: dict[str, Any] = _recipe()["pipeline"]["tasks"]
    return tasks | ({"relative_position": {}} if is_small else {})


def _recipe() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(find_recipe("paper", "pretrain").read_text(encoding="utf-8"))
    return value


@contextmanager
def _session(config: PretrainConfig, device: torch.device) -> Iterator[Session]:
    with (
        build_pipeline(config.pipeline, seed=0, device=device) as pipeline,
        closing(Session(config, pipeline, Ranks(), device)) as session,
    ):
        yield session


def step_time(
    config: PretrainConfig, device: torch.device, num_repeats: int, *, backend: str | None = None
) -> dict[str, Any]:
    """Return seconds and samples of the trainer's step on batches that lie on the device; compiled by
    `backend`, if there is one."""
    with _session(config, device) as session:
        steps = [next(session.pipeline) for _ in range(STEPS_PER_REPEAT)]
        if backend is not None:
            session.updater.forward = compiled_forward(session.model, backend=backend)

        def learn() -> None:
            for step in steps:
                session.learn(step)
            wait_for(device)

        job = Job(unit="steps", num_items=len(steps), run=learn, prepare=lambda: wait_for(device))
        timed = time_in_turns({"step": job}, num_repeats)["step"]
        seconds = [one / len(steps) for one in timed.seconds]
        num_samples = sum(session.batch_sizes.values())
        return {
            "backend": backend,
            "step_s": dataclasses.asdict(spread_of(seconds)),
            "samples_per_s": num_samples / spread_of(seconds).median,
            "tflop_per_s": sum(session.flop.values()) / 1e12 / spread_of(seconds).median,
        }


def data_wait(config: PretrainConfig, device: torch.device, num_steps: int = NUM_STREAMED_STEPS) -> dict[str, Any]:
    """Return how long the trainer waits for its pipeline, with all tasks of the recipe, after some first steps."""
    with _session(config, device) as session:
        stream = session.steps()
        for step in islice(stream, config.pipeline.prefetch_batches + 2):
            session.learn(step)
        wait_for(device)
        session.meter.take(session.samples_seen)  # what was counted so far belongs to the start
        for step in islice(stream, num_steps):
            session.learn(step)
        wait_for(device)
        samples_per_s, data_wait_ratio = session.meter.take(session.samples_seen)
        return {"num_steps": num_steps, "samples_per_s": samples_per_s, "data_wait_ratio": data_wait_ratio}
