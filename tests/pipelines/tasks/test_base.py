"""The records and arithmetic that all tasks share."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.base.errors import UsageError
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


def test_one_plane_seen_three_times_is_moved_once():
    plane = torch.rand(6, 1, 8, 8)
    moved = replace(batch(), inputs=plane.expand(-1, 3, -1, -1)).to("meta").inputs
    assert moved.shape == (6, 3, 8, 8)
    assert moved.stride() == (64, 0, 8, 1)
    assert moved.untyped_storage().nbytes() == plane.untyped_storage().nbytes()


@pytest.mark.cuda
def test_one_plane_seen_three_times_stays_one_on_the_gpu():
    pairs = torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1).view(2, 2, 3, 8, 8)
    moved = replace(batch(), inputs=pairs).to("cuda").inputs
    assert moved.untyped_storage().nbytes() == 4 * 64 * 4
    torch.testing.assert_close(moved.cpu(), pairs, rtol=0, atol=0)


@pytest.mark.cuda
def test_a_batch_on_the_host_is_complete():
    large = torch.rand(64, 3, 256, 256, device="cuda")
    for _ in range(20):
        large = large.flip(0)  # work that a copy that is not waited for would be behind
    moved = replace(batch(), inputs=large).to("cpu").inputs
    torch.testing.assert_close(moved.clone(), large.cpu(), rtol=0, atol=0)


def test_a_batch_that_is_there_already_is_not_copied():
    there = batch()
    assert there.to("cpu").inputs.data_ptr() == there.inputs.data_ptr()


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
