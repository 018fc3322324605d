"""Standing questions: bounds by hand, crops that can and cannot be halved, worker processes tried beside threads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.profile.judge.standing_questions import (
    in_threads,
    reduced_decode,
    standing_questions,
    storage,
    worded,
    worker_processes,
)
from benchmarks.profile.model.queueing import ConsumerCost
from benchmarks.profile.profile_config import ProfileConfig
from tests.made.made_profiles import made_config, made_feed, made_measured, made_model

MakeShards = Callable[..., Path]


def test_free_reading_bounds_what_storage_can_give() -> None:
    # 16 ms of decoding and 8 of a task on two cores, and 1 ms of reading: 25 ms of CPU a step.
    assert storage(made_model(feed=made_feed(read_s=1e-3), consumer=ConsumerCost(step_wait_s=0.5))) == (
        "reading has 4.0% of the CPU time; were it free, x 1.00: no way of storing them helps"
    )


def test_reads_that_wait_are_what_storage_can_give() -> None:
    # 48 ms of waiting and 8 of decoding on two workers; without waiting (16 + 8) / 2 = 12 ms.
    answer = storage(made_model(feed=made_feed(waits_s=(0.048,)), num_cores=64.0, prefetch_batches=16))
    assert answer == "reading has 0.0% of the CPU time; were it free, x 4.67 is the most that storing can give"


def test_crops_of_four_canvases_are_halved() -> None:
    # Half of 400 px still has to be shrunk by 2 to 100 px; half of 399 px would be less.
    assert reduced_decode([400, 399, 120, 801], 100, "opencv").startswith("50% of the crops have the 400 px a side")
    assert (
        reduced_decode([399], 100, "opencv") == "of no use: 0% of the crops have the 400 px a side that halving takes"
    )
    assert "opencv would not" in reduced_decode([400], 100, "dali")


def test_of_clips_alone_nothing_is_asked_about_images() -> None:
    model = made_model(feed=made_feed(kind="clip"))
    assert [question for question, _ in standing_questions(made_measured(model))] == ["plain files, or other shards"]


def test_crops_are_those_of_the_plan(small_shards: MakeShards) -> None:
    folder = small_shards(images=6)
    pipeline = {"images": folder, "tasks": {"colorization": {}}, "canvas_px": 8, "batch_size": 4}
    config = ProfileConfig.model_validate({"pipeline": pipeline, "device": "cpu"})
    (_, (question, answer)) = standing_questions(made_measured(made_model(), config=config))
    assert question == "decoding in the DCT domain"
    assert "of the crops have the 32 px a side that halving takes" in answer


def test_processes_are_looked_at_as_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.profile.judge.standing_questions.num_cores", lambda: 2)
    config = in_threads(made_config(num_workers=3, batch_size=4))
    assert (config.pipeline.num_workers, config.pipeline.num_threads) == (0, 3)
    assert in_threads(made_config(num_workers=1)).pipeline.num_threads == 2
    threads = made_config(num_threads=1)
    assert in_threads(threads) is threads


def test_the_answer_says_what_was_seen() -> None:
    assert worded(4, 100.0, 150.0) == (
        "tried without a consumer: 150 samples/s, 100 in threads: num_workers: 4 gives x 1.50 where the "
        "pipeline is the limit"
    )
    assert worded(4, 100.0, 102.0).endswith("102 samples/s, 100 in threads: no use here")


def test_both_are_tried(small_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.profile.judge.standing_questions.WINDOW_S", 0.05)
    config = made_config(images=small_shards(8), canvas_px=32, batch_size=4, num_workers=1)
    assert "samples/s" in worker_processes(config)
