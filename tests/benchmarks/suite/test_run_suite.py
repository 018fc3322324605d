import json
import time
from pathlib import Path

import pytest

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.evaluations.unlabelled import unlabelled
from benchmarks.results.record import RECORD_NAME, Record, read_record
from benchmarks.suite.graph import expand
from benchmarks.suite.run_options import RunOptions
from benchmarks.suite.run_suite import run_suite, suite_status
from benchmarks.suite.stages import Stage
from benchmarks.suite.status import ERROR_NAME, SuiteStatus, duration
from benchmarks.suite.suite_config import Suite
from pipelines.base.errors import UsageError
from tests.made.made_suites import fake_runner, made_suite
from tests.made.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return made_suite(tmp_path)


def run(suite: Suite, out: Path, ran: list[Stage] | None = None, fail: str = "nothing") -> SuiteStatus:
    runner = fake_runner(out, ran=ran, fail=lambda stage: fail in f"{stage.kind} {stage.label}")
    return run_suite(suite, out, runner=runner, say=lambda line: None)


def test_finished_suite_has_a_record_per_stage(suite: Suite, tmp_path: Path) -> None:
    ran: list[Stage] = []
    status = run(suite, tmp_path / "out", ran)
    assert status.is_finished
    assert [stage.key for stage in ran] == [stage.key for stage in expand(suite).stages]
    assert all(read_record(stage.folder(tmp_path / "out"), stage.key) for stage in ran)


def test_second_run_does_nothing(suite: Suite, tmp_path: Path) -> None:
    run(suite, tmp_path / "out")
    again: list[Stage] = []
    assert run(suite, tmp_path / "out", again).is_finished
    assert again == []


def test_new_seed_runs_only_its_cells(tmp_path: Path) -> None:
    run(made_suite(tmp_path, seeds=[0]), tmp_path / "out")
    ran: list[Stage] = []
    run(made_suite(tmp_path, seeds=[0, 1]), tmp_path / "out", ran)
    assert ran
    assert all("seed 1" in stage.label for stage in ran)


def test_failure_is_recorded_named_and_tried_again(suite: Suite, tmp_path: Path) -> None:
    out, label = tmp_path / "out", "exemplar, depth 10, seed 1"
    status = run(suite, out, fail=f"pretrain {label}")
    assert status.num_failed == 2  # the pretraining and the probe that needs it
    assert status.num_finished == status.num_stages - 2
    assert status.failures == {label: "RuntimeError: made to fail"}
    failed = next(stage for stage in expand(suite).stages if f"{stage.kind} {stage.label}" == f"pretrain {label}")
    assert "made to fail" in json.loads((failed.folder(out) / ERROR_NAME).read_text())["trace"]
    again: list[Stage] = []
    assert run(suite, out, again).is_finished
    assert [stage.label for stage in again] == [label, label]
    assert not (failed.folder(out) / ERROR_NAME).exists()


def test_damaged_record_is_made_again(suite: Suite, tmp_path: Path) -> None:
    run(suite, tmp_path / "out")
    stage = expand(suite).stages[3]
    (stage.folder(tmp_path / "out") / RECORD_NAME).write_text('{"key": "')
    again: list[Stage] = []
    run(suite, tmp_path / "out", again)
    assert [one.key for one in again] == [stage.key]


def test_interrupt_keeps_what_is_finished(suite: Suite, tmp_path: Path) -> None:
    out, done = tmp_path / "out", fake_runner(tmp_path / "out")
    calls: list[Stage] = []

    def runner(stage: Stage) -> Record:
        calls.append(stage)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return done(stage)

    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, out, runner=runner, say=lambda line: None)
    assert suite_status(suite, out).num_finished == 3
    assert run(suite, out).is_finished


def test_fail_fast_stops_at_the_first_failure(suite: Suite, tmp_path: Path) -> None:
    out, lines, ran = tmp_path / "out", list[str](), list[Stage]()
    runner = fake_runner(out, ran=ran, fail=lambda stage: "exemplar" in stage.label)
    status = run_suite(suite, out, RunOptions(fail_fast=True), runner=runner, say=lines.append)
    assert status.num_failed == 1
    assert ran[-1].label == "exemplar, depth 10, seed 0"
    assert lines[-1].startswith("stopped at the first failure")
    assert run(suite, out).is_finished


def test_time_limit_begins_no_further_stage_and_leaves_the_rest_for_the_next_run(suite: Suite, tmp_path: Path) -> None:
    out, lines, ran = tmp_path / "out", list[str](), list[Stage]()
    done = fake_runner(out, ran=ran)

    def runner(stage: Stage) -> Record:
        if len(ran) == 3:
            time.sleep(PATIENCE_S)
        return done(stage)

    status = run_suite(suite, out, RunOptions(time_limit_s=1.0), runner=runner, say=lines.append)
    assert status.num_failed == 0
    assert not status.is_finished
    assert len(ran) <= 3
    assert lines[-1].startswith("stopped after 1 s")
    assert run(suite, out).is_finished


