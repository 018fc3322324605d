import pytest

from benchmarks.suite.costs.makespan import makespan_s
from benchmarks.suite.stages import Stage
from tests.made.made_graphs import made_graph

STAGES = made_graph(4).stages  # 4 pretrainings, each with a probe behind it
SECONDS = {"pretrain": 10.0, "linear_probe": 3.0}


def seconds_of(stage: Stage) -> float:
    return SECONDS[stage.kind]


@pytest.mark.parametrize(("num_jobs", "expected_s"), [(1, 52.0), (2, 26.0), (4, 13.0), (64, 13.0)])
def test_cells_side_by_side(num_jobs: int, expected_s: float) -> None:
    assert makespan_s(STAGES, seconds_of, num_jobs) == expected_s


def test_three_jobs_by_hand() -> None:
    """Pretrainings 1 to 3 end at 10 s. Their probes come first in the order and end at 13 s. Then the fourth cell."""
    assert makespan_s(STAGES, seconds_of, 3) == 26.0


def test_nothing_takes_no_time() -> None:
    assert makespan_s([], seconds_of, 2) == 0.0
