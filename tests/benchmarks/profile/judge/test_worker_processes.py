"""Worker processes tried beside threads: the same batches, the number of threads, the sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.profile.judge.worker_processes import in_threads, try_workers, worded
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]


def test_processes_are_looked_at_as_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.profile.judge.worker_processes.num_cores", lambda: 2)
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
    monkeypatch.setattr("benchmarks.profile.judge.worker_processes.WINDOW_S", 0.05)
    config = made_config(images=small_shards(8), canvas_px=32, batch_size=4, num_workers=1)
    assert "samples/s" in try_workers(config)
