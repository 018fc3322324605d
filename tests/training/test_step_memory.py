"""Predicted memory against the allocations of a real step on the CPU, as torch's profiler records them."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pipelines.tasks.base import TaskBatch
from training.heads import HeadInput, HeadsConfig
from training.model import Model, build_model, build_trunk
from training.step_memory import step_memory
from training.trunk import TrunkConfig


def model_of(depth: int, side_px: int) -> Model:
    trunk = build_trunk(TrunkConfig.model_validate({"depth": depth, "width": 0.5}), (), 0)
    cells = -(-side_px // 8)
    shape = HeadInput(num_channels=trunk.num_channels, height=cells, width=cells, num_labels=4)
    model = build_model(trunk, HeadsConfig(preset="small"), {"supervised": shape}, seed=0)
    return model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def batch_of(count: int, side_px: int, device: str = "cpu") -> TaskBatch:
    return TaskBatch(
        task="supervised",
        inputs=torch.zeros(count, 3, side_px, side_px, device=device),
        target={"label": torch.zeros(count, dtype=torch.long, device=device)},
        weight=torch.ones(count, device=device),
        keys=tuple(str(index) for index in range(count)),
    )


def measured_peak(model: Model, batch: TaskBatch) -> int:
    """Bytes allocated on top of the model, the optimizer and the batch."""
    optimizer = torch.optim.RMSprop(model.parameters_of("supervised"))

    def step() -> None:
        model(batch).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()  # allocates the running averages
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize(("depth", "count", "side_px"), [(18, 8, 64), (26, 4, 96)])
def test_the_peak_of_a_step_is_predicted_within_15_percent(depth: int, count: int, side_px: int) -> None:
    model, batch = model_of(depth, side_px), batch_of(count, side_px)
    found = step_memory(model, batch)
    predicted = found.activation_bytes + found.gradient_bytes
    assert measured_peak(model, batch) == pytest.approx(predicted, rel=0.15)


def test_activations_grow_with_the_batch_and_nothing_else_does() -> None:
    model = model_of(10, 32)
    small, large = (step_memory(model, batch_of(count, 32, "meta")) for count in (4, 8))
    # Statistics of batch norm are kept, too, and do not grow.
    assert large.activation_bytes == pytest.approx(2 * small.activation_bytes, rel=0.02)
    assert large.batch_bytes == 2 * small.batch_bytes
    assert (
        large.parameter_bytes
        == small.parameter_bytes
        == sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    )
    assert large.total_bytes - small.total_bytes == (
        large.activation_bytes - small.activation_bytes + small.batch_bytes
    )


def test_optimizers_hold_an_average_per_task_and_weight() -> None:
    model, batch = model_of(10, 32), batch_of(4, 32, "meta")
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert step_memory(model, batch).optimizer_bytes == 4 * weights
    assert step_memory(model, batch, averages_per_weight=2).optimizer_bytes == 8 * weights
