import pytest

from benchmarks.suite.costs.calibrate.cost_line import CostLine, ends_of
from benchmarks.suite.costs.cost import Cost


@pytest.mark.parametrize("amount", [0.0, 2.0, 3.0, 5.0, 8.0])
def test_costs_that_are_a_line_come_out(amount: float) -> None:
    line = CostLine({at: Cost(0.5 + 2 * at, 1.0 + 3 * at) for at in (2.0, 5.0)})
    found = line.at(amount)
    assert found.cpu_s == pytest.approx(0.5 + 2 * amount)
    assert found.wall_s == pytest.approx(1.0 + 3 * amount)


def test_one_point_is_in_proportion() -> None:
    assert CostLine({4.0: Cost(2.0, 1.0)}).at(8.0) == Cost(4.0, 2.0)
    assert CostLine({0.0: Cost(2.0, 1.0)}).at(8.0) == Cost(2.0, 1.0)


def test_less_work_never_costs_more_and_nothing_costs_less_than_nothing() -> None:
    falling = CostLine({1.0: Cost(2.0, 2.0), 3.0: Cost(1.0, 4.0)})
    assert falling.at(5.0) == Cost(2.0, 6.0)
    steep = CostLine({10.0: Cost(1.0, 1.0), 11.0: Cost(3.0, 3.0)})
    assert steep.at(2.0) == Cost(0.0, 0.0)


def test_ends_are_measured_once_where_they_are_one() -> None:
    assert ends_of({"a": 2.0, "b": 1.0, "c": 3.0}) == ["b", "c"]
    assert ends_of({"a": 2.0, "b": 2.0}) == ["a"]
