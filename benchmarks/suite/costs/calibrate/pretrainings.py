"""Cost of pretrainings: a few real steps of each task, on the smallest and on the largest trunk that learns it.

The rule. A step costs what its tasks cost, added up. A task's part is a straight line in the FLOPs of its batch,
through the two measured trunks. Where a task keeps its targets, steps on samples seen before are measured, too, and
counted as often as they come. A run costs its steps, its held-out measurements and its beginning. Combinations that
share a decode cost some per cent less than that; diagnostics, logs and checkpoints are not counted.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from benchmarks.suite.config.unread_options import without_unread_options
from benchmarks.suite.costs.calibrate.cost_line import CostLine, ends_of
from benchmarks.suite.costs.cost import NOTHING, Cost, Stopwatch, middle, watched
from benchmarks.suite.stages import Stage
from pipelines.base.config import validate
from pipelines.build import active_tasks, build_pipeline
from pipelines.shards.format.manifest import load_manifest
from pipelines.targets.color.harmonize import task_sees_lightness
from pipelines.tasks import TASKS
from training.compute import count_flop, dummy_batch
from training.config import PretrainConfig
from training.diagnostics.held_out import most_batches
from training.parallel import Ranks, cpu_threads
from training.session import Session, model_of, steps_of_budget
from training.speed.gpu_kernels import gpu_kernels

__all__ = ["PretrainingCosts", "TaskCosts", "measure_task", "share_of_new_targets", "warm_up"]

WARM_UP_STEPS, LEAST_STEPS, MOST_STEPS = 3, 4, 100
ENOUGH_S = 2.0
"""Seconds of measured steps: the step that crosses this is the last one."""
MOST_WALKED = 1000
"""Steps looked at to learn how often a task is active that is not in every step."""
NO_COST = frozenset({"seed", "budget", "checkpoint", "optimizer", "schedule", "log_every_steps", "diagnostics"})
"""Parts of a pretraining's configuration that a step's seconds do not depend on."""
TRUNK_SIZE = frozenset({"depth", "width", "weights", "run"})
"""Options of the trunk that FLOPs stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCosts:
    """What one task costs on one trunk. step: one batch, learned. held_out_batch: one batch, measured."""

    step: Cost
    step_again: Cost
    """The same on samples whose targets the task has kept; as `step` for a task that keeps none."""
    held_out_batch: Cost
    beginning: Cost
    """From the shards to the first step: pipeline, model, references of held-out losses."""


@dataclass(slots=True, kw_only=True)
class _Task:
    """A task under one configuration, on all trunks that learn it. By trunk: config, FLOPs of a batch, costs."""

    configs: dict[str, PretrainConfig] = field(default_factory=dict)
    flop: dict[str, float] = field(default_factory=dict)
    measured: dict[str, TaskCosts] = field(default_factory=dict)

    def cost(self, trunk: str, part: str) -> Cost:
        line = CostLine({self.flop[name]: getattr(costs, part) for name, costs in self.measured.items()})
        return line.at(self.flop[trunk])


