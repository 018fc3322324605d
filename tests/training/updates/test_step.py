"""The ways to update: against plain loops, and by hand on two quadratics."""

import copy

import numpy as np
import pytest
import torch

from pipelines.tasks.base import TaskConfig
from tests.made.task_batches import MAKERS
from tests.made.two_quadratics import TwoQuadratics, pulling
from training.heads import HeadInput, HeadsConfig
from training.model import Model, build_model, build_trunk
from training.trunk import TrunkConfig
from training.updates.losses import Loss
from training.updates.optimizer import OptimizerConfig
from training.updates.step import Updater
from training.updates.trunk_average import EmaConfig

TASKS = ("relative_position", "exemplar")
LR = 1e-3


def new_model(seed: int = 0) -> Model:
    shapes = {task: HeadInput(num_channels=32, height=5, width=5) for task in TASKS}
    trunk = build_trunk(TrunkConfig(depth=10, width=0.125), TASKS, seed)
    return build_model(trunk, HeadsConfig(preset="small"), shapes, seed=seed)


def updater_of(model, *, task_options=None, optimizer=None, **options) -> Updater:
    tasks = {task: TaskConfig(**(task_options or {}).get(task, {})) for task in model.heads}
    return Updater(model, tasks, optimizer=OptimizerConfig.model_validate({"lr": LR} | (optimizer or {})), **options)


def weights_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def take_steps(updater: Updater, steps, lr: float = LR) -> None:
    for index, batches in enumerate(steps):
        for batch in batches:
            updater.take(batch, lr)
        updater.finish(index, lr)


def random_steps(num_steps: int):
    return [[MAKERS[task](seed=seed) for task in TASKS] for seed in range(num_steps)]


# The default, with the networks of a run.


@pytest.mark.parametrize("name", ["rmsprop", "adamw"])
def test_the_default_is_a_plain_loop_with_an_optimizer_per_task_to_the_bit(name: str) -> None:
    model, plain = new_model(), new_model()
    take_steps(updater_of(model, optimizer={"name": name, "weight_decay": 0.1}), random_steps(3))
    optimizers = {}
    for task in TASKS:
        parameters = [*plain.trunk.parameters(), *plain.heads[task].parameters()]
        groups = [
            {"params": [one for one in parameters if one.ndim > 1], "weight_decay": 0.1},
            {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizers[task] = (
            torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.99), eps=1e-8)
            if name == "adamw"
            else torch.optim.RMSprop(groups, lr=LR, alpha=0.99, eps=1e-8)
        )
    for batches in random_steps(3):
        for batch in batches:
            plain(batch).total.backward()
            optimizers[batch.task].step()
            optimizers[batch.task].zero_grad()
    assert torch.equal(weights_of(model), weights_of(plain))


class Scaled(torch.nn.Module):
    """A model whose losses of one task are multiplied."""

    def __init__(self, model: Model, task: str, factor: float) -> None:
        super().__init__()
        self.model, self.task, self.factor = model, task, factor
        self.trunk, self.heads = model.trunk, model.heads

    def forward(self, batch):
        loss = self.model(batch)
        return Loss(total=loss.total * self.factor) if batch.task == self.task else loss

    def parameters_of(self, task: str):
        return self.model.parameters_of(task)


def after_steps(num_steps: int, factor: float, way: str) -> torch.Tensor:
    model = new_model()
    scaled = Scaled(model, "exemplar", factor)
    take_steps(updater_of(scaled, optimizer={"momentum": 0.0, "eps": 1e-20}, way=way), random_steps(num_steps))
    return weights_of(model)


@pytest.mark.parametrize("way", ["per_task", "summed"])
@pytest.mark.parametrize("factor", [2.0**-7, 2.0**10])
def test_the_scale_of_one_tasks_loss_changes_nothing(factor: float, way: str) -> None:
    # A power of two keeps every rounding as it is, so that several steps can be compared exactly.
    assert torch.equal(after_steps(3, factor, way), after_steps(3, 1.0, way))


@pytest.mark.parametrize("factor", [1e-2, 1e3])
def test_any_other_scale_changes_rounding_only(factor: float) -> None:
    # One step: RMSProp makes full steps of gradients that are rounding noise, and later steps build on them.
    is_off = (after_steps(1, factor, "per_task") - after_steps(1, 1.0, "per_task")).abs() > 1e-4
    assert is_off.float().mean() < 0.01


