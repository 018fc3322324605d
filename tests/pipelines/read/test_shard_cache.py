"""Remote shards: brought before they are read, kept within a limit, and never a reason to hang or to be wrong."""

import os
import threading
import time
from dataclasses import replace

import fsspec
import numpy as np
import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.read.sample_plan import Order, SamplePlan
from pipelines.read.shard_cache import open_shard_cache
from pipelines.shards.format.manifest import load_manifest
from tests.made.patience import seconds_here, wait_until
from tests.made.restore_every_step import digests

opened = []
URL = "memory://bucket/shards"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    yield
    for cache in filter(None, opened):
        cache.stop()
    opened.clear()
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def folder(small_shards):
    return small_shards(images=24, per_shard=2)


@pytest.fixture
def url(folder):
    for path in folder.iterdir():
        if path.is_file():
            fsspec.filesystem("memory").pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    return URL


def plan_of(table, window_shards=2, batch_size=2):
    sizes = tuple(shard.num_samples for shard in table.shards)
    order = Order(sizes, seed=0, stream="image", window_shards=window_shards)
    return SamplePlan(orders=(order,), seed=0, stream="image", global_batch_size=batch_size)


def open_cache(url, limit_bytes=None, window_shards=2):
    """The table, its plan, and the cache, which is stopped after the test."""
    table = load_manifest(url).select("image", "train")
    plan = plan_of(table, window_shards)
    cache = open_shard_cache({"image": table}, {"image": plan}, limit_bytes=limit_bytes, window_shards=window_shards)
    opened.append(cache)
    return table, plan, cache


def stored(table):
    return {path.name for path in table.folder.glob("*.tar")}


def names(table, shards):
    return {table.shards[index].name for index in shards.tolist()}


def test_local_shards_need_no_cache(folder):
    assert open_cache(folder)[2] is None


def test_the_window_read_and_the_next_are_brought(url):
    table, plan, cache = open_cache(url)
    now, then = plan.shards_ahead(0)
    assert stored(table) == set()
    cache.advance({"image": 0})
    wait_until(lambda: stored(table) == names(table, now) | names(table, then))
    cache.advance({"image": 2})
    now, then = plan.shards_ahead(2)
    wait_until(lambda: names(table, then) <= stored(table))
    cache.stop()


def test_what_is_brought_is_what_is_there(url, folder):
    table, _, cache = open_cache(url)
    cache.advance({"image": 0})
    wait_until(lambda: len(stored(table)) == 4)
    cache.stop()
    for name in stored(table):
        assert (table.folder / name).read_bytes() == (folder / name).read_bytes()


def test_the_limit_holds_and_the_oldest_go_first(url):
    table, plan, _ = open_cache(url)
    largest = max(shard.shard_bytes for shard in table.shards)
    _, _, cache = open_cache(url, limit_bytes=5 * largest)
    seen_bytes = []
    for batch in range(24):
        cache.advance({"image": batch})
        now, then = plan.shards_ahead(batch)
        wait_until(lambda now=now, then=then: names(table, now) | names(table, then) <= stored(table))
        seen_bytes.append(cache.used_bytes())
    cache.stop()
    assert max(seen_bytes) <= 5 * largest
    assert len(stored(table)) >= 4


def test_without_room_for_the_next_window_it_waits_for_its_turn(url):
    table, plan, _ = open_cache(url)
    largest = max(shard.shard_bytes for shard in table.shards)
    _, _, cache = open_cache(url, limit_bytes=2 * largest)
    for batch in (0, 2, 4):
        cache.advance({"image": batch})
        now, _ = plan.shards_ahead(batch)
        wait_until(lambda now=now: names(table, now) <= stored(table))
        wait_until(lambda: cache.used_bytes() <= 2 * largest)
    cache.stop()


def test_a_limit_below_one_window_is_refused(url):
    with pytest.raises(
        UsageError, match=r"cache_gib = 9\.31\d*e-08; the shards .* take up to .* GiB.*window_shards \(2\)"
    ):
        open_cache(url, limit_bytes=100)
    config = PipelineConfig(images=url, tasks={"colorization": {}}, canvas_px=8, cache_gib=1e-6)
    with pytest.raises(UsageError, match="cache_gib"):
        build_pipeline(config, seed=0)


def config_of(images, **options):
    small = {"canvas_px": 8, "batch_size": 4, "num_threads": 1, "window_shards": 2}
    return PipelineConfig(images=images, tasks={"colorization": {}}, **small | options)


