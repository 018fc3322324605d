"""Pretraining configurations: what is refused, and every file in yaml/pretrain."""

from itertools import permutations
from pathlib import Path

import pytest

from pipelines.base.config import load_config, validate
from pipelines.base.errors import UsageError
from training.config import PretrainConfig

RECIPES = sorted((Path(__file__).parents[2] / "yaml" / "pretrain").glob("*.yaml"))


def config_of(**values) -> PretrainConfig:
    return validate(PretrainConfig, values, source="test.yaml")


def test_no_tasks_is_the_random_baseline_and_needs_no_budget() -> None:
    assert config_of().pipeline.tasks == {}


def test_tasks_need_a_budget() -> None:
    with pytest.raises(UsageError, match="budget is missing"):
        config_of(pipeline={"tasks": {"exemplar": {}}})


@pytest.mark.parametrize("value", [False, "off", None])
def test_lasso_can_be_off(value) -> None:
    assert config_of(lasso=value).lasso is None


def test_lasso_can_be_on() -> None:
    lasso = config_of(lasso={"penalty": 0.5}).lasso
    assert lasso is not None
    assert lasso.penalty == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trunk": {"dept": 18}}, "unknown key trunk.dept. Did you mean depth"),
        ({"precision": "fp16"}, "precision = 'fp16'"),
        ({"budget": {"steps": 1, "samples": 1}}, "exactly one"),
        ({"heads": {"options": {"exemplars": {}}}}, "no head named exemplars"),
        ({"optimizer": {"name": "sgd"}}, "optimizer.name = 'sgd'"),
        ({"seed": -1}, "seed = -1"),
        ({"lasso": {"penalty": -1}}, "lasso.penalty = -1"),
    ],
)
def test_a_wrong_value_is_named(values, message) -> None:
    with pytest.raises(UsageError, match=message):
        config_of(**values)


def test_a_config_survives_yaml(tmp_path) -> None:
    import yaml

    config = config_of(
        pipeline={"images": "shards", "tasks": {"exemplar": {"task_weight": 0.5}}},
        heads={"preset": "small", "options": {"exemplar": {"negatives": "all"}}},
        budget={"compute_tflop": 2.5},
        lasso={"penalty": 0.1},
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(PretrainConfig, path) == config


@pytest.mark.parametrize(
    ("balance", "updates", "allowed"),
    [
        ("uncertainty", "per_task", "joint"),
        ("uncertainty", "summed", "joint"),
        ("pcgrad", "per_task", "summed or joint"),
    ],
)
def test_a_balance_without_effect_is_refused(balance: str, updates: str, allowed: str) -> None:
    with pytest.raises(UsageError, match=f"balance {balance} has no effect .*use updates: {allowed}"):
        config_of(balance=balance, updates=updates)


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_what_it_is(path: Path) -> None:
    assert load_config(PretrainConfig, path).pipeline.tasks
    header = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"fourfold pretrain {path.stem} " in header


def test_tasks_stand_in_the_order_of_their_names_whatever_the_file_says() -> None:
    def config_of(names: list[str]) -> PretrainConfig:
        tasks = {name: {"task_weight": 0.5} if name == "exemplar" else {} for name in names}
        return PretrainConfig.model_validate({"pipeline": {"tasks": tasks}, "budget": {"steps": 1}})

    names = ["relative_position", "exemplar", "motion_segmentation", "colorization"]
    configs = [config_of(list(order)) for order in permutations(names)]
    assert {tuple(config.pipeline.tasks) for config in configs} == {tuple(sorted(names))}
    assert len({config.model_dump_json() for config in configs}) == 1
