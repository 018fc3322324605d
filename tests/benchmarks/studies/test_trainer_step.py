"""The study runs, and its two sides train the same weights."""

from benchmarks.studies.trainer_step import TrainerStepOptions, measure


def test_both_sides_are_equal_and_timed() -> None:
    options = TrainerStepOptions(num_steps=1, num_repeats=1, batch_size=2, depth=10, width=0.125, device="cpu")
    results = measure(options)
    assert results["ratio_of_medians"] > 0
    assert set(results["step_s"]) == {"trainer", "bare"}
