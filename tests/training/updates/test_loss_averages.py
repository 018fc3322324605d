"""Losses of many steps and ranks, averaged for the log."""

import pytest
import torch

from pipelines.base.errors import FourfoldError
from training.parallel import Ranks
from training.updates.loss_averages import LossAverages
from training.updates.losses import Loss

ONE = torch.ones(1)


def test_averages_are_means_since_the_last_look() -> None:
    averages = LossAverages(Ranks())
    for step, value in enumerate((1.0, 3.0)):
        loss = Loss(total=torch.tensor(value), metrics={"accuracy": torch.tensor(value / 10)})
        averages.add("a", step, loss, ONE)
    averages.add("b", 1, Loss(total=torch.tensor(5.0)), ONE)
    assert averages.take()["a"]["loss"] == 2.0
    averages.add("a", 2, Loss(total=torch.tensor(7.0), metrics={"accuracy": torch.tensor(1.0)}), ONE)
    assert averages.take() == {"a": {"loss": 7.0, "accuracy": 1.0}}


class BesideAnother(Ranks):
    """First of two ranks; the other one's sums are `other`."""

    def add_up(self, values: torch.Tensor) -> None:
        values += torch.tensor(self.other, dtype=values.dtype)  # type: ignore[attr-defined]


def beside(other: list[float]) -> Ranks:
    ranks = BesideAnother(world_size=2)
    object.__setattr__(ranks, "other", other)
    return ranks


def test_ranks_count_by_what_their_means_were_over() -> None:
    # The other rank: 4 as its part of the loss, an accuracy of 0 over 2 rows.
    averages = LossAverages(beside([4.0, 0.0, 1.0, 2.0]))
    loss = Loss(
        total=torch.tensor(2.0),
        metrics={"accuracy": torch.tensor(0.6)},
        weight_sums={"accuracy": torch.tensor(4.0)},
    )
    averages.add("a", 0, loss, torch.tensor([1.0, 2.0]))
    assert averages.take()["a"] == pytest.approx({"loss": (2 + 4) / 2, "accuracy": 4 * 0.6 / 6})


def test_a_batch_without_weight_on_any_rank_has_the_loss_0() -> None:
    averages = LossAverages(beside([0.0, 1.0]))
    averages.add("a", 0, Loss(total=torch.tensor(0.0)), torch.zeros(2))
    assert averages.take() == {"a": {"loss": 0.0}}


def test_a_loss_that_is_not_finite_on_the_other_rank_is_an_error_here() -> None:
    averages = LossAverages(beside([1.0, 1.0, float("nan"), 1.0]))
    for step in (7, 8):
        averages.add("a", step, Loss(total=torch.tensor(1.0)), ONE)
    with pytest.raises(FourfoldError, match="a: the loss is not a finite number at step 8"):
        averages.check()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_task_and_first_step(value: float) -> None:
    averages = LossAverages(Ranks())
    for step, loss in enumerate((1.0, value, value)):
        averages.add("good", step, Loss(total=torch.tensor(1.0)), ONE)
        averages.add("bad", step, Loss(total=torch.tensor(loss)), ONE)
    with pytest.raises(FourfoldError, match="bad: the loss is not a finite number at step 1"):
        averages.check()
