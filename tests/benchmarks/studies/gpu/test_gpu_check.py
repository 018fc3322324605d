"""The script a GPU owner runs once: on a CPU it finds DALI and OpenCV equal, refuses without a GPU, and is complete."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.harness.turns import Timed
from benchmarks.studies.gpu import gpu_check, gpu_jobs
from benchmarks.studies.gpu.gpu_check import STUDY, GpuOptions, auto_is_right, limits_of
from benchmarks.studies.gpu.gpu_checks import (
    Comparison,
    Sizes,
    check_clips,
    check_images,
    check_restarts,
    check_tasks,
)
from benchmarks.studies.gpu.gpu_jobs import compiled, time_jobs
from pipelines.decode.choice import choose_backend
from pipelines.shards.format.manifest import load_manifest
from pipelines.tasks.base import CanvasSpec
from tests.made.dali import needs_dali

ROOT = Path(__file__).resolve().parents[4]
CPU = torch.device("cpu")
SMALL = Sizes(
    batch_size=4,
    clip_batch_size=2,
    canvas=CanvasSpec(canvas_px=32, clip_height_px=48, clip_width_px=64, num_frames=6),
)


@needs_dali
@pytest.mark.parametrize("check", [check_images, check_clips, check_tasks])
def test_every_comparison_holds_on_a_cpu(check, small_shards):
    found = list(check(small_shards(images=6, clips=3), CPU, SMALL))
    assert found
    assert [one for one in found if not one.is_ok] == []


@needs_dali
def test_restarts_are_exact_on_a_cpu(small_shards):
    assert check_restarts(small_shards(images=6, clips=3), CPU, SMALL).found == 0


def test_a_difference_beyond_what_is_allowed_is_none_to_pass():
    assert Comparison(name="", unit="", found=1.0, allowed=1.0).is_ok
    assert not Comparison(name="", unit="", found=1.1, allowed=1.0).is_ok


def test_jobs_take_turns_and_the_first_round_does_not_count():
    called = []
    jobs = {name: ("items", 10, lambda name=name: (called.append(name), time.sleep(0.001))) for name in ("a", "b")}
    found = time_jobs(jobs, CPU, num_repeats=3)
    assert sorted(called) == ["a"] * 4 + ["b"] * 4
    assert [(name, len(one.seconds)) for name, one in found.items()] == [("a", 3), ("b", 3)]
    assert 0 < found["a"].median_per_s < 10_000


def test_the_choice_of_auto_is_held_against_the_timings():
    whats = ("decode images", "decode clips", "pipeline image tasks", "pipeline motion_segmentation")
    seconds = {"dali": 2.0, "opencv": 1.0}
    timings = {
        f"{what}, {name}": Timed(name="", unit="images", num_items=10, seconds=(seconds[name],))
        for what in whats
        for name in seconds
    }
    verdict = auto_is_right(timings, CPU)
    assert verdict["choice"] == choose_backend("auto", CPU).name == "opencv"
    assert set(verdict["faster"].values()) == {"opencv"}


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        STUDY.main([])
    assert "no GPU here; --device cpu" in capsys.readouterr().err


def test_preparing_makes_shards_of_both_kinds_and_no_record(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_check, "NUM_IMAGES", 2)
    monkeypatch.setattr(gpu_check, "NUM_CLIPS", 1)
    out = tmp_path / "check.json"
    STUDY.main(["--prepare", str(tmp_path / "data"), "--out", str(out)])
    assert f"--shards {tmp_path / 'data' / 'shards'}" in capsys.readouterr().out
    made = load_manifest(tmp_path / "data" / "shards")
    assert len(made.select("image", "train")) == 2
    assert len(made.select("clip", "train")) >= 1
    assert not out.exists()


def test_a_folder_that_cannot_be_used_is_named_before_anything_is_checked(small_shards, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("")
    for words in (["--prepare", taken], ["--device", "cpu", "--shards", small_shards()]):
        with pytest.raises(SystemExit, match="2"):
            STUDY.main([*map(str, words), "--out", str(tmp_path / "check.json")])
        told = capsys.readouterr()
        assert str(words[-1]) in told.err
        assert "-- check" not in told.out


def test_what_was_left_out_or_failed_is_told_at_the_end():
    results = {"num_failed": 0, "checks": [], "failed": {"tasks": "RuntimeError: memory"}, "skipped": ["a", "b"]}
    assert list(gpu_check.summary(results)) == [
        "failed, see above: tasks",
        "left out, since --budget-s was used up: a, b",
    ]


def test_the_record_is_written_even_if_something_differs(monkeypatch, tmp_path, small_shards, capsys):
    out = tmp_path / "check.json"
    differs: dict = {"checks": [{"name": "crop", "is_ok": False}], "num_failed": 1, "failed": {}, "skipped": []}
    monkeypatch.setattr(gpu_check, "run", lambda *_: iter([differs]))
    with pytest.raises(SystemExit, match="1"):
        STUDY.main(["--device", "cpu", "--shards", str(small_shards(clips=1)), "--out", str(out)])
    assert "1 of 1 comparisons differ; nothing was timed" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["results"] == differs
    assert {"date", "environment", "config", "seconds"} <= set(record)


COMPILED_WHOLE = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from benchmarks.studies.gpu.gpu_checks import pixel_arithmetic
from tests.benchmarks.studies.gpu.test_gpu_check import SMALL

with FakeTensorMode(allow_non_fake_inputs=True):
    for call in pixel_arithmetic(torch.device("cuda", 0), SMALL).values():
        out = torch.compile(call, fullgraph=True, backend="aot_eager")()
        print(out.device, *out.shape)
"""


