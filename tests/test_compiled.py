"""Compiled loops give what Python gives, and work where nothing can be kept on disk."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np

from pipelines.compiled import compiled

TRIED_WITHOUT_A_CACHE = """
import numba
from pipelines.compiled import compiled

def refuse(*args, **options):
    raise RuntimeError("cannot cache function: no locator available")

numba.core.dispatcher.Dispatcher.enable_caching = refuse
print(compiled(lambda number: number + 1)(41))
"""


@compiled
def total_of(numbers: np.ndarray, factor: float) -> float:
    total = 0.0
    for number in numbers:
        total += number * factor
    return total


def test_a_loop_gives_the_bits_that_python_gives() -> None:
    numbers = np.random.default_rng(0).normal(size=1000)
    expected = 0.0
    for number in numbers:
        expected += number * 0.3
    assert total_of(numbers, 0.3) == expected


def test_no_lock_of_pythons_is_held() -> None:
    seen, numbers = [], np.ones(300_000_000, np.int8)
    total_of(numbers[:10], 1.0)
    worker = Thread(target=lambda: seen.append(total_of(numbers, 1.0)))
    worker.start()
    num_turns = 0
    while worker.is_alive():
        num_turns += 1
        worker.join(0.001)
    # A thread that holds the lock gives nobody a turn before it is done.
    assert num_turns > 20
    assert seen == [300_000_000.0]


def test_without_a_folder_to_keep_code_in_it_compiles_for_itself() -> None:
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", TRIED_WITHOUT_A_CACHE], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout == "42\n", done.stderr
