"""One training step, and the averages for the log."""

import pytest
import torch

from pipelines.base.errors import FourfoldError
from tests.made.task_batches import MAKERS
from training.heads import HeadInput, HeadsConfig
from training.model import Model, build_model, build_trunk
from training.parallel import Ranks
from training.trunk import TrunkConfig
from training.updates.losses import Loss
from training.updates.optimizer import OptimizerConfig, build_optimizer
from training.updates.step import LossAverages, train_step

TASKS = ("relative_position", "exemplar")


def new_model(seed: int = 0) -> Model:
    shapes = {task: HeadInput(num_channels=32, height=5, width=5) for task in TASKS}
    trunk = build_trunk(TrunkConfig(depth=10, width=0.125), TASKS, seed)
    return build_model(trunk, HeadsConfig(preset="small"), shapes, seed=seed)


def optimizers_of(model: Model, **options) -> dict[str, torch.optim.Optimizer]:
    config = OptimizerConfig.model_validate({"lr": 1e-3, **options})
    return {task: build_optimizer(config, model.parameters_of(task)) for task in TASKS}


def weights_of(model: Model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Scaled(torch.nn.Module):
    """A model whose losses of one task are multiplied."""

    def __init__(self, model: Model, task: str, factor: float) -> None:
        super().__init__()
        self.model, self.task, self.factor = model, task, factor

    def forward(self, batch):
        loss = self.model(batch)
        return Loss(total=loss.total * self.factor) if batch.task == self.task else loss

    def parameters_of(self, task: str):
        return self.model.parameters_of(task)


def after_steps(num_steps: int, factor: float) -> torch.Tensor:
    model = new_model()
    optimizers = optimizers_of(model, momentum=0.0, eps=1e-20)
    for seed in range(num_steps):
        for task in TASKS:
            train_step(Scaled(model, "exemplar", factor), optimizers[task], MAKERS[task](seed=seed))  # type: ignore[arg-type]
    return weights_of(model)


@pytest.mark.parametrize("factor", [2.0**-7, 2.0**10])
def test_the_scale_of_one_tasks_loss_changes_nothing(factor: float) -> None:
    # A power of two keeps every rounding as it is, so that several steps can be compared exactly.
    assert torch.equal(after_steps(3, factor), after_steps(3, 1.0))


@pytest.mark.parametrize("factor", [1e-2, 1e3])
def test_any_other_scale_changes_rounding_only(factor: float) -> None:
    # One step: RMSProp makes full steps of gradients that are rounding noise, and later steps build on them.
    is_off = (after_steps(1, factor) - after_steps(1, 1.0)).abs() > 1e-4
    assert is_off.float().mean() < 0.01


def test_a_step_changes_the_trunk_and_the_tasks_head_only() -> None:
    model, before = new_model(), new_model()
    train_step(model, optimizers_of(model)["exemplar"], MAKERS["exemplar"]())
    changed = {
        name.split(".")[0] + "." + name.split(".")[1]
        for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(new, old)
    }
    assert "heads.exemplar" in changed
    assert "heads.relative_position" not in changed
    assert {"trunk.early", "trunk.units"} <= changed


def test_no_gradient_is_left_for_the_next_task() -> None:
    model = new_model()
    train_step(model, optimizers_of(model)["exemplar"], MAKERS["exemplar"]())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["rmsprop", "adamw"])
@pytest.mark.parametrize("task", TASKS)
def test_a_batch_can_be_learned_by_heart(task: str, name: str) -> None:
    torch.manual_seed(0)
    model = new_model()
    optimizer = optimizers_of(model, name=name)[task]
    batch = MAKERS[task](rows=6)
    losses = [train_step(model, optimizer, batch).total.item() for _ in range(40)]
    assert losses[-1] < losses[0] / 4


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
    # The other rank: a loss of 4 over a weight of 1, an accuracy of 0 over 2 rows.
    averages = LossAverages(beside([4.0, 0.0, 1.0, 2.0]))
    loss = Loss(
        total=torch.tensor(2.0),
        metrics={"accuracy": torch.tensor(0.6)},
        weight_sums={"accuracy": torch.tensor(4.0)},
    )
    averages.add("a", 0, loss, torch.tensor([1.0, 2.0]))
    assert averages.take()["a"] == pytest.approx({"loss": (3 * 2 + 1 * 4) / 4, "accuracy": 4 * 0.6 / 6})


def test_a_batch_without_weight_on_any_rank_has_the_loss_0() -> None:
    averages = LossAverages(beside([0.0, 1e-12]))
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