@pytest.mark.parametrize("way", ["per_task", "summed", "joint"])
def test_a_step_changes_the_trunk_and_the_tasks_head_only(way: str) -> None:
    model, before = new_model(), new_model()
    take_steps(updater_of(model, way=way), [[MAKERS["exemplar"]()]])
    changed = {
        name.split(".")[0] + "." + name.split(".")[1]
        for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(new, old)
    }
    assert "heads.exemplar" in changed
    assert "heads.relative_position" not in changed
    assert {"trunk.early", "trunk.units"} <= changed


@pytest.mark.parametrize("way", ["per_task", "summed", "joint"])
def test_no_gradient_is_left_for_the_next_step(way: str) -> None:
    model = new_model()
    take_steps(updater_of(model, way=way), random_steps(1))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("task", "name"), [("exemplar", "rmsprop"), ("relative_position", "rmsprop_tf"), ("exemplar", "adamw")]
)
def test_a_batch_can_be_learned_by_heart(task: str, name: str) -> None:
    torch.manual_seed(0)
    updater = updater_of(new_model(), optimizer={"name": name, "lr": 1e-3})
    batch = MAKERS[task](rows=6)
    # TensorFlow's averages start at 1, far above these gradients' squares: its first steps are small.
    lr = 0.01 if name == "rmsprop_tf" else 1e-3
    losses = [updater.take(batch, lr).total.item() for _ in range(25)]
    assert losses[-1] < losses[0] / 2


# Two quadratics, by hand.

A, B = (3.0, 1.0), (1.0, -7.0)
ALPHA, EPS = 0.99, 1e-8


def rms_step(gradient: np.ndarray) -> np.ndarray:
    """RMSProp's first step at learning rate 1."""
    return gradient / (np.sqrt((1 - ALPHA) * gradient**2) + EPS)


def after_one(model: TwoQuadratics, updater: Updater, lr: float = 0.01) -> np.ndarray:
    take_steps(updater, [[pulling("a", A), pulling("b", B)]], lr)
    return model.w


def test_summed_adds_the_steps_of_both_tasks_at_the_same_weights() -> None:
    model = TwoQuadratics(a=1.0, b=100.0)
    start = model.w
    found = after_one(model, updater_of(model, way="summed"))
    steps = rms_step(start - A) + rms_step(100 * (start - B))
    np.testing.assert_allclose(found, start - 0.01 * steps, rtol=1e-6)
    assert model.heads["a"].item() == pytest.approx(3 - 0.01 * rms_step(np.array(2.0)), rel=1e-6)


def test_per_task_takes_the_second_gradient_at_the_changed_weights() -> None:
    model = TwoQuadratics(a=1.0, b=1.0)
    updater = updater_of(model)
    for lr in (0.01, 0.01):
        w = model.w
        before = {name: copy.deepcopy(one.state_dict()) for name, one in updater.optimizers.items()}
        after_one(model, updater, lr)
    # The second step, with the averages of the first: task a at w, task b where a left it.
    for task, goal in (("a", A), ("b", B)):
        square = before[task]["state"][0]["square_avg"].numpy().ravel()
        gradient = w - goal
        w = w - 0.01 * gradient / (np.sqrt(ALPHA * square + (1 - ALPHA) * gradient**2) + EPS)
    np.testing.assert_allclose(model.w, w, rtol=1e-5)


def test_joint_steps_along_the_sum_of_the_gradients() -> None:
    model = TwoQuadratics(a=1.0, b=2.0)
    start = model.w
    found = after_one(model, updater_of(model, way="joint", task_options={"b": {"lr_scale": 0.5}}))
    # In the trunk, lr_scale is the weight of the gradient; in the head, of the learning rate.
    np.testing.assert_allclose(found, start - 0.01 * rms_step((start - A) + 0.5 * 2 * (start - B)), rtol=1e-6)
    assert model.heads["b"].item() == pytest.approx(3 - 0.5 * 0.01 * rms_step(np.array(2.0)), rel=1e-6)


