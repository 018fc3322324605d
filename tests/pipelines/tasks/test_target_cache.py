"""The memory of targets: bounded, last used stays longest; and what rows know that show other rows."""

import threading

import pytest

from pipelines.tasks.target_cache import CachedTargets, TargetCache, cached_targets


def test_what_was_used_longest_ago_is_forgotten():
    memory = TargetCache(2)
    for address in ("a", "b"):
        memory.put(address, address.upper())
    assert memory.get("a") == "A"
    memory.put("c", "C")
    assert [memory.get(address) for address in "abc"] == ["A", None, "C"]
    assert len(memory) == 2


def test_a_target_looked_up_outlives_its_being_forgotten():
    memory = TargetCache(1)
    memory.put("a", "A")
    known = cached_targets(memory, ["a", "b"])
    memory.put("b", "B")
    assert known.target == ("A", None)
    assert memory.get("a") is None


def test_it_stays_bounded_from_many_threads():
    memory = TargetCache(10)

    def work(start: int) -> None:
        for index in range(300):
            memory.put((start + index) % 40, start)
            memory.get(index % 40)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memory) == 10


@pytest.fixture
def known() -> CachedTargets:
    return CachedTargets(address=("a", "b", "c"), target=("A", None, "C"))


def test_a_failed_row_knows_what_its_donor_knows_and_is_not_remembered(known):
    shown = known.with_rows_of([0, 2, 2], failed=[1])
    assert shown.address == ("a", None, "c")
    assert shown.target == ("A", "C", "C")


def test_a_row_that_nothing_could_be_shown_for_is_not_remembered(known):
    assert known.with_rows_of([0, 1, 2], failed=[0, 1, 2]).address == (None, None, None)


def test_a_spare_brings_its_address_and_target(known):
    replaced = known.with_row(1, CachedTargets(address=("d",), target=("D",)))
    assert replaced == CachedTargets(address=("a", "d", "c"), target=("A", "D", "C"))
