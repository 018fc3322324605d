"""The lock of a stage between processes. Forked ones: they only run Python of this file, and start in milliseconds."""

import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.results.record import Record, write_record
from benchmarks.suite.executors import StageBusy
from benchmarks.suite.run_suite import run_suite
from benchmarks.suite.stages import Stage
from benchmarks.suite.store.stage_lock import owner_of, run_once, stage_lock
from benchmarks.suite.suite_config import Suite
from tests.made.made_graphs import made_graph, made_record
from tests.made.made_suites import fake_runner, made_suite
from tests.made.patience import PATIENCE_S, wait_until

STAGE = made_graph(1).stages[0]
FORK = multiprocessing.get_context("fork")


def hold(folder: Path) -> None:
    with stage_lock(folder):
        folder.mkdir(parents=True)
        (folder / "held").touch()
        time.sleep(PATIENCE_S)


def test_lock_of_a_living_process_is_busy_and_that_of_a_killed_one_is_free(tmp_path: Path) -> None:
    folder = STAGE.folder(tmp_path)
    child = FORK.Process(target=hold, args=(folder,), daemon=True)
    child.start()
    wait_until((folder / "held").exists)
    owner = owner_of(folder)
    assert owner is not None
    assert (owner.host, owner.pid) == (socket.gethostname(), child.pid)
    with pytest.raises(StageBusy):
        run_once(STAGE, out=tmp_path, run_stage=made_record)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert owner_of(folder) is None
    assert run_once(STAGE, out=tmp_path, run_stage=made_record) == made_record(STAGE)


def test_record_of_another_run_is_taken(tmp_path: Path) -> None:
    write_record(STAGE.folder(tmp_path), made_record(STAGE, seconds=7.0))
    assert run_once(STAGE, out=tmp_path, run_stage=never).seconds == 7.0


def never(stage: Stage) -> Record:
    raise AssertionError("run again")


def test_owner_is_told_while_the_stage_runs_and_not_after(tmp_path: Path) -> None:
    owners = []

    def look(stage: Stage) -> Record:
        owners.append(owner_of(stage.folder(tmp_path)))
        return made_record(stage)

    run_once(STAGE, out=tmp_path, run_stage=look)
    assert [None if owner is None else owner.pid for owner in owners] == [os.getpid()]
    assert owner_of(STAGE.folder(tmp_path)) is None


def run_noting(suite: Suite, out: Path, notes: Path, has_begun: Callable[[], object]) -> None:
    real = fake_runner(out)

    def runner(stage: Stage) -> Record:
        has_begun()  # both suites are at work from their first stage on
        with notes.open("a") as file:
            file.write(f"{stage.key}\n")
        time.sleep(0.02)
        return real(stage)

    status = run_suite(suite, out, runner=runner, say=lambda line: None)
    assert status.is_finished


def test_two_suites_at_once_in_one_store_run_every_shared_stage_once(tmp_path: Path) -> None:
    suites = (
        made_suite(tmp_path, name="first", depths=[10], seeds=[0, 1]),
        made_suite(tmp_path, name="second", depths=[10, 18], seeds=[1]),
    )
    out, notes = tmp_path / "out", tmp_path / "notes"
    barrier = FORK.Barrier(2, timeout=PATIENCE_S)
    waits = [barrier.wait]

    def has_begun() -> None:
        if waits:
            waits.pop()()

    children = [FORK.Process(target=run_noting, args=(suite, out, notes, has_begun)) for suite in suites]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE_S)
    assert [child.exitcode for child in children] == [0, 0]
    ran = Counter(notes.read_text().split())
    # 1 floor; seeds 0 and 1 at depth 10, seed 1 at depth 18: each 4 pretrainings and 4 probes.
    assert len(ran) == 1 + 3 * 8
    assert set(ran.values()) == {1}
    assert sorted(path.name for path in (out / "suites").iterdir()) == ["first", "second"]
