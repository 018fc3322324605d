"""The whole calibration on a small suite, for real; and its rules for evaluations with planted costs."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.costs.calibrate import pretrainings, run_calibration
from benchmarks.suite.costs.calibrate.evaluations import EvaluationCosts
from benchmarks.suite.costs.calibrate.run_calibration import calibrate
from benchmarks.suite.costs.calibration import read_calibration
from benchmarks.suite.costs.cost import Cost
from benchmarks.suite.costs.forecast import forecast
from benchmarks.suite.graph import expand
from benchmarks.suite.stages import Graph
from benchmarks.suite.status import records_of, status_of
from tests.made.made_suites import made_suite

FROZEN = {"canvas_px": 32, "recalibrate_norm": False}
EVALUATIONS: dict[str, dict[str, Any]] = {
    "linear_probe": {**FROZEN, "labels_per_class": [], "l2_grid": [1.0], "augment": "none"},
    "knn": FROZEN,
    "pixel_floor": {"labels_per_class": [2]},
}


def graph_of(folder: Path, **changes: Any) -> Graph:
    pretrain = {
        "trunk": {"width": 0.25},
        "budget": {"steps": 2},
        "held_out": {"split": "val", "times": 1},
        "pipeline": {"canvas_px": 32, "batch_size": 2, "tasks": {"exemplar": {"patch_px": 24}}},
    }
    given = {"task_sets": ["exemplar"], "depths": [10, 18], "pretrain": pretrain, "evaluations": EVALUATIONS, **changes}
    return expand(made_suite(folder, **given))


def test_every_stage_of_a_suite_has_a_cost_before_anything_ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrainings, "ENOUGH_S", 0.0)
    graph, out = graph_of(tmp_path), tmp_path / "out"
    assert forecast(graph, records_of(graph, out), 2).unknown == ("pixel_floor", "pretrain", "linear_probe", "knn")
    done = calibrate(graph, out)
    # One task on two trunks, features behind two, and every evaluation once: trunks differ in no number of features.
    assert (done.num_measurements, done.not_measured) == (2 + 2 + 3, ())
    assert done.spent.cpu_s > 0
    costs = read_calibration(graph.stages, out)
    assert set(costs) == {stage.key for stage in graph.stages}
    untrained = {stage.key for stage in graph.stages if stage.kind == "pretrain" and "random init" in stage.label}
    assert {key for key, cost in costs.items() if not cost.cpu_s} == untrained
    found = forecast(graph, records_of(graph, out), 2, costs)
    assert found.unknown == ()
    assert found.cpu_hours == pytest.approx(sum(cost.cpu_s for cost in costs.values()) / 3600)
    assert 0 < found.wall_s < found.work_s
    assert status_of("made-up", graph, out).left_s == pytest.approx(
        forecast(graph, records_of(graph, out), 1, costs).work_s
    )
    assert sorted(path.name for path in out.iterdir() if path.suffix == ".json") == ["calibration.json"]


def test_wall_times_of_a_busy_machine_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds = iter([0.0, 10.0**9])
    monkeypatch.setattr(run_calibration, "_busy_s", lambda: next(seconds))
    monkeypatch.setattr(pretrainings.PretrainingCosts, "measurements", lambda self, device: {})
    monkeypatch.setattr(pretrainings.PretrainingCosts, "cost_of", lambda self, stage: Cost(2.0, 30.0))
    monkeypatch.setattr(EvaluationCosts, "measurements", lambda self: {})
    monkeypatch.setattr(EvaluationCosts, "costs_of", lambda self, stage: (Cost(3.0, 1.0), Cost(4.0, 50.0)))
    graph = graph_of(tmp_path)
    assert calibrate(graph, tmp_path / "out").is_busy
    costs = read_calibration(graph.stages, tmp_path / "out")
    assert {costs[stage.key] for stage in graph.stages if stage.kind == "pretrain"} == {Cost(2.0, 2.0)}
    assert {costs[stage.key] for stage in graph.stages if stage.kind == "linear_probe"} == {Cost(7.0, 5.0)}
    assert {costs[stage.key] for stage in graph.stages if stage.kind == "knn"} == {Cost(3.0, 1.0)}


def test_a_pass_is_in_proportion_to_images_and_a_line_in_flops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Planted: an image costs 1 us and 2 us per MFLOP of the trunk, a fit 1 s and 1 ms an image."""
    graph = graph_of(tmp_path, depths=[10, 18, 34], seeds=[0])
    costs = EvaluationCosts([stage for stage in graph.stages if stage.kind != "pretrain"], tmp_path / "scratch")
    per_slice = {0: (6, 3), 1: (12, 6)}
    for group in (*costs._passes.values(), *costs._fits.values()):
        group.images.slices = [(tmp_path, per_slice[0]), (tmp_path, per_slice[1])]
        group.images.num_images = (600, 300)
    flop = {trunk: costs._trunks[trunk].size[0] for group in costs._passes.values() for trunk in group.stages}
    smallest, largest = min(flop, key=lambda one: flop[one]), max(flop, key=lambda one: flop[one])

    def pass_s(trunk: str, num_images: int) -> float:
        return num_images * (1e-6 + 2e-12 * flop[trunk])

    for group in costs._passes.values():
        group.measured = {
            (smallest, 1): Cost(pass_s(smallest, 18), 0.0),
            (largest, 0): Cost(pass_s(largest, 9), 0.0),
        }
    for group in costs._fits.values():
        trunk = next(iter(group.stages))
        group.measured = {(trunk, index): Cost(1 + 1e-3 * sum(per_slice[index]), 0.0) for index in (0, 1)}
    for stage in graph.stages:
        if stage.kind == "linear_probe":
            own, features = costs.costs_of(stage) or (Cost(0, 0), None)
            trunk = next(
                name
                for group in costs._passes.values()
                for name in group.stages
                if f'"depth": {stage.coordinates["depth"]},' in name
            )
            assert own.cpu_s == pytest.approx(1 + 0.9)
            assert features is not None
            assert features.cpu_s == pytest.approx(pass_s(trunk, 900))


def test_fine_tuning_costs_its_samples_and_a_pass_over_the_test_split_for_each_share(tmp_path: Path) -> None:
    """Planted: a sample that is learned costs 3 us and 6 us per MFLOP of the trunk, one that is scored a third."""
    fine_tune = {"canvas_px": 32, "batch_size": 8, "num_samples": 800, "labels_pct": [10.0, 100.0]}
    graph = graph_of(tmp_path, depths=[10, 18, 34], seeds=[0], evaluations={"fine_tune": fine_tune})
    costs = EvaluationCosts([stage for stage in graph.stages if stage.kind == "fine_tune"], tmp_path / "scratch")
    (group,) = costs._fits.values()
    group.images.slices = [(tmp_path, (6, 3))]
    group.images.num_images = (600, 300)
    scored_s = {trunk: 1e-6 + 2e-12 * costs._amount(stage) for trunk, stage in group.stages.items()}
    ends = sorted(scored_s, key=lambda trunk: scored_s[trunk])[:: len(scored_s) - 1]
    group.measured = {
        (trunk, index): Cost((1 + index) * 4 * 8 * 3 * scored_s[trunk] + 3 * scored_s[trunk], 0.0)
        for trunk in ends
        for index in (0, 1)
    }
    for trunk, stage in group.stages.items():
        found, features = costs.costs_of(stage) or (None, None)
        assert features is None
        assert found is not None
        assert found.cpu_s == pytest.approx(2 * (800 * 3 + 300) * scored_s[trunk])