@pytest.mark.parametrize("way", ["per_task", "summed"])
def test_lr_scale_scales_a_tasks_steps(way: str) -> None:
    model = TwoQuadratics(a=1.0, b=1.0)
    take_steps(updater_of(model, way=way, task_options={"a": {"lr_scale": 0.25}}), [[pulling("a", A)]], 0.01)
    np.testing.assert_allclose(model.w, 1 - 0.25 * 0.01 * rms_step(np.array([1.0, 1.0]) - A), rtol=1e-6)


@pytest.mark.parametrize(("way", "times"), [("per_task", 2), ("summed", 1), ("joint", 1)])
def test_the_trunk_decays_once_a_step_but_with_per_task(way: str, times: int) -> None:
    model = TwoQuadratics(a=0.0, b=0.0)  # no gradient moves the trunk
    updater = updater_of(model, way=way, optimizer={"name": "adamw", "weight_decay": 0.5})
    np.testing.assert_allclose(after_one(model, updater), (1 - 0.01 * 0.5) ** times, rtol=1e-6)
    assert updater.counts.decay["trunk"] == pytest.approx(times * 0.01 * 0.5)
    assert updater.counts.decay["a"] == pytest.approx(0.01 * 0.5)
    assert (updater.counts.trunk, updater.counts.heads) == (times, {"a": 1, "b": 1})


def test_accumulated_batches_make_one_step_of_their_mean() -> None:
    accumulating, plain = TwoQuadratics(a=1.0), TwoQuadratics(a=1.0)
    updater = updater_of(accumulating, task_options={"a": {"accumulate": 2}})
    take_steps(updater, [[pulling("a", A)], [pulling("a", B)]])
    take_steps(updater_of(plain), [[pulling("a", A, B)]])
    np.testing.assert_allclose(accumulating.w, plain.w, rtol=1e-6)
    assert (updater.counts.trunk, updater.counts.heads) == (1, {"a": 1})


@pytest.mark.parametrize("way", ["per_task", "summed", "joint"])
def test_waiting_gradients_stay_out_of_other_tasks(way: str) -> None:
    both, alone = TwoQuadratics(a=1.0, b=1.0), TwoQuadratics(a=1.0, b=1.0)
    steps = [[pulling("a", A), pulling("b", B)]] * 2
    take_steps(updater_of(both, way=way, task_options={"a": {"accumulate": 3}}), steps)
    take_steps(updater_of(alone, way=way), [[pulling("b", B)]] * 2)
    assert torch.equal(both.trunk.w, alone.trunk.w)


def test_a_long_gradient_is_clipped_and_a_short_one_is_not() -> None:
    options = {"name": "rmsprop_tf", "eps": 1.0, "clip_norm": 1.0}
    clipped, short = TwoQuadratics(a=10.0), TwoQuadratics(a=0.01)
    for model in (clipped, short):
        torch.nn.init.ones_(model.heads["a"])  # no gradient of its own
        take_steps(updater_of(model, optimizer=options), [[pulling("a", A)]], 0.5)
    for model, gradient in ((clipped, -1.0), (short, -0.02)):
        square = 1 + (1 - ALPHA) * (gradient**2 - 1)
        np.testing.assert_allclose(model.w, [1 - 0.5 * gradient / np.sqrt(square + 1.0), 1.0], rtol=1e-5)


def test_pcgrad_takes_the_opposing_parts_out() -> None:
    # Gradients (1, 0) and (-1, 1): each loses its part along the other's. RMSProp's first step is 10 sign(gradient).
    model = TwoQuadratics(a=1.0, b=1.0)
    updater = updater_of(model, way="joint", balance="pcgrad", optimizer={"name": "rmsprop_tf", "eps": 1.0})
    take_steps(updater, [[pulling("a", (0.0, 1.0)), pulling("b", (2.0, 0.0))]], 1.0)
    first = np.array([1.0, 0.0]) + 1 / 2 * np.array([-1.0, 1.0])
    second = np.array([-1.0, 1.0]) + 1 / 1 * np.array([1.0, 0.0])
    gradient = first + second
    np.testing.assert_allclose(model.w, 1 - gradient / np.sqrt(1 + (1 - ALPHA) * (gradient**2 - 1) + 1), rtol=1e-5)


