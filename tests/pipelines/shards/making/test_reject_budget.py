import pytest

from pipelines.shards.making.reject_budget import RejectBudget


def budget(max_ratio: float, *, is_mixed: bool, num_items: int = 100_000) -> RejectBudget:
    return RejectBudget(max_ratio=max_ratio, num_items=num_items, is_mixed=is_mixed)


@pytest.mark.parametrize("is_mixed", [True, False])
@pytest.mark.parametrize(("num_rejects", "is_spent"), [(10, False), (11, True)])
def test_over_all_items_the_limit_is_exact(num_rejects: int, is_spent: bool, is_mixed: bool) -> None:
    one = budget(0.1, is_mixed=is_mixed, num_items=100)
    one.add(num_rejects, num_rejects)
    assert one.is_spent() is is_spent


def test_a_fair_sample_far_above_the_limit_is_enough() -> None:
    fair, sorted_by_name = budget(0.1, is_mixed=True), budget(0.1, is_mixed=False)
    for one in (fair, sorted_by_name):
        one.add(2000, 600)
    assert fair.is_spent()
    assert not sorted_by_name.is_spent()


def test_a_small_sample_or_one_near_the_limit_is_not() -> None:
    few, near = budget(0.1, is_mixed=True), budget(0.1, is_mixed=True)
    few.add(900, 600)
    near.add(10_000, 1_050)
    assert not few.is_spent()
    assert not near.is_spent()


@pytest.mark.parametrize("max_ratio", [0.0, 1.0])
def test_none_or_all_allowed(max_ratio: float) -> None:
    one = budget(max_ratio, is_mixed=True, num_items=1000)
    one.add(1000, 0)
    assert not one.is_spent()
    one.add(0, 1000)
    assert one.is_spent() is (max_ratio == 0.0)
