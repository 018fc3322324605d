import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.base.errors import DataError
from pipelines.shards.making.engine_local import LocalEngine
from pipelines.shards.making.shard_progress import tell
from tests.made.patience import wait_until

ROOT = Path(__file__).resolve().parents[4]


class Number(NamedTuple):
    name: str
    value: int


TASKS = [Number(f"n{value}", value) for value in range(20)]


def double(task: Number) -> int:
    return 2 * task.value


def tell_and_double(task: Number) -> int:
    for _ in range(task.value):
        tell(1, 100)
    return 2 * task.value


def refuse_seven(task: Number) -> int:
    if task.value == 7:
        raise DataError(f"{task.name}: no room")
    return task.value


def break_at_seven(task: Number) -> float:
    return 1 / (7 - task.value)


def die_at_seven(task: Number) -> int:
    if task.value == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return task.value


def wait_in(folder: Path, task: Number) -> None:
    """Leaves a file while it works, and clears it away when it is told to end."""
    path = folder / f"{task.value}.{os.getpid()}"
    path.touch()
    try:
        time.sleep(30)
    finally:
        path.unlink()


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A child of a process that is gone may wait for somebody to ask how it ended.
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_task_is_done_once(num_workers: int) -> None:
    with LocalEngine(num_workers) as engine:
        assert sorted(engine.run(TASKS, double)) == [2 * task.value for task in TASKS]


def test_fewer_tasks_than_workers() -> None:
    with LocalEngine(3) as engine:
        assert list(engine.run(TASKS[:1], double)) == [0]
    with LocalEngine(2) as engine:
        assert list(engine.run([], double)) == []


def test_tasks_are_taken_when_a_worker_is_free() -> None:
    source = iter(TASKS)
    with LocalEngine(2) as engine:
        results = engine.run(source, double)
        next(results)
        assert len(list(source)) >= 20 - 4
        results.close()  # type: ignore[attr-defined]


def test_workers_may_start_before_there_is_work() -> None:
    with LocalEngine(2, preload=["json"]) as engine:
        engine.start()
        engine.start()
        assert sorted(engine.run(TASKS[:5], double)) == [0, 2, 4, 6, 8]


def test_what_work_tells_is_heard() -> None:
    heard: list[tuple[int, int]] = []
    with LocalEngine(2) as engine:
        results = list(engine.run(TASKS, tell_and_double, lambda *news: heard.append(news)))
    assert sorted(results) == [2 * task.value for task in TASKS]
    assert heard == [(1, 100)] * sum(task.value for task in TASKS)


def test_error_of_a_task_comes_back_as_it_is() -> None:
    with LocalEngine(2) as engine, pytest.raises(DataError, match=r"^n7: no room$"):
        list(engine.run(TASKS, refuse_seven))


def test_unexpected_error_names_task_and_line() -> None:
    with LocalEngine(2) as engine, pytest.raises(RuntimeError, match=r"n7: ZeroDivisionError.*\n(.*\n)*.*1 / \(7 - "):
        list(engine.run(TASKS, break_at_seven))


def test_dead_worker_is_named_with_its_task() -> None:
    with (
        LocalEngine(2) as engine,
        pytest.raises(DataError, match=r"n7: the worker .* killed by SIGKILL\..* memory.*again"),
    ):
        list(engine.run(TASKS, die_at_seven))


def test_worker_that_cannot_start_is_an_error() -> None:
    with LocalEngine(1, preload=["no_such_module"]) as engine, pytest.raises(DataError, match=r"worker .* ended \(1\)"):
        list(engine.run(TASKS, double))


def test_leaving_early_ends_workers_and_lets_them_clear_up(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        engine.start()
        for worker in engine._workers:
            worker.send(partial(wait_in, tmp_path))
            worker.take(TASKS[0])
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        processes = [int(path.suffix[1:]) for path in tmp_path.iterdir()]
    assert list(tmp_path.iterdir()) == []
    assert not any(is_alive(process) for process in processes)


PARENT = """
import sys
from functools import partial
from pathlib import Path
from pipelines.shards.making.engine_local import LocalEngine
from tests.pipelines.shards.making.test_engine_local import TASKS, wait_in
with LocalEngine(2) as engine:
    list(engine.run(TASKS, partial(wait_in, Path(sys.argv[1]))))
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=environment)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    processes = [int(path.suffix[1:]) for path in tmp_path.iterdir()]
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_alive(process) for process in processes))