def test_only_runs_the_cells_of_a_pattern(suite: Suite, tmp_path: Path) -> None:
    out, lines, ran = tmp_path / "out", list[str](), list[Stage]()
    options = RunOptions(only=("exemplar, depth 18",))
    status = run_suite(suite, out, options, runner=fake_runner(out, ran=ran), say=lines.append)
    assert {stage.label for stage in ran} == {f"exemplar, depth 18, seed {seed}" for seed in range(3)}
    assert status.num_finished == 6
    assert lines[0] == "made-up: 49 stages, 0 finished before, 43 left out of this run"


def test_plan_changes_nothing_and_estimates_from_finished_stages(suite: Suite, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = suite_status(suite, out)
    assert not out.exists()
    assert (plan.num_finished, plan.left_s) == (0, None)
    assert {cell.state for cell in plan.cells} == {"waiting"}
    run(made_suite(tmp_path, seeds=[0]), out)
    # Per further seed and depth: 4 pretrainings of 2 s and 4 probes of 1 s.
    assert suite_status(suite, out).left_s == 2 * 2 * (4 * 2.0 + 4 * 1.0)


def test_time_left_is_unknown_until_each_kind_has_finished(suite: Suite, tmp_path: Path) -> None:
    status = run(suite, tmp_path / "out", fail="linear_probe")
    assert status.num_failed == 24
    assert status.left_s is None


def test_status_tells_waiting_started_failed_and_finished(suite: Suite, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(made_suite(tmp_path, seeds=[0]), out, fail="linear_probe exemplar, depth 10")
    started = next(stage for stage in expand(suite).stages if stage.label == "exemplar, depth 10, seed 1")
    started.folder(out).mkdir()
    states = {cell.cell.label: cell.state for cell in suite_status(suite, out).cells}
    assert states["pixel floor"] == "finished"
    assert states["exemplar, depth 10, seed 0"] == "failed"
    assert states["exemplar, depth 10, seed 1"] == "started"
    assert states["exemplar, depth 10, seed 2"] == "waiting"


def test_progress_lines_tell_number_result_and_time_left(suite: Suite, tmp_path: Path) -> None:
    lines: list[str] = []
    run_suite(suite, tmp_path / "out", runner=fake_runner(tmp_path / "out"), say=lines.append)
    assert lines[0] == "made-up: 49 stages, 0 finished before"
    assert lines[1] == "[1/49] pixel floor: pixel floor (time left not known yet)"
    assert lines[2] == "[1/49] pixel floor: pixel floor: top1_pct 40.0 in 1 s"
    assert "[49/49] linear probe: Col + Ex, depth 18, seed 2 (about 1 s left)" in lines


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_duration_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_data_set_that_is_missing_stops_a_suite_before_its_first_stage(tmp_path: Path) -> None:
    detection = {"data": str(tmp_path / "VOC2007")}
    suite = made_suite(tmp_path, evaluations={"linear_probe": {"labels_per_class": [2]}, "detection": detection})
    with pytest.raises(UsageError, match=r"evaluations\.detection: data: .*VOC2007 is no folder") as raised:
        run(suite, tmp_path / "out")
    assert "VOCtest_06-Nov-2007.tar" in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_trunks_of_a_suite_are_compared_with_those_before_them(tmp_path: Path) -> None:
    """CKA between depths, within a seed, from kept features as from the trunks themselves."""
    suite = made_suite(
        tmp_path,
        task_sets=["colorization"],
        exclude=[{"task_set": "colorization"}],
        baselines=["random_init"],
        seeds=[0, 1],
        pretrain={"trunk": {"width": 0.125}, "budget": {"steps": 2}, "pipeline": {"canvas_px": 32}},
        evaluations={"unlabelled": {"against_suite": True}},
    )
    out = tmp_path / "out"
    assert run_suite(suite, out, say=lambda line: None).num_failed == 0
    found = {stage.label: read_record(stage.folder(out), stage.key) for stage in expand(suite).stages}
    runs = {stage.label: stage.folder(out) for stage in expand(suite).stages if stage.kind == "pretrain"}
    evaluated = {one.label: one.results["cka_against"] for one in found.values() if one.kind == "unlabelled"}
    for seed in (0, 1):
        first, second = (f"random init, depth {depth}, seed {seed}" for depth in (10, 18))
        assert (evaluated[first], list(evaluated[second])) == ({}, [first])
        context = Context(
            trunk=TrunkSource(run=runs[second]), images=tmp_path / "shards", store=tmp_path / f"other{seed}"
        )
        alone = unlabelled.run(context, unlabelled.UnlabelledConfig(canvas_px=32, against=[runs[first]]))
        assert evaluated[second][first] == pytest.approx(alone["cka_against"][str(runs[first])], abs=1e-6)
        assert 0 < evaluated[second][first] < 1
