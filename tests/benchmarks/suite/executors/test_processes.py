"""ProcessExecutor with stages that take no time to speak of; what they do is in this file, which workers import."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.results.record import Record
from benchmarks.suite.executors import StageEvent
from benchmarks.suite.executors.processes import ProcessExecutor
from benchmarks.suite.run_options import RunOptions
from benchmarks.suite.run_suite import run_suite
from benchmarks.suite.stages import Stage
from pipelines.base.machine import num_cores
from tests.made.made_suites import fake_runner, made_suite
from tests.made.patience import PATIENCE_S, wait_until
from tests.made.stages_in_processes import meet, play

ROOT = Path(__file__).resolve().parents[4]


def stage(number: int, does: str = "finish", needs: tuple[Stage, ...] = ()) -> Stage:
    return Stage(kind=does, label=does, key=str(number) * 64, config={}, inputs={}, needs=needs)


def run(stages: list[Stage]) -> list[StageEvent]:
    """One worker: each takes seconds to start."""
    return list(ProcessExecutor(1).run(stages, play))


def ends(events: list[StageEvent]) -> dict[str, str]:
    return {event.stage.key[0]: event.state for event in events}


def test_two_stages_run_at_a_time_and_share_the_cores(tmp_path: Path) -> None:
    stages = [stage(1), stage(2)]
    events = list(ProcessExecutor(2).run(stages, partial(meet, tmp_path)))
    assert ends(events) == {"1": "finished", "2": "finished"}, [event.error for event in events]
    threads = max(1, num_cores() // 2)
    wanted = {"num_threads": threads, "omp": str(threads)}
    assert [event.record.results for event in events if event.record] == [wanted, wanted]


def test_failure_takes_down_only_what_needs_it_and_keeps_its_trace() -> None:
    first, third = stage(1, "raise"), stage(3)
    events = run([first, stage(2, needs=(first,)), third, stage(4, needs=(third,))])
    assert ends(events) == {"1": "failed", "2": "failed", "3": "finished", "4": "finished"}
    failures = {event.stage.key[0]: event for event in events if event.state == "failed"}
    assert failures["1"].error == "ZeroDivisionError: division by zero"
    assert "in play" in failures["1"].trace
    assert first.folder_name in failures["2"].error


def test_killed_worker_fails_its_stage_and_the_others_go_on() -> None:
    events = run([stage(1, "die"), stage(2), stage(3)])
    assert ends(events) == {"1": "failed", "2": "finished", "3": "finished"}
    assert "memory" in next(event.error for event in events if event.state == "failed")


@pytest.mark.timeout(300)  # evaluations that wait for each other's features could wait for ever
def test_suite_gives_the_records_of_a_run_one_after_the_other(tmp_path: Path) -> None:
    evaluations = {"linear_probe": {"labels_per_class": [2]}, "knn": {}, "few_shot": {"labels_per_class": [1]}}
    suite = made_suite(tmp_path, seeds=[0], evaluations=evaluations)

    def numbers(out: Path, num_jobs: int) -> list[object]:
        status = run_suite(suite, out, RunOptions(num_jobs=num_jobs), runner=RunnerAt(out), say=lambda line: None)
        return [record.results for cell in status.cells for record in cell.records.values()]

    assert numbers(tmp_path / "two", 2) == numbers(tmp_path / "one", 1)


class RunnerAt:
    """`fake_runner` that can be pickled."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __call__(self, stage: Stage) -> Record:
        return fake_runner(self.out)(stage)


PROGRAM = """
import sys
from functools import partial
from pathlib import Path
from benchmarks.suite.executors.processes import ProcessExecutor
from benchmarks.suite.stages import Stage
from tests.made.stages_in_processes import linger

if __name__ == "__main__":
    stages = [Stage(kind="linger", label=n, key=n * 64, config={}, inputs={}) for n in "12"]
    for event in ProcessExecutor(2).run(stages, partial(linger, Path(sys.argv[1]))):
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_first_process(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(program), str(tmp_path)], env=environment, stderr=subprocess.PIPE)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    process.send_signal(number)
    assert process.wait(PATIENCE_S) != 0
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    saved = len(list(tmp_path.glob("*.saved")))
    assert saved == (0 if number == signal.SIGKILL else 2)
