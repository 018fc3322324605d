"""Finished stages that other code made are named, and refused, kept or run again."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results.record import Record, read_record, write_json, write_record
from benchmarks.source_code import SourceTree
from benchmarks.suite import graph
from benchmarks.suite.code.other_code import OldCode, begin_stage
from benchmarks.suite.graph import expand
from benchmarks.suite.run_options import RunOptions
from benchmarks.suite.run_suite import run_suite, suite_status
from benchmarks.suite.stages import Stage
from benchmarks.suite.store.stage_lock import stage_lock
from benchmarks.suite.suite_config import Suite
from pipelines.base.errors import UsageError
from tests.made.made_sources import copy_sources, planted
from tests.made.made_suites import fake_runner, made_suite


def small_suite(tmp_path: Path) -> Suite:
    return made_suite(tmp_path, baselines=[], task_sets=["colorization", "exemplar"], depths=[10], seeds=[0])


def run(suite: Suite, out: Path, old_code: OldCode = "refuse", only: tuple[str, ...] = ()) -> list[str]:
    """Labels of the stages that ran, with code in their records."""
    ran: list[Stage] = []
    plain = fake_runner(out, ran=ran)

    def runner(stage: Stage) -> Record:
        record = replace(plain(stage), code=stage.code)
        write_record(stage.folder(out), record)
        return record

    run_suite(suite, out, RunOptions(old_code=old_code, only=only), runner=runner, say=lambda line: None)
    return [f"{stage.kind} {stage.label}" for stage in ran]


def made_elsewhere(suite: Suite, out: Path, label: str) -> None:
    """Write other code into the record of one cell's stages, and what that code was."""
    expanded = expand(suite)
    for stage in expanded.stages:
        record = read_record(stage.folder(out), stage.key)
        if label in stage.label and record is not None:
            before = dict(expanded.modules[stage.code]) | {"pipelines.tasks.exemplar": "0" * 16}
            write_json(out / "stages" / "code" / f"old-{stage.code}.json", before)
            write_record(stage.folder(out), replace(record, code=f"old-{stage.code}"))


def test_other_code_is_refused_kept_or_run_again(tmp_path: Path) -> None:
    suite, out = small_suite(tmp_path), tmp_path / "out"
    assert len(run(suite, out)) == 4
    assert suite_status(suite, out).other_code == ""
    made_elsewhere(suite, out, "exemplar")
    # 1. Named by `plan`, refused by `run`.
    told = suite_status(suite, out).other_code
    names = "pretrain: exemplar, depth 10, seed 0; linear probe: exemplar, depth 10, seed 0"
    assert told == f"2 stages made by other code: {names}. Changed since: pipelines/tasks/exemplar.py."
    with pytest.raises(UsageError, match=r"2 stages made by other code.*--keep-old.*--redo-changed"):
        run(suite, out)
    # 2. Kept as they are; run again, and only they.
    assert run(suite, out, old_code="keep") == []
    assert run(suite, out, old_code="redo") == [
        f"{one} exemplar, depth 10, seed 0" for one in ("pretrain", "linear_probe")
    ]
    assert suite_status(suite, out).other_code == ""
    assert run(suite, out) == []


def test_only_the_chosen_cells_are_deleted_and_none_that_another_run_works_on(tmp_path: Path) -> None:
    suite, out = small_suite(tmp_path), tmp_path / "out"
    run(suite, out)
    made_elsewhere(suite, out, "depth 10")
    with stage_lock(expand(suite).stages[0].folder(out)), pytest.raises(UsageError, match="another run is at work"):
        run(suite, out, old_code="redo")
    assert run(suite, out, old_code="redo", only=("exemplar*",)) == [
        f"{one} exemplar, depth 10, seed 0" for one in ("pretrain", "linear_probe")
    ]
    status = suite_status(suite, out)
    assert status.num_finished == 4
    assert status.other_code.startswith("2 stages made by other code: pretrain: colorization")


def test_records_older_than_digests_count(tmp_path: Path) -> None:
    suite, out = small_suite(tmp_path), tmp_path / "out"
    run_suite(suite, out, runner=fake_runner(out), say=lambda line: None)
    assert run(suite, out) == []


def test_a_resumed_pretraining_was_made_by_the_code_it_began_with(tmp_path: Path) -> None:
    stage = Stage(kind="pretrain", label="x", key="ab" * 32, config={}, inputs={}, code="new")
    old = replace(stage, code="old")
    assert begin_stage(old, tmp_path) == "old"
    # Without a checkpoint it starts anew.
    assert begin_stage(stage, tmp_path) == "new"
    begin_stage(old, tmp_path)
    (stage.folder(tmp_path) / "checkpoint.pt").write_bytes(b"")
    assert begin_stage(stage, tmp_path) == "old"


def test_a_line_planted_in_a_task_runs_exactly_its_stages_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, out, root = small_suite(tmp_path), tmp_path / "out", copy_sources(tmp_path / "sources")

    def use(text: str) -> None:
        """Take the copy with the text planted for the code that runs."""
        with planted(root / "pipelines/tasks/exemplar.py", text):
            tree = SourceTree(root)
            monkeypatch.setattr(graph, "installed_sources", lambda: tree)
            # Files are read when they are first needed: while the text is there.
            expand(suite)

    use("")
    assert len(run(suite, out)) == 4
    use("\n# a comment\n")
    assert run(suite, out) == []
    use("\nPLANTED = 1\n")
    with pytest.raises(UsageError, match=r"2 stages made by other code.*pipelines/tasks/exemplar\.py"):
        run(suite, out)
    again = [f"{one} exemplar, depth 10, seed 0" for one in ("pretrain", "linear_probe")]
    assert run(suite, out, old_code="redo") == again
