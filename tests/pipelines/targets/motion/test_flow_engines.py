"""Engines by name, and the pool that lends them to threads."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pipelines.targets.motion.dense_flow import DisFlow, FarnebackFlow
from pipelines.targets.motion.flow_engines import EnginePool, build_engine


def test_engines_by_name():
    assert [type(build_engine(name)) for name in ("dis", "farneback")] == [DisFlow, FarnebackFlow]
    assert type(build_engine("raft", "random")).__name__ == "RaftFlow"


def test_an_engine_is_used_again_by_the_next_borrower():
    pool = EnginePool("dis")
    with pool.borrow() as first:
        pass
    with pool.borrow() as second:
        assert second is first


def test_an_engine_comes_back_after_an_error():
    pool = EnginePool("dis")
    with pytest.raises(KeyError), pool.borrow() as first:
        raise KeyError
    with pool.borrow() as second:
        assert second is first


def test_no_two_threads_have_the_same_engine():
    pool, barrier = EnginePool("dis"), Barrier(4, timeout=30)

    def borrow(_):
        with pool.borrow() as engine:
            barrier.wait()  # all four are out now
            return engine

    with ThreadPoolExecutor(4) as threads:
        assert len(set(map(id, threads.map(borrow, range(4))))) == 4
