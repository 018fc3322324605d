"""ThreadPool: a pool like any other, and an error where a thread is gone."""

import time
from concurrent.futures import Future

import pytest

from pipelines.base.errors import FourfoldError
from pipelines.base.thread_pool import ThreadPool, result_of
from tests.made.patience import seconds_here


class Bomb:
    """In place of a job: what it raises ends the thread."""

    def run(self):
        raise SystemExit


@pytest.fixture
def pool():
    with ThreadPool(2, thread_name_prefix="under-test") as pool:
        yield pool


def kill_one(pool):
    pool._work_queue.put(Bomb())
    while all(thread.is_alive() for thread in pool._threads):
        time.sleep(0.005)


def test_map_gives_results_in_order(pool):
    assert list(pool.map(lambda one, two: one - two, range(50), range(0, 100, 2))) == [-n for n in range(50)]


def test_an_exception_of_a_job_comes_at_its_place(pool):
    results = pool.map(lambda number: 6 // number, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_timeout_error_of_a_job_is_no_timeout_of_ours(pool):
    def fail():
        raise TimeoutError("the job's own")

    with pytest.raises(TimeoutError, match="own"):
        pool.result_of(pool.submit(fail))


def test_nothing_is_submitted_to_a_pool_with_a_dead_thread(pool):
    list(pool.map(time.sleep, [0.02, 0.02]))
    kill_one(pool)
    with pytest.raises(FourfoldError, match=r"Worker thread under-test_\d has died \(1 of 2\)"):
        pool.submit(int)


def test_whoever_waits_when_the_threads_die_gets_an_error_within_seconds():
    with ThreadPool(1) as pool:
        pool.submit(int).result()
        pool._work_queue.put(Bomb())
        future = Future()  # of a job that nobody will do
        start_s = time.monotonic()
        with pytest.raises(FourfoldError, match="has died"):
            pool.result_of(future)
        assert time.monotonic() - start_s < seconds_here(5)


def test_a_closed_pool_is_not_a_dead_one():
    with ThreadPool(1) as pool:
        pool.submit(int).result()
    pool.check()


def test_waiting_checks_again_and_again(monkeypatch):
    monkeypatch.setattr("pipelines.base.thread_pool.POLL_S", 0.001)
    future, calls = Future(), []

    def check():
        calls.append(1)
        if len(calls) == 3:
            future.set_result("done")

    assert result_of(future, check) == "done"
