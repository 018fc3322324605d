"""Steps made by threads: one that dies, a fork, Ctrl-C; where their seconds go."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pipelines.base.errors import FourfoldError, UsageError
from pipelines.build import build_pipeline
from pipelines.run.stage_stats import bottleneck
from pipelines.tasks import TASKS
from tests.made.echo_tasks import ClipEcho, Echo, OtherEcho, config_for
from tests.made.patience import PATIENCE_S, seconds_here


@pytest.fixture(autouse=True)
def _echo_tasks(monkeypatch):
    for task in (Echo, OtherEcho, ClipEcho):
        monkeypatch.setitem(TASKS, task.name, task)


@pytest.fixture
def folder(small_shards):
    return small_shards(images=11, clips=5, num_frames=3)


class Bomb:
    """In place of a job: what it raises is not caught for a job's sake, and ends the thread."""

    def run(self):
        raise SystemExit


def kill_threads(pool):
    for _ in range(pool._max_workers):
        pool.submit(time.sleep, 0.01)
    for _ in range(pool._max_workers):
        pool._work_queue.put(Bomb())
    while any(thread.is_alive() for thread in pool._threads):
        time.sleep(0.01)


def test_dead_workers_are_an_error_within_seconds(folder):
    pipeline = build_pipeline(config_for(folder), seed=5)
    next(pipeline)
    kill_threads(pipeline.maker.threads)
    start_s = time.monotonic()
    with pytest.raises(FourfoldError, match=r"Worker thread fourfold-worker_\d has died"):
        list(pipeline)
    assert time.monotonic() - start_s < seconds_here(10)
    assert fourfold_threads() == []


def test_a_producing_thread_that_dies_is_an_error_within_seconds(folder, monkeypatch):
    with build_pipeline(config_for(folder), seed=5) as pipeline:
        next(pipeline)
        monkeypatch.setattr(
            "pipelines.read.reader.SampleReader.read", lambda *_: (_ for _ in ()).throw(SystemExit("killed"))
        )
        start_s = time.monotonic()
        with pytest.raises((FourfoldError, SystemExit)):
            list(pipeline)
        assert time.monotonic() - start_s < seconds_here(10)


FORK = """
    import os, sys
    from pathlib import Path
    from pipelines.build import PipelineConfig, build_pipeline
    from pipelines.base.errors import FourfoldError
    config = PipelineConfig(images=Path(sys.argv[1]), tasks={"colorization": {}}, canvas_px=64, batch_size=4)
    pipeline = build_pipeline(config, seed=0)
    next(pipeline)
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    try:
        for _ in range(9):
            next(pipeline)
    except FourfoldError as error:
        print(error, flush=True)
        os._exit(0)
    os._exit(3)
"""


def test_a_forked_process_gets_an_error_and_does_not_hang(folder):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORK), str(folder)]
    done = subprocess.run(command, timeout=PATIENCE_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "build the pipeline after the fork" in done.stdout


def fourfold_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fourfold")]


def test_close_ends_every_thread_and_may_come_early_or_twice(folder):
    unused = build_pipeline(config_for(folder), seed=5)
    unused.close()
    pipeline = build_pipeline(config_for(folder, {"echo": {"sleep_s": 0.05}}, prefetch_batches=8), seed=5)
    next(pipeline)
    pipeline.close()
    pipeline.close()
    assert fourfold_threads() == []
    with pytest.raises(UsageError, match="closed"):
        next(pipeline)


def test_stage_stats_name_the_slow_stage(folder):
    with build_pipeline(config_for(folder, {"echo": {"sleep_s": 0.05}, "other_echo": {}}), seed=5) as pipeline:
        for _ in range(8):
            next(pipeline)
        stats = {stage.name: stage for stage in pipeline.stage_stats()}
    assert set(stats) == {"read", "decode", "echo", "other_echo"}
    assert bottleneck(list(stats.values())) == "echo"
    assert stats["echo"].num_items >= 32
    assert stats["echo"].busy_s >= 0.35
    assert stats["decode"].blocked_on_output_s > stats["decode"].busy_s


SCRIPT = """
    import sys
    from pathlib import Path
    from pipelines.build import PipelineConfig, build_pipeline
    config = PipelineConfig(images=Path(sys.argv[1]), tasks={"colorization": {}}, canvas_px=64, batch_size=4)
    pipeline = build_pipeline(config, seed=0)
    for step in pipeline:
        if step.index == 3:
            print("running", flush=True)
            if sys.argv[2] == "leave":
                break
"""


def start(folder, mode):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_that_leaves_without_close_ends(folder):
    output, errors = (process := start(folder, "leave")).communicate(timeout=PATIENCE_S)
    assert (process.returncode, output, errors) == (0, "running\n", "")


def test_ctrl_c_ends_the_process(folder):
    process = start(folder, "stay")
    assert process.stdout.readline() == "running\n"
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGINT
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
