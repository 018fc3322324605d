import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.shards import build
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.shards.making import engine_ray
from pipelines.shards.making.engine_ray import RayEngine
from pipelines.shards.making.make_shard import MadeShard, ShardJob, make_shard
from pipelines.shards.making.shard_plan import PlannedShard
from tests.made.media import write_image

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")


class Number(NamedTuple):
    name: str
    value: int


def double(task: Number) -> int:
    return 2 * task.value


def refuse(task: Number) -> int:
    raise DataError(f"{task.name}: no room")


def die(task: Number) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return task.value


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A machine of one core; tests add others. All of it on this machine, but Ray cannot tell."""
    found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False, logging_level="error")
    yield found
    ray.shutdown()
    found.shutdown()


def test_every_task_is_done_once(cluster: Any) -> None:
    with RayEngine() as engine:
        results = sorted(engine.run([Number(f"n{value}", value) for value in range(20)], double))
    assert results == [2 * value for value in range(20)]
    assert ray.is_initialized(), "a connection that was there before stays"


def test_error_of_a_task_comes_back_as_it_is(cluster: Any) -> None:
    with RayEngine() as engine, pytest.raises(DataError, match=r"^n3: no room$"):
        list(engine.run([Number("n3", 3)], refuse))


def test_worker_that_always_dies_is_an_error_naming_its_task(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_ray, "MAX_RETRIES", 0)
    with RayEngine() as engine, pytest.raises(DataError, match=r"n5: Ray could not finish it in 1 tries"):
        list(engine.run([Number("n5", 5)], die))


def slow_make_shard(shard: PlannedShard, job: ShardJob) -> MadeShard:
    """Time enough for a machine to be lost in the middle."""
    time.sleep(0.2)
    return make_shard(shard, job)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_build_on_two_machines_survives_the_loss_of_one(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(60):
        write_image(tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index:02d}.jpg", index)
    (tmp_path / "photos" / "cat" / "bad.jpg").write_text("no image")
    given = {"sources": [tmp_path / "photos"], "samples_per_shard": 2}
    build_shards(BuildConfig(out=tmp_path / "whole", **given))
    lost = cluster.add_node(num_cpus=1)
    monkeypatch.setattr(build, "make_shard", slow_make_shard)
    out = tmp_path / "out"

    def lose() -> None:
        while len(list(out.glob("*.tar"))) < 6:
            time.sleep(0.02)
        cluster.remove_node(lost, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    summary = build_shards(BuildConfig(out=out, engine="ray", **given))
    thread.join()
    assert (summary.shards, summary.num_rejects) == (31, 1)
    assert contents(out) == contents(tmp_path / "whole")


def test_address_where_no_cluster_answers_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(**options: Any) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", no_answer)
    with pytest.raises(UsageError, match=r"RAY_ADDRESS = 10\.0\.0\.1:6379: no Ray cluster answers"):
        RayEngine().start()


def test_own_ray_is_started_where_none_runs_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def init(address: str | None = None, **options: Any) -> None:
        calls.append(address)
        if address:
            raise ConnectionError

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("end"))
    with RayEngine() as engine:
        engine.start()
    assert calls == ["auto", None, "end"]


def test_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'fourfold\[ray\]'"):
        RayEngine().start()
