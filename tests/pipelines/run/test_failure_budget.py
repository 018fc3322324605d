"""The failure budget: judged from 100 samples on, over the last 10,000."""

import pytest

from pipelines.base.errors import DataError
from pipelines.run.failure_budget import WINDOW_SAMPLES, FailureBudget
from pipelines.run.sample_source import Fault

FAULT = Fault(shard="a.tar", key="x", reason="torn")


def test_nothing_is_judged_below_100_samples():
    budget = FailureBudget(0.0)
    budget.count(99, [FAULT] * 50)
    with pytest.raises(
        DataError, match=r"50 of 100 samples failed \(50\.0%\).*allows 0\.0%.*The last: a\.tar: x: torn"
    ):
        budget.count(1, [])


def test_just_as_many_as_allowed_pass():
    budget = FailureBudget(0.02)
    budget.count(100, [FAULT] * 2)
    budget.count(100, [FAULT] * 2)
    with pytest.raises(DataError, match="5 of 201"):
        budget.count(1, [FAULT])


def test_old_good_samples_do_not_pay_for_new_bad_ones():
    budget = FailureBudget(0.01)
    for _ in range(1000):
        budget.count(1000, [])
    budget.count(100, [FAULT] * 100)
    with pytest.raises(DataError, match="200 of 10200"):
        budget.count(100, [FAULT] * 100)


def test_old_bad_samples_are_forgotten():
    budget = FailureBudget(0.01)
    budget.count(1000, [FAULT] * 10)
    for _ in range(WINDOW_SAMPLES // 1000):
        budget.count(1000, [])
    budget.count(1000, [FAULT] * 10)
    assert budget._num_faults == 10
