import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.shards.making.ordered import ordered_map


def test_results_keep_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(ordered_map(work, range(30), 4)) == [item * item for item in range(30)]


def test_items_are_taken_in_the_callers_thread_and_not_far_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            assert threading.current_thread() is threading.main_thread()
            taken.append(item)
            yield item

    results = ordered_map(lambda item: item, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 6
    results.close()  # type: ignore[attr-defined]


def test_an_error_comes_in_its_place_and_ends_it() -> None:
    before = threading.active_count()
    results = ordered_map(lambda item: 1 // (3 - item), range(100), 2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threading.active_count() == before
