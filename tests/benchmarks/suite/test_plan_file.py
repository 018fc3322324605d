"""The recorded graph is the graph, until something it follows from changes."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import app as cli
from benchmarks.suite import plan_file
from benchmarks.suite.graph import expand
from benchmarks.suite.plan_file import PLAN_NAME, read_plan, suite_folder, write_plan
from benchmarks.suite.run_suite import run_suite
from pipelines.targets.color.color_prior import PRIOR_NAME
from tests.made.made_suites import fake_runner, made_suite, write_suite

ROOT = Path(__file__).resolve().parents[3]


def recorded(folder: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """A suite's graph, written to OUT, and the settings it was made from."""
    suite = made_suite(folder, **changes)
    graph = expand(suite)
    write_plan(folder / "out", suite.settings, graph)
    return graph, dict(suite.settings)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    graph, settings = recorded(tmp_path)
    assert read_plan(tmp_path / "out", settings) == graph
    assert graph.metrics == {"linear_probe": "top1_pct", "pixel_floor": "top1_pct"}
    assert set(graph.files) == {tmp_path / "shards" / name for name in ("manifest.json", PRIOR_NAME)}


def test_another_suite_is_not_the_recorded_one(tmp_path: Path) -> None:
    _, settings = recorded(tmp_path)
    assert read_plan(tmp_path / "out", settings | {"seeds": [0, 2, 1]}) is None
    assert read_plan(tmp_path / "elsewhere", settings) is None


def test_other_data_is_noticed(tmp_path: Path) -> None:
    """Both another manifest and a file that was not there when the keys were made."""
    _, settings = recorded(tmp_path)
    manifest = tmp_path / "shards" / "manifest.json"
    before = manifest.read_bytes()
    manifest.write_bytes(before + b" ")
    assert read_plan(tmp_path / "out", settings) is None
    manifest.write_bytes(before)
    assert read_plan(tmp_path / "out", settings) is not None
    (tmp_path / "shards" / PRIOR_NAME).write_text("{}")
    assert read_plan(tmp_path / "out", settings) is None


def test_other_code_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pipelines", "training", "benchmarks"):
        (tmp_path / "code" / name / "inner").mkdir(parents=True)
        (tmp_path / "code" / name / "inner" / "config.py").write_text("DEFAULT = 1")
    monkeypatch.setattr(plan_file, "SOURCES", tmp_path / "code")
    _, settings = recorded(tmp_path)
    assert read_plan(tmp_path / "out", settings) is not None
    (tmp_path / "code" / "training" / "inner" / "config.py").write_text("DEFAULT = 2")
    assert read_plan(tmp_path / "out", settings) is None


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": 1}', '{"files": 3}'])
def test_a_damaged_file_is_no_plan(tmp_path: Path, text: str) -> None:
    _, settings = recorded(tmp_path)
    (suite_folder(tmp_path / "out", "made-up") / PLAN_NAME).write_text(text)
    assert read_plan(tmp_path / "out", settings) is None


def test_status_is_the_same_with_and_without_the_recorded_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, out = made_suite(tmp_path), tmp_path / "out"
    run_suite(suite, out, runner=fake_runner(out, fail=lambda stage: "seed 2" in stage.label), say=lambda line: None)
    command = ["bench", "status", suite.source, "--out", str(out)]
    shown = []
    for name in ("with", "without"):
        assert cli.run(command) == 0
        captured = capsys.readouterr()
        assert cli.run([*command, "--json"]) == 0
        shown.append((captured.out, captured.err, json.loads(capsys.readouterr().out)))
        (suite_folder(out, "made-up") / PLAN_NAME).unlink(missing_ok=name == "without")
    assert shown[0] == shown[1]
    assert "linear_probe 50.0" not in shown[0][0]
    assert "linear_probe 61.0" in shown[0][0]


def loaded_by(program: str, names: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return what a program prints in a process of its own, and which of the packages it has loaded at its end."""
    program += f"\nimport sys\nprint([name for name in {names!r} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout, ast.literal_eval(done.stdout.splitlines()[-1])


def test_status_and_plan_of_a_finished_suite_load_no_torch(tmp_path: Path) -> None:
    path, out = write_suite(tmp_path, seeds=[0], depths=[10]), tmp_path / "out"
    run_suite(made_suite(tmp_path, seeds=[0], depths=[10]), out, runner=fake_runner(out), say=lambda line: None)
    program = f"""
from benchmarks.cli import app
for command in ("status", "plan"):
    assert app.run(["bench", command, {str(path)!r}, "--out", {str(out)!r}]) == 0
"""
    shown, loaded = loaded_by(program, ("torch", "numba", "cv2", "av", "scipy", "pyarrow"))
    assert loaded == []
    assert shown.count("9 of 9 stages finished") == 2


def test_a_first_plan_loads_no_timm(tmp_path: Path) -> None:
    path = write_suite(tmp_path, seeds=[0], depths=[10])
    program = f"""
from benchmarks.cli import app
assert app.run(["bench", "plan", {str(path)!r}, "--out", {str(tmp_path / "out")!r}]) == 0
"""
    # torch as well, so that this cannot pass for want of work.
    shown, loaded = loaded_by(program, ("torch", "timm", "torchvision", "torch._dynamo"))
    assert loaded == ["torch"]
    assert "0 of 9 stages finished" in shown
