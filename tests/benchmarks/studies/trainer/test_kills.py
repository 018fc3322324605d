"""A run killed by SIGKILL and resumed ends as an unbroken one, and the comparison can fail."""

import torch

from benchmarks.studies.trainer.kills import KillOptions, _unequal, measure


def test_a_killed_run_ends_in_the_same_bits() -> None:
    results = measure(KillOptions(num_kills=2, num_steps=12))
    assert results["problems"] == []
    assert len(results["kills"]) == 2
    # At most a checkpoint's steps, those of one that was still being written, and those until a late kill.
    assert results["most_steps_lost"] <= 6


def test_one_bit_is_a_difference() -> None:
    one = {"model": {"weight": torch.ones(3)}, "steps": [1, 2]}
    assert _unequal(one, {"model": {"weight": torch.ones(3)}, "steps": [1, 2]}) == []
    other = {"model": {"weight": torch.tensor([1.0, 1.0, 1.0000001])}, "steps": [1, 3]}
    assert _unequal(one, other) == [".model.weight", ".steps.1"]
