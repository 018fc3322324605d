"""Budgets, and FLOPs against counting by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.tasks import TASKS, CanvasSpec
from tests.made.task_batches import MAKERS
from training.compute import BudgetConfig, count_flop, count_steps, dummy_batch
from training.heads import HeadInput, HeadsConfig
from training.model import Model, build_model, build_trunk
from training.trunk import TrunkConfig

TINY = TrunkConfig(depth=10, width=0.125)
CANVAS = CanvasSpec(canvas_px=64, clip_height_px=32, clip_width_px=48, num_frames=4)


def model_for(task: str, height: int, width: int) -> Model:
    shape = HeadInput(num_channels=32, height=-(-height // 8), width=-(-width // 8), num_labels=5)
    return build_model(build_trunk(TINY, (task,), 0), HeadsConfig(preset="small"), {task: shape}, seed=0)


@pytest.mark.parametrize("given", [{}, {"steps": 1, "samples": 2}, {"steps": 1, "samples": 2, "compute_tflop": 3}])
def test_a_budget_is_exactly_one_of_three(given) -> None:
    with pytest.raises(ValueError, match=f"{len(given)} of compute_tflop, samples and steps"):
        BudgetConfig.model_validate(given)


@pytest.mark.parametrize("given", [{"steps": 0}, {"samples": -1}, {"compute_tflop": 0}])
def test_an_empty_budget_is_refused(given) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        BudgetConfig.model_validate(given)


def test_steps_are_steps_whatever_they_cost() -> None:
    assert count_steps(BudgetConfig(steps=7), {"a": 100.0}, lambda step: ("a",), is_constant=True) == 7


@pytest.mark.parametrize(("total", "expected"), [(96, 2), (97, 3), (1, 1)])
def test_samples_are_summed_over_tasks(total: int, expected: int) -> None:
    cost = {"a": 32.0, "b": 16.0}
    for is_constant in (True, False):
        assert (
            count_steps(BudgetConfig(samples=total), cost, lambda step: ("a", "b"), is_constant=is_constant) == expected
        )


def test_steps_without_a_task_cost_nothing() -> None:
    active = [("a",), (), ("b",), ("a", "b"), ("a",)]
    steps = count_steps(BudgetConfig(samples=6), {"a": 1.0, "b": 2.0}, lambda step: active[step], is_constant=False)
    assert steps == 4


def test_two_tasks_get_half_the_steps_of_one_at_equal_compute() -> None:
    budget = BudgetConfig(compute_tflop=10)
    one = count_steps(budget, {"a": 0.25}, lambda step: ("a",), is_constant=True)
    two = count_steps(budget, {"a": 0.25, "b": 0.25}, lambda step: ("a", "b"), is_constant=True)
    assert (one, two) == (40, 20)


def test_flop_of_a_convolution_by_hand() -> None:
    class OneConvolution(torch.nn.Module):
        precision = "fp32"

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, batch):
            return type("Loss", (), {"total": self.conv(batch.inputs).sum()})

    batch = MAKERS["motion_segmentation"](rows=2, height_px=8, width_px=6)
    one_way = 2 * (2 * 8 * 6) * 5 * 3 * 9
    meta = batch.to("meta")
    # Forward, and the gradient of the weights; images need none.
    assert count_flop(OneConvolution(), meta) == 2 * one_way  # type: ignore[arg-type]


@pytest.mark.parametrize("task", list(MAKERS))
def test_shapes_alone_give_the_flop_of_the_real_thing(task: str) -> None:
    batch = MAKERS[task]()
    model = model_for(task, *batch.inputs.shape[-2:])
    with FlopCounterMode(display=False) as counter:
        model(batch).total.backward()
    assert count_flop(model, batch.to("meta")) == counter.get_total_flops() > 0


def test_flop_grow_with_the_batch() -> None:
    model = model_for("colorization", 32, 32)
    one, two = (count_flop(model, MAKERS["colorization"](rows=rows).to("meta")) for rows in (1, 2))
    assert two == 2 * one


def test_counting_leaves_the_model_alone() -> None:
    model = model_for("colorization", 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_flop(model, MAKERS["colorization"]().to("meta"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", list(TASKS))
def test_a_dummy_batch_of_every_task_goes_through_its_head(name: str) -> None:
    task = TASKS[name](TASKS[name].config_class(), CANVAS)
    batch = dummy_batch(task, 3)
    assert len(batch.keys) == 3
    assert count_flop(model_for(name, *batch.inputs.shape[-2:]), batch) > 0
