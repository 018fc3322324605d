"""Predictions from planted costs against the sum over a run's steps, walked one by one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.suite.costs.calibrate import pretrainings
from benchmarks.suite.costs.calibrate.pretrainings import PretrainingCosts, TaskCosts
from benchmarks.suite.costs.cost import NOTHING, Cost
from benchmarks.suite.graph import expand
from benchmarks.suite.stages import Stage
from pipelines.base.config import validate
from pipelines.build import active_tasks, build_pipeline
from tests.made.made_suites import made_suite
from training.config import PretrainConfig
from training.parallel import Ranks
from training.session import Session


def stages_of(folder: Path, **changes: Any) -> list[Stage]:
    given = {"depths": [10, 18, 34], "seeds": [0], "baselines": [], **changes}
    return [stage for stage in expand(made_suite(folder, **given)).stages if stage.kind == "pretrain"]


def plant(monkeypatch: pytest.MonkeyPatch, cost: Callable[[PretrainConfig], TaskCosts]) -> list[PretrainConfig]:
    """Measure nothing: a task costs what `cost` says. Returns the list of what was measured."""
    measured: list[PretrainConfig] = []

    def measure(config: PretrainConfig, device: torch.device) -> TaskCosts:
        measured.append(config)
        return cost(config)

    monkeypatch.setattr(pretrainings, "measure_task", measure)
    monkeypatch.setattr(pretrainings, "warm_up", lambda config, device: None)
    return measured


def calibrated(stages: list[Stage]) -> PretrainingCosts:
    costs = PretrainingCosts(stages)
    for measure in costs.measurements(torch.device("cpu")).values():
        measure()
    return costs


def session_of(stage: Stage) -> Session:
    config = validate(PretrainConfig, stage.config, source="test")
    with build_pipeline(config.pipeline, seed=0) as pipeline:
        return Session(config, pipeline, Ranks(), torch.device("cpu"))


def test_a_run_costs_its_steps_each_the_sum_of_its_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretrain = {
        "trunk": {"width": 0.25},
        "budget": {"compute_tflop": 0.02},
        "held_out": "off",
        "pipeline": {"canvas_px": 64, "batch_size": 4, "tasks": {"exemplar": {"task_weight": 0.4}}},
    }
    stages = stages_of(tmp_path, pretrain=pretrain, task_sets=[["exemplar", "colorization"]])
    sessions = {stage.key: session_of(stage) for stage in stages}
    # By the FLOPs of the measured trunk and task: a line through the ends gives depth 18 exactly.
    flop = {
        (name, session.config.trunk.depth): value
        for session in sessions.values()
        for name, value in session.flop.items()
    }
    per_tflop = {"exemplar": 1e3, "colorization": 2e3}

    def cost(config: PretrainConfig) -> TaskCosts:
        (name,) = config.pipeline.tasks
        step = Cost(flop[name, config.trunk.depth] / 1e12 * per_tflop[name], 0.0)
        return TaskCosts(step=step, step_again=step, held_out_batch=NOTHING, beginning=Cost(0.25, 0.0))

    measured = plant(monkeypatch, cost)
    costs = calibrated(stages)
    # Each task by itself, on the smallest and the largest trunk; no combination is measured.
    assert {(*one.pipeline.tasks, one.trunk.depth) for one in measured} == {
        *(("colorization", depth) for depth in (10, 34)),
        *(("exemplar", depth) for depth in (10, 34)),
    }
    assert len(measured) == 4
    for stage in stages:
        session = sessions[stage.key]
        expected = 0.25 * len(session.flop)
        for step in range(session.num_steps):
            active = active_tasks(session.config.pipeline, session.config.seed, step)
            expected += sum(session.flop[name] / 1e12 * per_tflop[name] for name in active)
        assert costs.cost_of(stage).cpu_s == pytest.approx(expected, rel=1e-6)


def test_options_of_other_tasks_make_no_measurement_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = TaskCosts(step=NOTHING, step_again=NOTHING, held_out_batch=NOTHING, beginning=NOTHING)
    measured = plant(monkeypatch, lambda config: nothing)
    pretrain = {"trunk": {"width": 0.25}, "budget": {"steps": 2}, "heads": {"options": {"exemplar": {}}}}
    calibrated(stages_of(tmp_path, pretrain=pretrain, axes={"pretrain.optimizer.lr": [0.1, 0.2]}, depths=[10]))
    assert len(measured) == 2


def test_held_out_samples_are_measured_as_often_as_the_run_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batch = TaskCosts(step=NOTHING, step_again=NOTHING, held_out_batch=Cost(1.0, 1.0), beginning=NOTHING)
    plant(monkeypatch, lambda config: batch)
    held_out = {"samples": 8, "times": 3}
    pretrain = {
        "budget": {"steps": 60},
        "held_out": held_out,
        "pipeline": {"canvas_px": 64, "batch_size": 4},
        "trunk": {"width": 0.25},
    }
    (stage,) = stages_of(tmp_path, pretrain=pretrain, task_sets=["exemplar"], depths=[10])
    # 60 steps: at most 60 / (10 * 3) = 2 batches each time; 8 samples are 2 batches.
    assert calibrated([stage]).cost_of(stage) == Cost(6.0, 6.0)


@pytest.mark.parametrize("flip", [0.5, 0.2, 0.0])
def test_share_of_new_targets_is_that_of_drawn_clips(
    flip: float, small_shards: Callable[..., Path], tmp_path: Path
) -> None:
    clips, passes = small_shards(images=0, clips=40), 5
    pipeline = {"clips": str(clips), "flip_probability": flip, "clip_batch_size": 4}
    config = PretrainConfig(pipeline=pipeline | {"tasks": {"motion_segmentation": {}}}, budget={"steps": 50})
    share = pretrainings.share_of_new_targets(config, "motion_segmentation", passes * 40 / 4)
    is_flipped = np.random.default_rng(0).random((2000, 40, passes)) < flip
    num_new = is_flipped.any(axis=2).sum(axis=1) + (~is_flipped).any(axis=2).sum(axis=1)
    assert share == pytest.approx(num_new.mean() / (40 * passes), abs=0.01)
    # Without room for all of them, the cache forgets each before it comes again.
    small = {"motion_segmentation": {"remembered_clips": 10}}
    assert (
        pretrainings.share_of_new_targets(
            PretrainConfig(pipeline=pipeline | {"tasks": small}, budget={"steps": 50}), "motion_segmentation", 50
        )
        == 1.0
    )
