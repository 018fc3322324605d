"""Trunk, heads and lassos together: initial weights, routing, and what a task trains."""

import pytest
import torch

from tests.made.task_batches import MAKERS
from training.heads import HeadInput, HeadsConfig
from training.lasso import LassoConfig
from training.model import Model, build_model, build_trunk
from training.trunk import TrunkConfig

TINY = TrunkConfig(depth=18, width=0.125)


def model_of(*tasks: str, seed: int = 0, lasso: LassoConfig | None = None, norm: str = "shared", **options) -> Model:
    shapes = {}
    for task in tasks:
        *_, height, width = MAKERS[task]().inputs.shape
        shapes[task] = HeadInput(num_channels=32, height=-(-height // 8), width=-(-width // 8), num_labels=5)
    trunk = build_trunk(TrunkConfig.model_validate({"depth": 18, "width": 0.125, "norm": norm}), tasks, seed)
    return build_model(trunk, HeadsConfig(preset="small"), shapes, seed=seed, lasso=lasso, **options)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_the_trunk_starts_alike_whatever_the_tasks() -> None:
    assert same(model_of("exemplar").trunk, model_of("colorization", "relative_position").trunk)


def test_a_head_starts_alike_whatever_the_other_tasks() -> None:
    both = model_of("colorization", "exemplar").heads["exemplar"]
    assert same(model_of("exemplar").heads["exemplar"], both)


def test_the_global_random_state_neither_matters_nor_changes() -> None:
    torch.manual_seed(1)
    first, after_first = model_of("exemplar"), torch.rand(1)
    torch.manual_seed(1)
    without = torch.rand(1)
    assert same(first, model_of("exemplar"))
    assert torch.equal(after_first, without)


def test_seeds_differ() -> None:
    assert not same(model_of("exemplar").trunk, model_of("exemplar", seed=1).trunk)


@pytest.mark.parametrize("task", list(MAKERS))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_task_reaches_trunk_and_its_own_head_only(task: str, precision: str) -> None:
    model = model_of(*MAKERS, precision=precision)
    model(MAKERS[task]()).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters_of(task))
    touched = {name for name, parameter in model.heads.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in touched} == {task}


def test_bf16_is_close_to_fp32() -> None:
    batch = MAKERS["relative_position"](rows=8)
    exact, fast = (model_of("relative_position", precision=p)(batch).total for p in ("fp32", "bf16"))
    assert fast.dtype == torch.float32
    # Three digits of bf16 through some twenty layers.
    torch.testing.assert_close(fast, exact, rtol=0.1, atol=0.0)


def test_a_task_trains_trunk_head_and_lasso() -> None:
    model = model_of("colorization", "exemplar", lasso=LassoConfig())
    own = {id(parameter) for parameter in model.parameters_of("exemplar")}
    expected = [model.trunk, model.heads["exemplar"], model.lassos["exemplar"]]
    assert own == {id(parameter) for module in expected for parameter in module.parameters()}


def test_the_lasso_penalty_is_added_to_the_loss() -> None:
    batch = MAKERS["exemplar"]()
    light, heavy = (model_of("exemplar", lasso=LassoConfig(penalty=p))(batch).total for p in (0.0, 3.0))
    # Two units, weights of 1 / sqrt(2) each: L1 norm sqrt(2).
    assert (heavy - light).item() == pytest.approx(3 * 2**0.5, rel=1e-5)


def test_a_lasso_on_the_last_unit_is_no_lasso() -> None:
    batch = MAKERS["exemplar"]()
    model = model_of("exemplar", lasso=LassoConfig(penalty=0.0))
    model.lasso("exemplar").direction.data = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(model(batch).total, model_of("exemplar")(batch).total)


def test_lasso_weights_are_listed_per_task() -> None:
    weights = model_of("exemplar", "colorization", lasso=LassoConfig()).lasso_weights()
    assert set(weights) == {"exemplar", "colorization"}
    assert weights["exemplar"] == pytest.approx([0.5**0.5] * 2)
    assert model_of("exemplar").lasso_weights() == {}


def test_each_task_updates_its_own_batch_norm_statistics() -> None:
    model = model_of("exemplar", "colorization", norm="per_task")
    model(MAKERS["colorization"]())
    moved = {task: bool((model.trunk.statistics[task][0].mean != 0).any()) for task in ("exemplar", "colorization")}
    assert moved == {"exemplar": False, "colorization": True}


def test_patches_of_a_row_meet_in_the_head() -> None:
    model = model_of("relative_position").eval()
    batch = MAKERS["relative_position"](rows=3)
    seen: list[torch.Tensor] = []
    model.trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(batch)
    torch.testing.assert_close(seen[0], torch.stack([patch for pair in batch.inputs for patch in pair]))