def test_a_remote_stream_is_the_local_one_whatever_the_limit(url, folder):
    expected = digests(build_pipeline(config_of(folder), seed=1), 20)
    largest = max(shard.shard_bytes for shard in load_manifest(url).shards)
    for limit in (None, 4 * largest / 2**30, 2 * largest / 2**30):
        assert digests(build_pipeline(config_of(url, cache_gib=limit), seed=1), 20) == expected


def test_reading_does_not_wait_for_shards_that_come_later(url, monkeypatch):
    """Slow downloads: with the next window brought meanwhile, most steps wait for none."""
    from pipelines.shards.format import shard_place

    get, fetched = shard_place.fetch, []

    def slow(folder, shard):
        path = folder / shard.name
        if not path.exists():
            time.sleep(0.01)
            fetched.append(threading.current_thread().name.rpartition("-")[0])
        return get(folder, shard)

    monkeypatch.setattr("pipelines.read.shard_cache.fetch", slow)
    monkeypatch.setattr("pipelines.read.reader.fetch", slow)
    with build_pipeline(config_of(url, prefetch_batches=1), seed=1) as pipeline:
        for _ in range(6):
            next(pipeline)
            time.sleep(0.05)
    late = [name for name in fetched if name == "fourfold-pipeline"]
    assert len(late) <= 4
    assert fetched.count("fourfold-fetch") >= 8


def test_a_download_that_fails_is_the_readers_to_report(url):
    system = fsspec.filesystem("memory")
    table = load_manifest(url).select("image", "train")
    for shard in table.shards[3:]:
        system.rm_file(f"/bucket/shards/{shard.name}")
    with build_pipeline(config_of(url), seed=1) as pipeline, pytest.raises(DataError, match="cannot fetch it"):
        list(pipeline)


def test_threads_end_with_the_pipeline_even_if_a_download_hangs(url, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr("pipelines.read.shard_cache.STOP_S", 0.05)
    monkeypatch.setattr("pipelines.read.shard_cache.fetch", lambda *_: release.wait())
    _, _, cache = open_cache(url)
    cache.advance({"image": 0})
    start_s = time.monotonic()
    cache.stop()
    cache.stop()
    assert time.monotonic() - start_s < seconds_here(2)
    release.set()
    wait_until(lambda: not any("fourfold-fetch" in thread.name for thread in threading.enumerate()))


def test_a_shard_that_is_dropped_while_it_is_opened_is_brought_again(url, monkeypatch):
    from pipelines.read import reader as module

    get, calls = module.fetch, []

    def dropped_once(folder, shard):
        path = get(folder, shard)
        calls.append(shard.name)
        if len(calls) == 1:
            path.unlink()
        return path

    monkeypatch.setattr(module, "fetch", dropped_once)
    reader = module.SampleReader(load_manifest(url).select("image", "train"))
    assert len(reader.read(0)) > 100
    assert len(calls) == 2


def test_a_reader_lets_go_of_dropped_shards(url):
    from pipelines.read.reader import SampleReader

    table = load_manifest(url).select("image", "train")
    reader = SampleReader(table)
    view = reader.read(0)
    kept = bytes(view)
    (table.folder / table.shards[0].name).unlink()
    reader.read(2)
    assert list(reader._open) == [1]
    assert bytes(view) == kept
    assert bytes(reader.read(0)) == kept


def test_shards_of_a_users_own_folder_keep_their_times(folder):
    from pipelines.read.reader import SampleReader

    path = folder / "train-images-000000.tar"
    os.utime(path, (1, 1))
    SampleReader(load_manifest(folder).select("image", "train")).read(0)
    assert path.stat().st_mtime == 1


def test_local_and_remote_sources_mix(url, small_shards):
    local = small_shards(images=5, name="local")
    config = config_of([{"path": local}, {"path": url, "weight": 3}])
    with build_pipeline(config, seed=1) as pipeline:
        keys = {key for _ in range(12) for key in next(pipeline).batches["colorization"].keys}
    assert len(keys) > 15


def test_plans_of_all_kinds_share_the_limit(url, small_shards):
    table = load_manifest(url).select("image", "train")
    plans = {"image": plan_of(table), "clip": replace(plan_of(table), stream="clip")}
    window = sorted(shard.shard_bytes for shard in table.shards)[-2:]
    with pytest.raises(UsageError, match="cache_gib"):
        open_shard_cache({"image": table, "clip": table}, plans, limit_bytes=sum(window), window_shards=2)
    assert np.sum(window) > 0
