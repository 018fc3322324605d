"""Supervised head: the fourth stage in the paper preset, and unlabelled rows."""

import pytest
import torch

from pipelines.base.errors import UsageError
from pipelines.tasks.base import TaskBatch
from training.heads import HeadInput, HeadsConfig, build_head


def test_the_paper_preset_adds_the_14_94_million_weights_of_stage_4() -> None:
    with torch.device("meta"):
        shape = HeadInput(num_channels=1024, height=12, width=12, num_labels=1000)
        head = build_head("supervised", HeadsConfig(), shape)
    weights = sum(p.numel() for p in head.units.parameters() if p.ndim > 1)
    assert weights == pytest.approx(14.94e6, rel=1e-3)


@pytest.mark.parametrize("preset", ["paper", "small"])
def test_a_logit_per_class(preset: str) -> None:
    shape = HeadInput(num_channels=16, height=6, width=6, num_labels=5)
    head = build_head("supervised", HeadsConfig.model_validate({"preset": preset}), shape)
    assert head(torch.rand(2, 16, 6, 6)).shape == (2, 5)


def test_unlabelled_rows_count_for_nothing() -> None:
    head = build_head(
        "supervised", HeadsConfig(preset="small"), HeadInput(num_channels=8, height=2, width=2, num_labels=3)
    )
    batch = TaskBatch(
        task="supervised",
        inputs=torch.zeros(2, 3, 16, 16),
        target={"label": torch.tensor([2, -1])},
        weight=torch.tensor([1.0, 0.0]),
        keys=("a", "b"),
    )
    loss = head.loss(torch.eye(3)[[2, 0]], batch)
    assert loss.metrics["accuracy"].item() == 1.0
    torch.testing.assert_close(loss.total, torch.tensor(0.5514447))  # log(e + 2) - 1


def test_shards_without_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="the shards have 0 classes"):
        build_head("supervised", HeadsConfig(), HeadInput(num_channels=8, height=2, width=2))