def test_pcgrad_leaves_tasks_that_agree_alone() -> None:
    plain, projected = TwoQuadratics(a=1.0, b=1.0), TwoQuadratics(a=1.0, b=1.0)
    steps = [[pulling("a", (3.0, 3.0)), pulling("b", (3.0, 2.0))]] * 3
    take_steps(updater_of(plain, way="summed"), steps)
    take_steps(updater_of(projected, way="summed", balance="pcgrad"), steps)
    assert torch.equal(plain.trunk.w, projected.trunk.w)


def test_uncertainty_weighs_losses_by_hand() -> None:
    model = TwoQuadratics(a=1.0, b=100.0)
    updater = updater_of(model, way="joint", balance="uncertainty", optimizer={"name": "rmsprop_tf", "eps": 1.0})
    take_steps(updater, [[pulling("a", A), pulling("b", B)]], 0.1)
    w, v = np.ones(2), 1.0
    gradients = {"a": w - A, "b": 100 * (w - B)}
    # Weights are 1 at first; log variances then move by their own gradients, 1/2 - loss.
    total = gradients["a"] + gradients["b"]
    np.testing.assert_allclose(model.w, w - 0.1 * total / np.sqrt(v + 0.01 * (total**2 - v) + 1), rtol=1e-4, atol=1e-6)
    losses = {"a": (w - A) @ (w - A) / 2 + 2, "b": 100 * (w - B) @ (w - B) / 2 + 2}
    assert updater.uncertainty is not None
    for task, weight in updater.uncertainty.weights().items():
        gradient = 0.5 - losses[task]
        moved = -0.1 * gradient / np.sqrt(v + 0.01 * (gradient**2 - v) + 1)
        assert weight == pytest.approx(np.exp(-moved), rel=1e-5)


def test_uncertainty_settles_at_twice_the_loss() -> None:
    model = TwoQuadratics(a=1.0)
    updater = updater_of(model, way="joint", balance="uncertainty", optimizer={"name": "adamw"})
    # Two points that no weight can be at once: the loss ends at 1/2 x the mean square distance to their middle.
    take_steps(updater, [[pulling("a", (0.0, 0.0), (4.0, 0.0))]] * 200, 0.05)
    assert updater.uncertainty is not None
    assert updater.uncertainty.weights()["a"] == pytest.approx(1 / (2 * 2.0), rel=0.02)


RESUMED = [
    {},
    {"way": "summed", "balance": "pcgrad", "optimizer": {"weight_decay": 0.1, "momentum": 0.5}},
    {"way": "joint", "balance": "uncertainty", "optimizer": {"name": "adamw"}},
    {"way": "summed", "ema": EmaConfig(decay=0.5), "optimizer": {"name": "rmsprop_tf", "momentum": 0.5}},
]


@pytest.mark.parametrize("options", RESUMED, ids=lambda options: "+".join(map(str, options)) or "default")
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_updater_resumes_to_the_bit(tmp_path, options, stop: int) -> None:
    options = options | {"task_options": {"a": {"accumulate": 3}}}
    rng = np.random.default_rng(0)
    steps = [[pulling(task, tuple(rng.normal(size=2))) for task in ("a", "b")] for _ in range(8)]

    def run(model, updater, first: int, last: int) -> None:
        for index in range(first, last):
            for batch in steps[index]:
                updater.take(batch, 0.1)
            updater.finish(index, 0.1)

    whole = TwoQuadratics(a=1.0, b=2.0)
    unbroken = updater_of(whole, **options)
    run(whole, unbroken, 0, 8)
    first = TwoQuadratics(a=1.0, b=2.0)
    killed = updater_of(first, **options)
    run(first, killed, 0, stop)
    torch.save({"model": first.state_dict(), "updater": killed.state_dict()}, tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    second = TwoQuadratics(a=1.0, b=2.0)
    second.load_state_dict(saved["model"])
    resumed = updater_of(second, **options)
    resumed.load_state_dict(saved["updater"])
    run(second, resumed, stop, 8)
    assert torch.equal(weights_of(second), weights_of(whole))
    assert resumed.counts == unbroken.counts
    if unbroken.average is not None:
        assert resumed.average is not None
        assert torch.equal(weights_of(resumed.average.trunk()), weights_of(unbroken.average.trunk()))
