import subprocess
import sys
import time

import pytest

from benchmarks.suite.costs.cost import Cost, Stopwatch, middle

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(flush=True)\ninput()"


def test_costs_add_up_part_by_part() -> None:
    assert Cost(1.0, 2.0) + Cost(0.5, 0.25) * 2 == Cost(2.0, 2.5)
    assert (Cost(1.0, 2.0) - Cost(3.0, 1.0)).at_least_nothing() == Cost(0.0, 1.0)


def test_outliers_at_both_ends_do_not_count() -> None:
    costs = [Cost(float(value), 10.0 * value) for value in (2, 900, 1, 3, 2, 0, 2, 1)]
    assert middle(costs) == Cost(1.75, 17.5)  # of 1, 2, 2, 2
    assert middle(costs[:1]) == costs[0]


def test_waiting_takes_wall_time_and_no_cpu_time() -> None:
    watch = Stopwatch()
    time.sleep(0.05)
    cost = watch.read()
    assert cost.wall_s >= 0.05
    assert cost.cpu_s < cost.wall_s


@pytest.mark.parametrize("is_ended", [False, True])
def test_processes_below_this_one_count(is_ended: bool) -> None:
    watch = Stopwatch()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        if is_ended:
            child.communicate(b"\n")
        assert watch.read().cpu_s >= 0.25
        child.kill()
