"""Costs of tasks against counts by hand and against each other."""

from typing import Any

import pytest

from training.config import PretrainConfig
from training.diagnostics.task_costs import TaskCost, task_costs


def costs(**tasks: dict[str, Any]) -> dict[str, TaskCost]:
    config = {
        "pipeline": {"canvas_px": 64, "batch_size": 4, "clip_batch_size": 2, "num_frames": 3, "tasks": tasks},
        "trunk": {"depth": 10, "width": 0.125},
        "heads": {"preset": "small"},
        "budget": {"steps": 1},
    }
    return {one.task: one for one in task_costs(PretrainConfig.model_validate(config))}


def test_a_sample_costs_in_proportion_to_its_grids() -> None:
    one, two = (costs(relative_position={"grids_per_image": count})["relative_position"] for count in (1, 2))
    assert (one.inputs_per_sample, two.inputs_per_sample) == (9, 18)
    assert two.gflop_per_sample == pytest.approx(2 * one.gflop_per_sample)
    assert one.samples_per_step == 4


def test_all_is_relative_to_colorization_beside_the_papers_hours() -> None:
    found = costs(colorization={}, exemplar={}, motion_segmentation={}, supervised={})
    assert found["colorization"].relative == 1
    ratio = found["exemplar"].gflop_per_sample / found["colorization"].gflop_per_sample
    assert found["exemplar"].relative == pytest.approx(ratio)
    assert found["exemplar"].paper_relative == pytest.approx(60 / 90)
    # Its epochs are of clips; labels are none of the paper's tasks.
    assert (found["motion_segmentation"].paper_gpu_hours, found["motion_segmentation"].paper_relative) == (400, None)
    assert found["supervised"].paper_gpu_hours is None


def test_without_colorization_nothing_is_relative() -> None:
    assert costs(exemplar={})["exemplar"].relative is None


def test_memory_of_a_step_grows_with_its_grids() -> None:
    one, two = (costs(relative_position={"grids_per_image": count})["relative_position"] for count in (1, 2))
    assert one.step_gib < two.step_gib < 2 * one.step_gib