def test_what_is_to_be_compiled_is_one_graph_each():
    # As in test_device_paths.py, in a process of its own.
    done = subprocess.run([sys.executable, "-c", COMPILED_WHOLE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["cuda:0 4 32 32", "cuda:0 8 3 12 12"]


def test_the_trial_of_compiling_tells_how_fast_and_how_far_off(monkeypatch):
    calls = {"a third of one": lambda: torch.ones(4) / 3}
    monkeypatch.setattr(gpu_jobs, "pixel_arithmetic", lambda *_: calls)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    (row,) = compiled(CPU, SMALL, num_repeats=3)
    assert (row["name"], row["largest_difference"]) == ("a third of one", 0)
    plain, other = row["timings"]
    assert row["times_as_fast"] == pytest.approx(other["median"] / plain["median"], rel=0.2)
    assert len(plain["repeats"]) == len(other["repeats"]) == 3


def sections_of(monkeypatch, *names: str, failing: str = "") -> list[dict]:
    """Run sections of these names, with one check before them."""

    def section(name: str):
        def add(results):
            if name == failing:
                raise RuntimeError("out of memory")
            results[name] = 1

        return name, add

    monkeypatch.setattr(gpu_check, "check_sections", lambda *_: iter([section("check")]))
    monkeypatch.setattr(gpu_check, "time_sections", lambda *_: map(section, names))
    options = GpuOptions(device="cpu", is_quick=True, budget_s=0.0 if failing == "all" else 60.0)
    return [json.loads(json.dumps(results)) for results in gpu_check.run(Path(), CPU, options)]


def test_results_grow_section_by_section(monkeypatch):
    found = sections_of(monkeypatch, "one", "two")
    assert [len(results["sections"]) for results in found] == [1, 2, 3, 3]
    assert [("one" in results, "two" in results) for results in found[:3]] == [(0, 0), (1, 0), (1, 1)]


def test_a_section_that_fails_is_named_and_the_next_is_done(monkeypatch):
    (*_, last) = sections_of(monkeypatch, "one", "two", "three", failing="two")
    assert (last["one"], last["three"]) == (1, 1)
    assert last["failed"] == {"two": "RuntimeError: out of memory"}
    assert STUDY.is_failed(last)


def test_a_check_that_cannot_run_is_named_and_timing_goes_on(monkeypatch):
    (*_, last) = sections_of(monkeypatch, "one", failing="check")
    assert last["failed"] == {"check": "RuntimeError: out of memory"}
    assert [one["name"] for one in last["sections"]] == ["one"]


def test_sections_beyond_the_budget_are_named(monkeypatch):
    (*_, last) = sections_of(monkeypatch, "one", "two", failing="all")
    assert last["skipped"] == ["one", "two"]
    assert [one["name"] for one in last["sections"]] == ["check"]


def test_a_killed_run_has_written_the_sections_before(monkeypatch, tmp_path, small_shards, capsys):
    out = tmp_path / "check.json"

    def cut_off(*_):
        yield {"sections": ["one"], "num_failed": 0}
        yield {"sections": ["one", "two"], "num_failed": 0}
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_check, "run", cut_off)
    with pytest.raises(SystemExit, match="130"):
        STUDY.main(["--device", "cpu", "--quick", "--shards", str(small_shards(clips=1)), "--out", str(out)])
    assert f"interrupted; {out} holds what was measured before" in capsys.readouterr().err
    record = json.loads(out.read_text())
    assert record["results"]["sections"] == ["one", "two"]
    assert record["config"]["is_quick"] is True


def test_speeds_are_held_against_bare_decoding():
    def timed(seconds: float) -> Timed:
        return Timed(name="", unit="images", num_items=10, seconds=(seconds,))

    names = {"decode images, dali": 1.0, "decode clips, dali": 2.0, "pipeline image tasks, dali": 4.0}
    names |= {"pipeline motion_segmentation, dali": 4.0, "pipeline all tasks, dali": 1.0, "task exemplar": 1.0}
    assert limits_of({name: timed(seconds) for name, seconds in names.items()}) == {
        "pipeline image tasks, dali": 0.25,
        "pipeline motion_segmentation, dali": 0.5,
    }


@pytest.mark.cuda
@pytest.mark.gpu_only
def test_the_whole_check_on_a_gpu(small_shards, tmp_path):
    options = GpuOptions(device="cuda", is_quick=True)
    (*_, results) = gpu_check.run(small_shards(images=16, clips=8), torch.device("cuda", 0), options)
    assert results["failed"] == {}
    assert [check for check in results["checks"] if not check["is_ok"]] == []
    assert {row["name"] for row in results["timings"]} >= {"decode images, dali", "copy to device, page-locked"}
    assert len(results["compiled"]) == 2
    assert all(row["largest_difference"] < 1e-4 for row in results["compiled"])
