import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipelines.base.rng import rng_for


def first(seed: int, epoch: int, key: str, task: str) -> int:
    return int(rng_for(seed, epoch, key, task).integers(2**62))


def test_same_address_same_numbers() -> None:
    np.testing.assert_array_equal(rng_for(1, 2, "a", "t").random(50), rng_for(1, 2, "a", "t").random(50))


def test_every_part_of_the_address_counts() -> None:
    addresses = list(itertools.product(range(4), range(4), ("a", "b", "ab", ""), ("x", "y", "a")))
    assert len({first(*address) for address in addresses}) == len(addresses)


def test_seed_and_epoch_do_not_add_up() -> None:
    # Seed 0 epoch 1 must not be seed 1 epoch 0, as it is where they are added.
    assert first(0, 1, "a", "t") != first(1, 0, "a", "t")
    assert first(0, 0, "a", "t") != first(0, 7, "a", "t")


def test_key_and_task_do_not_run_together() -> None:
    assert first(0, 0, "ab", "c") != first(0, 0, "a", "bc")
    assert first(0, 0, "a", "b") != first(0, 0, "b", "a")


def test_golden_numbers() -> None:
    # A change here changes every augmentation of every user: deliberate only, with a line in the CHANGELOG.
    assert rng_for(0, 0, "cat/0001", "canvas").integers(0, 1000, 5).tolist() == [854, 787, 640, 72, 640]


def test_another_process_draws_the_same() -> None:
    code = "from pipelines.base.rng import rng_for; print(rng_for(3, 1, 'ü', 't').integers(2**62))"
    root = Path(__file__).resolve().parents[3]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert int(found.stdout) == first(3, 1, "ü", "t")


def test_large_seeds_are_allowed() -> None:
    assert first(2**64 + 5, 2**40, "a", "t") != first(5, 2**40, "a", "t")
