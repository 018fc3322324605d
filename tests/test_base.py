"""The records and arithmetic that all tasks share."""

import numpy as np
import pytest
import torch

from pipelines.errors import UsageError
from pipelines.tasks.base import TaskBatch, TaskConfig, check_fits, scaled_px, stack_geometry


def batch():
    return TaskBatch(
        task="rotation",
        inputs=torch.zeros(6, 3, 8, 8),
        target={"turn": torch.zeros(6, dtype=torch.int64)},
        weight=torch.ones(6),
        keys=("a", "b", "c"),
    )


def test_a_batch_prints_itself_short():
    assert repr(batch()) == "TaskBatch(rotation, inputs=(6, 3, 8, 8) float32, turn=(6,), keys=3)"


def test_a_moved_batch_keeps_everything_else():
    moved = batch().to("meta")
    assert {moved.inputs.device.type, moved.weight.device.type, moved.target["turn"].device.type} == {"meta"}
    assert (moved.task, moved.keys) == ("rotation", ("a", "b", "c"))


def test_geometry_is_stacked_by_name():
    stacked = stack_geometry([{"x": np.array([1, 2]), "y": np.float32(3)}, {"x": np.array([4, 5]), "y": np.float32(6)}])
    assert stacked["x"].tolist() == [[1, 2], [4, 5]]
    assert stacked["y"].tolist() == [3, 6]
    assert stacked["y"].dtype == np.float32
    assert stack_geometry([{}, {}]) == {} == stack_geometry([])


@pytest.mark.parametrize(("px", "canvas_px", "expected"), [(96, 256, 96), (96, 128, 48), (48, 96, 18), (7, 96, 3)])
def test_lengths_scale_with_the_canvas(px, canvas_px, expected):
    assert scaled_px(px, canvas_px) == expected


def test_a_layout_larger_than_the_canvas_is_refused():
    check_fits("exemplar", 96, 96, "")
    with pytest.raises(UsageError, match=r"tasks\.exemplar: .* at least 97 px, canvas_px is 96\. Lower it\."):
        check_fits("exemplar", 97, 96, "Lower it.")


@pytest.mark.parametrize("weight", [0, -0.5, 1.5])
def test_a_task_weight_is_a_chance_above_zero(weight):
    with pytest.raises(ValueError, match="task_weight"):
        TaskConfig(task_weight=weight)
