"""The registry of heads and its configuration."""

import pytest
import torch

from pipelines.base.errors import UsageError
from pipelines.tasks import TASKS
from tests.made.task_batches import MAKERS
from training.heads import HEADS, HeadInput, HeadsConfig, build_head

SHAPE = HeadInput(num_channels=8, height=4, width=4, num_labels=5)


def test_every_task_has_a_head() -> None:
    assert set(HEADS) == set(TASKS)


@pytest.mark.parametrize("task", list(HEADS))
def test_loss_and_gradient_of_every_head_are_finite(task: str) -> None:
    batch = MAKERS[task]()
    *_, height, width = batch.inputs.shape
    shape = HeadInput(num_channels=8, height=-(-height // 8), width=-(-width // 8), num_labels=5)
    head = build_head(task, HeadsConfig(preset="small"), shape)
    patches = batch.inputs.shape[1] if batch.inputs.ndim == 5 else 1
    features = torch.rand(len(batch.inputs) * patches, 8, shape.height, shape.width, requires_grad=True)
    loss = head.loss(head(features), batch)
    loss.total.backward()
    assert loss.total.ndim == 0
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert all(not value.requires_grad and 0 <= value <= 1 for value in loss.metrics.values())


@pytest.mark.parametrize("task", list(HEADS))
def test_a_batch_of_weight_0_costs_nothing_and_teaches_nothing(task: str) -> None:
    batch = MAKERS[task]()
    batch.weight.zero_()
    *_, height, width = batch.inputs.shape
    shape = HeadInput(num_channels=8, height=-(-height // 8), width=-(-width // 8), num_labels=5)
    head = build_head(task, HeadsConfig(preset="small"), shape)
    patches = batch.inputs.shape[1] if batch.inputs.ndim == 5 else 1
    loss = head.loss(head(torch.rand(len(batch.inputs) * patches, 8, shape.height, shape.width)), batch)
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert all((p.grad is None) or (p.grad == 0).all() for p in head.parameters())


def test_a_task_without_a_head_is_refused() -> None:
    with pytest.raises(UsageError, match="rotation: no head of this name"):
        build_head("rotation", HeadsConfig(), SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exemplars": {}}, "no head named exemplars"),
        ({"exemplar": {"margins": 1}}, "Did you mean margin"),
        ({"exemplar": {"margin": -1}}, "greater than 0"),
        ({"relative_position": {"joint": "both"}}, "wide"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        HeadsConfig(options=options)