class PretrainingCosts:
    """Costs of some stages of kind "pretrain". `measurements`: what to do first, by its name for people."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._tasks: dict[str, _Task] = {}
        for stage in stages:
            for name in stage.config["pipeline"]["tasks"]:
                config = _alone(stage, name)
                task, trunk = self._tasks.setdefault(_task_name(config), _Task()), _trunk_name(config)
                if trunk not in task.configs:
                    task.configs[trunk], task.flop[trunk] = config, _flop(config, name)

    def measurements(self, device: torch.device) -> dict[str, Callable[[], None]]:
        """Return what is to be measured: every task on its smallest and on its largest trunk."""
        found: dict[str, Callable[[], None]] = {}
        for task in self._tasks.values():
            for trunk in ends_of(task.flop):
                config = task.configs[trunk]
                (name,) = config.pipeline.tasks
                title = f"{name.replace('_', ' ')}, depth {config.trunk.depth}, width {config.trunk.width:g}"
                # Tasks under several configurations, such as axes over one of their options, have one title.
                number = sum(other.startswith(title) for other in found)
                found[f"{title} ({number + 1})" if number else title] = _measurement(task, trunk, device)
        return found

    def cost_of(self, stage: Stage) -> Cost:
        """Return what a stage costs, once everything is measured. An untrained trunk costs next to nothing."""
        names = list(stage.config["pipeline"]["tasks"])
        if not names:
            return NOTHING
        tasks = {name: self._tasks[_task_name(_alone(stage, name))] for name in names}
        config = validate(PretrainConfig, stage.config, source=stage.label)
        trunk = _trunk_name(config)
        # 1. Steps: how many, in how many of them each task is active, and how many see samples anew.
        num_steps = steps_of_budget(config, {name: task.flop[trunk] for name, task in tasks.items()})
        counts = _active_steps(config, num_steps)
        total = NOTHING
        for name, task in tasks.items():
            new = counts[name] * share_of_new_targets(config, name, counts[name])
            total += task.cost(trunk, "step") * new + task.cost(trunk, "step_again") * (counts[name] - new)
        # 2. The beginning, and the measurements of held-out samples on the way.
        for name, task in tasks.items():
            total += task.cost(trunk, "beginning")
            total += task.cost(trunk, "held_out_batch") * _num_held_out(config, name, num_steps)
        return total


def measure_task(config: PretrainConfig, device: torch.device) -> TaskCosts:
    """Measure a pretraining of one task: its beginning, a few real steps, one measurement of held-out samples."""
    with cpu_threads(config.cpu_threads), gpu_kernels(config.speed, device):
        watch = Stopwatch()
        with build_pipeline(config.pipeline, seed=config.seed, device=device) as pipeline:
            session = Session(config, pipeline, Ranks(), device)
            try:
                beginning = watch.read()
                step = _measure_steps(session, device, MOST_STEPS)
                step_again = step
                if any(task.targets is not None for task in pipeline.tasks.values()):
                    num_steps = session.step - WARM_UP_STEPS
                    pipeline.restore(dict.fromkeys(pipeline.position(), 0))
                    step_again = _measure_steps(session, device, num_steps)
                held_out_batch = _measure_held_out(session, device)
                return TaskCosts(step=step, step_again=step_again, held_out_batch=held_out_batch, beginning=beginning)
            finally:
                session.close()


def warm_up(config: PretrainConfig, device: torch.device) -> None:
    """Make one batch: that compiles what a task needs, once per installation and not once per run."""
    with build_pipeline(config.pipeline, seed=config.seed, device=device) as pipeline:
        next(pipeline)


def _measure_steps(session: Session, device: torch.device, most: int) -> Cost:
    stream = iter(session.pipeline)
    # 1. The first steps fill caches and compile kernels; and they empty what was made ahead of them.
    for _ in range(WARM_UP_STEPS):
        session.learn(next(stream))
    _wait_for(device)
    # 2. As many as it takes. On a GPU the host runs ahead, so that only all steps together can be timed.
    watch, steps = Stopwatch(), list[Cost]()
    while len(steps) < LEAST_STEPS or (len(steps) < most and watch.read().wall_s < ENOUGH_S):
        with watched(steps):
            session.learn(next(stream))
    _wait_for(device)
    return middle(steps) if device.type == "cpu" else watch.read() * (1 / len(steps))


def _measure_held_out(session: Session, device: torch.device) -> Cost:
    if session.held_out is None:
        return NOTHING
    watch = Stopwatch()
    session.held_out.measure(session.model, device)
    (name,) = session.pipeline.tasks
    return watch.read() * (1 / _batches_at_a_time(session.config, name, session.num_steps))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _measurement(task: _Task, trunk: str, device: torch.device) -> Callable[[], None]:
    def measure() -> None:
        if not task.measured:
            warm_up(task.configs[trunk], device)
        task.measured[trunk] = measure_task(task.configs[trunk], device)

    return measure


def _alone(stage: Stage, name: str) -> PretrainConfig:
    """Return a pretraining's configuration with one of its tasks, active in every step, and without diagnostics."""
    pipeline, source = stage.config["pipeline"], TASKS[name].source
    options = (
        pipeline["tasks"][name] | {"task_weight": 1.0} | ({"every": 1} if "every" in pipeline["tasks"][name] else {})
    )
    others = {"images": None} if source == "clip" else {"clips": None}
    alone = {**stage.config, "seed": 0, "pipeline": {**pipeline, **others, "tasks": {name: options}}}
    given = {key: value for key, value in alone.items() if key != "diagnostics"}
    # What another task of the set reads must not make this one look like another task.
    return without_unread_options(validate(PretrainConfig, given, source=stage.label))


