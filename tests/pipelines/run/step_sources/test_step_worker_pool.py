"""Worker processes: the same batches as threads make, and no way in which they can hang, leak or stay behind."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from pipelines.base.errors import DataError, FourfoldError, UsageError
from pipelines.build import Pipeline, PipelineConfig, build_pipeline, memory_of
from pipelines.tasks import TASKS
from pipelines.tasks.colorization import Colorization, ColorizationConfig
from tests.made.patience import PATIENCE_S, seconds_here
from tests.made.pictures import Stored, stored_clips, stored_images, write_folder
from tests.made.restore_every_step import digest

TASK_MIX = {
    "relative_position": {"task_weight": 0.6, "color": "gray"},
    "colorization": {"task_weight": 0.7},
    "exemplar": {},
    "motion_segmentation": {"task_weight": 0.4},
}
SMALL = {"canvas_px": 32, "clip_height_px": 32, "clip_width_px": 32, "num_frames": 4, "batch_size": 4}
NUM_STEPS = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 images, of which two are broken, and 5 clips."""
    junk = [Stored(key=f"bad{one}", suffix="jpg", encoded=b"junk" * 9, width=40, height=40) for one in range(2)]
    samples = [*stored_images(21), *junk, *stored_clips(5, num_frames=4)]
    return write_folder(tmp_path_factory.mktemp("shards") / "mixed", samples)


def config_of(folder: Path, num_workers: int = 2, **options) -> PipelineConfig:
    given = {"images": folder, "clips": folder, "tasks": TASK_MIX, "clip_batch_size": 2, "max_failure_ratio": 0.5}
    return PipelineConfig(**(given | SMALL | {"num_workers": num_workers} | options))


def digests(pipeline: Pipeline, count: int = NUM_STEPS) -> list[str]:
    return [digest(step) for step in itertools.islice(pipeline, count)]


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[str]:
    with build_pipeline(config_of(folder, 0), seed=3) as pipeline:
        return digests(pipeline)


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Pipeline]:
    """Sent back to its start by every test that uses it, because processes take seconds to start."""
    with build_pipeline(config_of(folder), seed=3) as pipeline:
        yield pipeline


@pytest.fixture
def pipeline(shared: Pipeline) -> Pipeline:
    shared.restore({"step": 0, "image_batch": 0, "clip_batch": 0})
    return shared


def test_the_batches_are_those_of_threads(pipeline: Pipeline, expected: list[str]) -> None:
    assert digests(pipeline) == expected


@pytest.mark.parametrize("num_workers", [1, 4])
def test_the_batches_do_not_depend_on_the_number(folder: Path, expected: list[str], num_workers: int) -> None:
    with build_pipeline(config_of(folder, num_workers), seed=3) as pipeline:
        assert digests(pipeline) == expected


def test_a_restart_at_any_step_gives_the_rest(pipeline: Pipeline, expected: list[str]) -> None:
    saved = [pipeline.position()]
    for _ in itertools.islice(pipeline, NUM_STEPS - 2):
        saved.append(json.loads(json.dumps(pipeline.position())))
    for start, position in enumerate(saved):
        pipeline.restore(position)
        assert digests(pipeline, 2) == expected[start : start + 2]


def test_steps_that_are_held_are_not_written_over(pipeline: Pipeline, expected: list[str]) -> None:
    assert [digest(step) for step in list(itertools.islice(pipeline, NUM_STEPS))] == expected


