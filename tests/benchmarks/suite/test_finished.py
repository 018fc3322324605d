"""A finished stage is one whose record and kept trunks are there."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.results.record import Record
from benchmarks.suite.finished import clear_without_kept_trunks, finished_record, trunk_folder
from benchmarks.suite.graph import expand
from benchmarks.suite.run_suite import run_suite
from benchmarks.suite.stages import Graph
from tests.made.made_suites import fake_runner, made_suite


def graph_of(tmp_path: Path, **changes: Any) -> Graph:
    base = {"baselines": [], "task_sets": ["colorization"], "depths": [10], "seeds": [0]}
    return expand(made_suite(tmp_path, **{**base, **changes}))


def test_a_pretraining_without_the_trunks_of_a_learning_curve_runs_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (stage, *_) = graph_of(tmp_path).stages
    fake_runner(out)(stage)
    (stage.folder(out) / "trunk.pt").write_bytes(b"weights")
    assert finished_record(stage, out) is not None
    # 1. The same pretraining, whose trunk is now wanted at 30 % of the budget, too.
    (curve, *evaluations) = graph_of(tmp_path, evaluate_at=[30, 100]).stages
    assert curve.key == stage.key
    assert finished_record(curve, out) is None
    assert [trunk_folder(one, out).relative_to(curve.folder(out)).as_posix() for one in evaluations] == [
        "kept/0.3",
        ".",
    ]
    # 2. With that trunk it counts; a suite without a curve counts it in any case.
    kept = curve.folder(out) / "kept" / "0.3"
    kept.mkdir(parents=True)
    (kept / "trunk.pt").write_bytes(b"weights")
    assert finished_record(curve, out) is not None
    assert not clear_without_kept_trunks(curve, out)
    # 3. Without it the folder is cleared before the run, which would else be taken for finished.
    (kept / "trunk.pt").unlink()
    assert clear_without_kept_trunks(curve, out)
    assert not curve.folder(out).exists()


def test_a_learning_curve_of_a_real_run_evaluates_the_trunks_on_the_way(tmp_path: Path) -> None:
    """Added after the run: the pretraining runs again, to the same weights, and the finished evaluation counts."""
    out, said = tmp_path / "out", list[str]()

    def run(**changes: Any) -> dict[str, Record]:
        pretrain = {"trunk": {"width": 0.125}, "heads": {"preset": "small"}, "budget": {"steps": 4}}
        pretrain |= {"pipeline": {"canvas_px": 64, "batch_size": 2}, "held_out": "off", "cpu_threads": 1}
        base: dict[str, Any] = {"baselines": [], "task_sets": ["colorization"], "depths": [10], "seeds": [0]}
        suite = made_suite(tmp_path, **base, pretrain=pretrain, evaluations={"knn": {}}, **changes)
        said.clear()
        status = run_suite(suite, out, say=said.append)
        assert status.failures == {}
        return {f"{cell.cell.percent:g} %": cell.records["knn"] for cell in status.cells}

    whole = run()["100 %"]
    (stage,) = (path for path in (out / "stages").iterdir() if path.name.startswith("pretrain-"))
    weights = torch.load(stage / "trunk.pt", weights_only=True)
    curve = run(evaluate_at=[50, 100])
    again = torch.load(stage / "trunk.pt", weights_only=True)
    halfway = torch.load(stage / "kept" / "0.5" / "trunk.pt", weights_only=True)
    name = next(name for name, values in weights["weights"].items() if values.ndim == 4)
    assert torch.equal(weights["weights"][name], again["weights"][name])
    assert not torch.equal(weights["weights"][name], halfway["weights"][name])
    assert curve["100 %"] == whole
    assert curve["50 %"].coordinates == whole.coordinates | {"percent": 50.0}
    assert sum("knn" in line and "done" not in line for line in said) == 2
