"""RayExecutor on a cluster of machines that all are this one, but Ray cannot tell."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.executors.ray import RayExecutor
from benchmarks.suite.run_options import RunOptions
from benchmarks.suite.run_suite import run_suite
from benchmarks.suite.status import SuiteStatus
from pipelines.base.errors import UsageError
from tests.made.made_suites import made_suite
from tests.made.patience import wait_until
from tests.made.stages_on_nodes import SlowRunner

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False, logging_level="error")
    yield found
    ray.shutdown()
    found.shutdown()


def table(status: SuiteStatus) -> dict[str, dict[str, Any]]:
    return {cell.cell.label: {name: record.results for name, record in cell.records.items()} for cell in status.cells}


def test_a_machine_is_killed_in_mid_suite_and_the_table_is_the_same(cluster: Any, tmp_path: Path) -> None:
    """12 cells, 25 stages, on two machines; one is killed while the third stage on it is at work."""
    suite, notes = made_suite(tmp_path, depths=[10], seeds=[0, 1, 2]), tmp_path / "notes"
    notes.mkdir()
    lost = cluster.add_node(num_cpus=1)
    wait_until(lambda: RayExecutor().num_jobs == 2)

    def lose() -> None:
        wait_until((notes / "hung").exists)
        cluster.remove_node(lost, allow_graceful=False)

    killer = threading.Thread(target=lose)
    killer.start()
    lines: list[str] = []
    out = tmp_path / "ray"
    runner = SlowRunner(out.absolute(), notes, 0.1, hang_on=lost.node_id)
    options = RunOptions(executor="ray", address=cluster.address)
    status = run_suite(suite, out, options, runner=runner, say=lines.append)
    killer.join()
    assert status.is_finished, lines
    # 1. Two stages ended on the lost machine, the third one was begun again on the other; none ended twice.
    begun = Counter(path.stem[:12] for path in notes.glob("*.begun"))
    ended = Counter(path.stem[:12] for path in notes.glob("*.ended"))
    assert sum(path.read_text() == lost.node_id for path in notes.glob("*.ended")) == 2
    assert begun[(notes / "hung").read_text()[:12]] == 2
    assert set(ended.values()) == {1}
    assert len(ended) == status.num_stages
    # 2. The table is that of one process.
    notes_here = tmp_path / "notes here"
    notes_here.mkdir()
    here = tmp_path / "here"
    expected = run_suite(suite, here, runner=SlowRunner(here, notes_here, 0.0), say=lambda line: None)
    assert table(status) == table(expected)
    assert len({row["linear_probe"]["top1_pct"] for row in table(status).values() if "linear_probe" in row}) > 6


def test_a_request_that_no_machine_can_meet_is_refused(cluster: Any) -> None:
    with pytest.raises(UsageError, match=r"asks for .* and none of the cluster at auto has that much"):
        RayExecutor(num_cpus=64)
    with pytest.raises(UsageError, match="--gpus-per-stage"):
        RayExecutor(num_gpus=1)