def test_a_batch_may_be_written_to(pipeline: Pipeline, expected: list[str]) -> None:
    for _, step in zip(range(NUM_STEPS // 2), pipeline, strict=False):
        for batch in step.batches.values():
            batch.weight.zero_()
    assert digests(pipeline, 4) == expected[NUM_STEPS // 2 : NUM_STEPS // 2 + 4]


def test_memory_is_used_again(pipeline: Pipeline) -> None:
    for _ in itertools.islice(pipeline, 60):
        pass
    first = num_mapped()
    for _ in itertools.islice(pipeline, 120):
        pass
    # Twice as many steps again would take 360 more if nothing was used again; a busy machine holds some more at a time.
    assert num_mapped() <= 1.5 * first


def num_mapped() -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("memfd:fourfold")


def test_faults_are_reported(pipeline: Pipeline, folder: Path) -> None:
    with build_pipeline(config_of(folder, 0), seed=3) as threads:
        expected = [step.faults for step in itertools.islice(threads, NUM_STEPS)]
    assert [step.faults for step in itertools.islice(pipeline, NUM_STEPS)] == expected
    assert any(expected)


def test_stages_of_all_processes_are_counted_and_heard_of(pipeline: Pipeline) -> None:
    before = {stage.name: stage.num_items for stage in pipeline.stage_stats()}
    heard: list[tuple[str, float, float, str]] = []
    pipeline.observe(lambda *told: heard.append(told))
    num_examples = sum(len(step.batches["exemplar"].keys) for step in itertools.islice(pipeline, 12))
    pipeline.observe(None)
    now = {stage.name: stage for stage in pipeline.stage_stats()}
    assert now["exemplar"].num_items - before["exemplar"] >= num_examples == 48
    assert now["exemplar"].busy_s > 0
    assert {stage for stage, *_ in heard} == {"read", "decode", *TASK_MIX}
    assert {where.split()[0] for *_, where in heard} == {"worker-0", "worker-1"}
    assert all(end_s - start_s >= 0 and start_s > time.perf_counter() - 600 for _, start_s, end_s, _ in heard)


def test_a_killed_process_is_an_error_within_seconds(folder: Path) -> None:
    before = children()
    pipeline = build_pipeline(config_of(folder), seed=3)
    next(pipeline)
    first, _ = [one for one in children() if one not in before]
    first.kill()
    start_s = time.monotonic()
    with pytest.raises(FourfoldError, match=r"Worker process \d+ was killed by SIGKILL\..* lower num_workers"):
        list(pipeline)
    assert time.monotonic() - start_s < seconds_here(10)
    assert children() == before


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "step_worker" in " ".join(one.cmdline())]


def test_close_ends_the_processes_and_may_come_early_or_twice(folder: Path) -> None:
    build_pipeline(config_of(folder), seed=3).close()
    before = len(children())
    pipeline = build_pipeline(config_of(folder), seed=3)
    assert len(children()) == before  # nothing is started before the first step is asked for
    next(pipeline)
    pipeline.close()
    pipeline.close()
    assert len(children()) == before
    with pytest.raises(UsageError, match="closed"):
        next(pipeline)


def test_what_was_done_is_known_after_the_end(folder: Path) -> None:
    with build_pipeline(config_of(folder, 1), seed=3) as pipeline:
        for _ in itertools.islice(pipeline, 3):
            pass
    assert {stage.name: stage.num_items for stage in pipeline.stage_stats()}["exemplar"] >= 12


def test_a_forked_process_gets_an_error_and_leaves_the_workers_alone(pipeline: Pipeline, expected: list[str]) -> None:
    next(pipeline)
    receiver, sender = os.pipe()
    if not (child := os.fork()):
        try:
            next(pipeline)
        except FourfoldError as error:
            os.write(sender, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"after the fork" in os.read(receiver, 1000)
    assert digests(pipeline, 5) == expected[1:6]


def test_steps_outlive_the_pipeline(folder: Path, expected: list[str]) -> None:
    with build_pipeline(config_of(folder), seed=3) as pipeline:
        step = next(pipeline)
    assert digest(step) == expected[0]


def test_an_error_comes_where_it_came_in_threads(tmp_path: Path) -> None:
    junk = [Stored(key=f"bad{one}", suffix="jpg", encoded=b"junk" * 9, width=40, height=40) for one in range(40)]
    broken = write_folder(tmp_path / "broken", junk)
    pipeline = build_pipeline(config_of(broken, 1, tasks={"exemplar": {}}), seed=3)
    with pytest.raises(DataError, match="All 4 samples of a batch failed"):
        next(pipeline)


def test_a_configuration_that_cannot_work_is_refused_before_a_process_starts(folder: Path) -> None:
    with pytest.raises(UsageError, match="batch_size = 4: over 3 ranks"):
        build_pipeline(config_of(folder), seed=3, world_size=3)
    with pytest.raises(UsageError, match="seed -1"):
        build_pipeline(config_of(folder), seed=-1)


def test_a_task_that_only_this_process_knows_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = type("Other", (Colorization,), {"name": "other"})
    monkeypatch.setitem(TASKS, "other", other)
    pipeline = build_pipeline(config_of(folder, 1, tasks={"other": {}}), seed=3)
    with pytest.raises(UsageError, match=r"does not know task 'other'.*num_workers: 0"):
        next(pipeline)


def test_options_that_only_this_process_knows_are_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherConfig(ColorizationConfig):
        pass

    other = type("Other", (Colorization,), {"name": "other", "config_class": OtherConfig})
    monkeypatch.setitem(TASKS, "other", other)
    pipeline = build_pipeline(config_of(folder, 1, tasks={"other": {}}), seed=3)
    with pytest.raises(UsageError, match=r"OtherConfig.*num_workers: 0"):
        next(pipeline)


def test_each_process_adds_a_step_to_the_memory(folder: Path) -> None:
    threads, processes = memory_of(config_of(folder, 0)), memory_of(config_of(folder, 3))
    step_bytes = threads.step_bytes + threads.pixels_bytes
    assert processes.peak_bytes - threads.peak_bytes == 2 * step_bytes


@pytest.mark.cuda
def test_batches_arrive_on_the_device(folder: Path) -> None:
    with build_pipeline(config_of(folder), seed=3, device="cuda") as pipeline:
        step = next(pipeline)
    with build_pipeline(config_of(folder, 0), seed=3, device="cpu") as pipeline:
        same = next(pipeline)
    for name, batch in step.batches.items():
        assert batch.inputs.device.type == batch.weight.device.type == "cuda"
        assert torch.equal(batch.inputs.cpu(), same.batches[name].inputs)


SCRIPT = """
    import os, sys
    from pathlib import Path
    import psutil
    from pipelines.build import PipelineConfig, build_pipeline
    config = PipelineConfig(
        images=Path(sys.argv[1]), tasks={"colorization": {}}, canvas_px=32, batch_size=4, num_workers=2,
        max_failure_ratio=0.5,
    )
    pipeline = build_pipeline(config, seed=0)
    for step in pipeline:
        if step.index == 3:
            print(*[one.pid for one in psutil.Process().children()], flush=True)
            if sys.argv[2] == "leave":
                break
"""
"""Without `if __name__ == "__main__"`, as one may write it."""


def start(folder: Path, mode: str, cwd: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), mode]
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": root},
        start_new_session=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    workers = []
    for pid in map(int, line.split()):
        with contextlib.suppress(psutil.NoSuchProcess):  # left already
            workers.append(psutil.Process(pid))
    return process, workers


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def test_a_script_that_leaves_without_close_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    process, workers = start(folder, "leave", tmp_path)
    _, errors = finished(process)
    assert (process.returncode, errors) == (0, "")
    assert psutil.wait_procs(workers, timeout=PATIENCE_S)[1] == []


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_a_parent_that_is_killed(folder: Path, tmp_path: Path, ending: signal.Signals) -> None:
    process, workers = start(folder, "stay", tmp_path)
    assert len(workers) == 2
    process.send_signal(ending)
    _, errors = finished(process)
    assert errors == ""
    assert psutil.wait_procs(workers, timeout=PATIENCE_S)[1] == []


def test_ctrl_c_ends_all_and_only_one_of_them_says_so(folder: Path, tmp_path: Path) -> None:
    process, workers = start(folder, "stay", tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = finished(process)
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1
    assert psutil.wait_procs(workers, timeout=PATIENCE_S)[1] == []
