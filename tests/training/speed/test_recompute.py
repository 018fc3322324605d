"""Activation checkpointing: less memory, and nothing else is different, to the bit."""

import copy

import pytest
import torch

from tests.training.test_step_memory import batch_of, measured_peak, model_of
from training.step_memory import step_memory
from training.trunk import Trunk, TrunkConfig


@pytest.mark.parametrize(
    "options", [{"depth": 10}, {"depth": 26}, {"depth": 18, "statistics": "per_task"}, {"arch": "timm:resnet18"}]
)
def test_gradients_features_and_statistics_are_equal_to_the_bit(options) -> None:
    width = {} if "arch" in options else {"width": 0.125}
    plain = Trunk(TrunkConfig(**options, **width), ("a", "b")).train()
    saving = copy.deepcopy(plain)
    saving.recompute = True
    images = torch.rand(4, 3, 32, 32)
    for trunk in (plain, saving):
        for task in ("a", "b"):
            trunk.use_statistics(task)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = trunk(images)
            sum(unit.float().square().mean() for unit in output.units).backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    buffers = dict(saving.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in plain.named_buffers())
    assert any("num_batches_tracked" in name for name in buffers)


def test_the_peak_of_a_step_falls() -> None:
    model, batch = model_of(26, 96), batch_of(4, 96)
    predicted = step_memory(model, batch).activation_bytes
    usual = measured_peak(model, batch)
    model.trunk.recompute = True
    assert measured_peak(model, batch) < 0.6 * usual
    # What is predicted leaves out the unit that is being computed again.
    assert step_memory(model, batch).activation_bytes < 0.5 * predicted


def test_evaluation_computes_once() -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125)).eval()
    trunk.recompute = True
    calls = []
    trunk.units[0].register_forward_hook(lambda *_: calls.append(1))
    trunk(torch.rand(1, 3, 32, 32)).last.sum().backward()
    assert calls == [1]
