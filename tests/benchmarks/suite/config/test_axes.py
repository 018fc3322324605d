"""Axes, variants, filters, options of task sets, shares of the budget: which cells a suite has, and their stages."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.graph import expand
from benchmarks.suite.stages import Graph, label_of, shown_value
from pipelines.base.errors import UsageError
from tests.made.made_suites import made_suite

WIDTHS = {"pretrain.trunk.width": [0.25, 0.5]}


def graph_of(tmp_path: Path, **changes: Any) -> Graph:
    base = {"baselines": [], "task_sets": ["colorization"], "depths": [10], "seeds": [0]}
    return expand(made_suite(tmp_path, **{**base, **changes}))


def labels(graph: Graph) -> list[str]:
    return [cell.label for cell in graph.cells]


def test_every_combination_of_axis_values_is_a_cell(tmp_path: Path) -> None:
    axes = WIDTHS | {"pretrain.optimizer.lr": [0.1, 0.01, 0.001]}
    graph = graph_of(tmp_path, axes=axes, task_sets=["colorization", "exemplar"], seeds=[0, 1])
    assert len(graph.cells) == len(set(labels(graph))) == 2 * 3 * 2 * 2
    places = {(cell.task_set.name, cell.seed, *cell.axes.values()) for cell in graph.cells}
    assert len(places) == 24
    for cell in graph.cells:
        assert cell.pretrain is not None
        config = cell.pretrain.config
        assert (config["trunk"]["width"], config["optimizer"]["lr"]) == tuple(cell.axes.values())
    assert labels(graph)[0] == "colorization, width 0.25, lr 0.1, depth 10, seed 0"
    assert graph.cells[0].coordinates == {
        "task_set": "colorization",
        "depth": 10,
        "seed": 0,
        "variant": "",
        "percent": 100.0,
        "pretrain.trunk.width": 0.25,
        "pretrain.optimizer.lr": 0.1,
    }


def test_variants_are_named_groups_of_overrides_of_any_key(tmp_path: Path) -> None:
    variants = {
        "plain": {},
        "wide": {"pretrain.trunk.width": 0.5, "pretrain.optimizer.lr": 0.5},
        "pool 2": {"evaluations.linear_probe.pool": 2},
    }
    graph = graph_of(tmp_path, variants=variants, axes={"pretrain.budget.steps": [2, 3]})
    assert labels(graph)[::2] == [f"colorization, {name}, steps 2, depth 10, seed 0" for name in variants]
    plain, wide, pooled = graph.cells[::2]
    assert plain.pretrain is not None
    assert wide.pretrain is not None
    assert (wide.pretrain.config["trunk"]["width"], wide.pretrain.config["optimizer"]["lr"]) == (0.5, 0.5)
    # Another evaluation trains nothing anew: the variants share the pretraining, which then has a name without them.
    assert pooled.pretrain == plain.pretrain
    assert plain.pretrain.label == "colorization, steps 2, depth 10, seed 0"
    assert plain.pretrain.coordinates["task_set"] == "colorization"
    assert "variant" not in plain.pretrain.coordinates
    assert pooled.evaluations["linear_probe"].config["options"]["pool"] == 2
    assert pooled.evaluations["linear_probe"].key != plain.evaluations["linear_probe"].key


def test_random_weights_and_floors_are_not_multiplied(tmp_path: Path) -> None:
    """An axis that random weights do not read leaves them one stage; a floor stays one cell."""
    graph = graph_of(tmp_path, baselines=["random_init", "pixel_floor"], axes={"pretrain.optimizer.lr": [0.1, 0.2]})
    assert [cell.label for cell in graph.cells if cell.depth is None] == ["pixel floor"]
    random = [stage.label for stage in graph.stages if stage.kind == "pretrain" and "random" in stage.label]
    assert random == ["random init, depth 10, seed 0"]


def test_task_sets_carry_options_of_their_own(tmp_path: Path) -> None:
    gray = {"pretrain.pipeline.harmonize": "all"}
    graph = graph_of(
        tmp_path,
        task_sets=["exemplar", {"tasks": "exemplar", "options": gray}, {"tasks": ["exemplar"], "name": "Ex / H"}],
    )
    assert [cell.task_set.name for cell in graph.cells] == ["exemplar", "exemplar (harmonize all)", "Ex / H"]
    modes = [cell.pretrain.config["pipeline"]["harmonize"] for cell in graph.cells if cell.pretrain]
    assert modes == ["off", "all", "off"]
    # The same work under another name is done once.
    assert graph.cells[0].pretrain == graph.cells[2].pretrain


def test_learning_curves_come_from_one_pretraining(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, evaluate_at=[10, 30, 100], baselines=["random_init"])
    assert labels(graph) == [
        "random init, depth 10, seed 0",
        "colorization, depth 10, seed 0, at 10 %",
        "colorization, depth 10, seed 0, at 30 %",
        "colorization, depth 10, seed 0",
    ]
    first, second, last = graph.cells[1:]
    assert first.pretrain is last.pretrain
    assert first.pretrain is not None
    assert first.pretrain.config["checkpoint"]["keep_at"] == [0.1, 0.3]
    assert [cell.evaluations["linear_probe"].config.get("trunk_at") for cell in (first, second, last)] == [
        0.1,
        0.3,
        None,
    ]
    assert len({cell.evaluations["linear_probe"].key for cell in (first, second, last)}) == 3
    # The whole budget and the pretraining keep the keys of a suite without a curve.
    (plain,) = graph_of(tmp_path).cells
    assert plain.pretrain is not None
    assert (plain.pretrain.key, plain.evaluations["linear_probe"].key) == (
        last.pretrain.key if last.pretrain else "",
        last.evaluations["linear_probe"].key,
    )


def test_include_and_exclude_choose_cells_by_partial_coordinates(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "axes": WIDTHS,
        "task_sets": ["colorization", "exemplar"],
        "depths": [10, 18],
        "seeds": [0, 1],
        "baselines": ["random_init"],
    }
    everything = graph_of(tmp_path, **changes).cells
    assert len(everything) == 24
    kept = graph_of(tmp_path, **changes, include=[{"task_set": "random_init"}, {"depth": 18, "seed": [1]}]).cells
    assert {cell.label for cell in kept} == {
        cell.label for cell in everything if not cell.task_set.tasks or (cell.depth, cell.seed) == (18, 1)
    }
    without = graph_of(tmp_path, **changes, exclude=[{"pretrain.trunk.width": 0.5, "depth": 18}]).cells
    assert {cell.label for cell in without} == {
        cell.label for cell in everything if (cell.axes["pretrain.trunk.width"], cell.depth) != (0.5, 18)
    }


def test_a_cell_that_is_left_out_need_not_be_valid(tmp_path: Path) -> None:
    axes = {"pretrain.trunk.width": [0.25, -1]}
    with pytest.raises(UsageError, match=r"trunk\.width = -1"):
        graph_of(tmp_path, axes=axes)
    assert len(graph_of(tmp_path, axes=axes, exclude=[{"pretrain.trunk.width": -1}]).cells) == 1


def test_names_of_axes_are_as_long_as_they_must_be() -> None:
    place = {"task_set": "exemplar", "depth": 10, "seed": 0, "percent": 30.0}
    axes = {"pretrain.trunk.width": 1, "pretrain.pipeline.tasks.exemplar.width": 2, "pretrain.lasso": {}}
    assert label_of(place | axes) == "exemplar, trunk.width 1, exemplar.width 2, lasso on, depth 10, seed 0, at 30 %"
    assert [shown_value(one) for one in (False, None, True, [0.5, 1], "paper", {"a": 1})] == [
        "off",
        "off",
        "on",
        "[0.5, 1]",
        "paper",
        '{"a": 1}',
    ]


def test_axis_over_data_changes_what_is_read(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, axes={"test_split": ["val", "train"]})
    first, second = graph.cells
    assert first.pretrain == second.pretrain
    assert [cell.evaluations["linear_probe"].config["test_split"] for cell in graph.cells] == ["val", "train"]


def test_sections_left_empty_have_their_defaults(tmp_path: Path) -> None:
    (cell,) = graph_of(tmp_path, pretrain={"pipeline": None, "trunk": None, "budget": {"steps": 2}}).cells
    assert cell.pretrain is not None
    assert (cell.pretrain.config["pipeline"]["canvas_px"], cell.pretrain.config["trunk"]["width"]) == (256, 1.0)