def _task_name(config: PretrainConfig) -> str:
    kept = config.model_dump(mode="json", serialize_as_any=True, exclude=set(NO_COST))
    kept["trunk"] = {name: value for name, value in kept["trunk"].items() if name not in TRUNK_SIZE}
    return json.dumps(kept, sort_keys=True)


def _trunk_name(config: PretrainConfig) -> str:
    return config.trunk.model_dump_json()


def _flop(config: PretrainConfig, name: str) -> float:
    """Return the FLOPs of one batch of a task, as a run counts them."""
    pipeline = config.pipeline
    lightness = task_sees_lightness(pipeline.harmonize, name)
    task = TASKS[name](pipeline.tasks[name], pipeline.canvas, lightness=lightness)
    num_labels = max((_num_labels(str(one.path)) for one in pipeline.sources_of(task.source)), default=0)
    return count_flop(model_of(config, {name: task}, num_labels), dummy_batch(task, pipeline.batch_size_of_task(name)))


@lru_cache(maxsize=8)
def _num_labels(folder: str) -> int:
    return len(load_manifest(folder).labels)


@lru_cache(maxsize=8)
def _num_clips(folder: str, split: str) -> int:
    return sum(
        shard.num_samples for shard in load_manifest(folder).shards if shard.kind == "clip" and shard.split == split
    )


def _active_steps(config: PretrainConfig, num_steps: int) -> dict[str, float]:
    walked = min(num_steps, MOST_WALKED)
    counts = dict.fromkeys(config.pipeline.tasks, 0)
    for step in range(walked):
        for name in active_tasks(config.pipeline, config.seed, step):
            counts[name] += 1
    return {name: count * num_steps / walked for name, count in counts.items()}


def share_of_new_targets(config: PretrainConfig, name: str, num_steps: float) -> float:
    """Return the share of samples, 0 to 1, whose targets are not kept yet: a sample has one, and one mirrored."""
    pipeline = config.pipeline
    room = int(getattr(pipeline.tasks[name], "remembered_clips", 0))
    if not room:
        return 1.0
    num_clips = sum(_num_clips(str(one.path), pipeline.split) for one in pipeline.sources_of("clip"))
    passes, flipped = num_steps * pipeline.batch_size_of_task(name) / num_clips, pipeline.flip_probability
    # What is used longest ago goes first: a pass over more than there is room for finds nothing.
    if passes <= 1 or room < num_clips * (2 if 0 < flipped < 1 else 1):
        return 1.0
    return float(sum(1 - (1 - share) ** passes for share in (flipped, 1 - flipped)) / passes)


def _num_held_out(config: PretrainConfig, name: str, num_steps: int) -> int:
    """Return the batches of held-out samples that a run measures of a task, over all its measurements."""
    return 0 if config.held_out is None else config.held_out.times * _batches_at_a_time(config, name, num_steps)


def _batches_at_a_time(config: PretrainConfig, name: str, num_steps: int) -> int:
    assert config.held_out is not None
    whole = -(-config.held_out.samples // config.pipeline.batch_size_of(TASKS[name].source))
    return min(whole, most_batches(config.held_out, num_steps))
