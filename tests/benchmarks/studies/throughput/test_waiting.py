"""Waiting: a simulated device waits as long as the pipeline makes it wait, and no longer."""

import time
from types import SimpleNamespace

import pytest

from benchmarks.studies.throughput.waiting import WaitingOptions, consume, shown, simulate
from tests.made.patience import retried


class Metronome:
    """A pipeline that gives a step every `step_s`, prepared while the device is busy."""

    def __init__(self, step_s):
        self.step_s, self.next_s = step_s, time.perf_counter()
        self.memory = SimpleNamespace(prefetch_batches=1)

    def __next__(self):
        time.sleep(max(self.next_s - time.perf_counter(), 0))
        self.next_s = max(self.next_s, time.perf_counter()) + self.step_s


@pytest.mark.parametrize(("rate_per_s", "wait_ratio"), [(0, 1.0), (400, 0.0), (1600, 0.5)])
def test_a_device_waits_for_what_the_pipeline_cannot_give(rate_per_s, wait_ratio):
    def check() -> None:
        # A step of 16 samples every 20 ms: 800 samples/s.
        found = consume(Metronome(0.02), rate_per_s, seconds=0.5, batch_size=16)
        assert found.wait_ratio == pytest.approx(wait_ratio, abs=0.15)
        assert found.samples_per_s <= 850

    retried(check)


def test_all_rates_of_a_real_pipeline(small_shards):
    options = WaitingOptions(canvas_px=32, batch_size=4, rates_per_s=(10, 1_000_000), num_repeats=1, seconds=0.3)
    results = simulate(small_shards(images=8), options)
    slow, fast = results["devices"]
    assert slow["wait_ratio"] < fast["wait_ratio"]
    assert fast["expected_wait_ratio"] > 0.9
    assert results["limit_samples_per_s"] in (0, 10)
    assert fast["cores_to_keep_up"] > results["num_threads"]
    assert len(list(shown({"simulated": results}))) == 3
