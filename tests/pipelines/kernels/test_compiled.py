"""Compiled loops give what Python gives, and work where nothing can be kept on disk."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np

from pipelines.kernels.compiled import compiled

# Of code from a command line Numba says that there is no folder to keep it in.
WITHOUT_A_FOLDER = """
from pipelines.kernels.compiled import compiled

print(compiled(lambda number: number + 1)(41))
"""
# No file may grow beyond 0 bytes: what a full disk does to whoever writes.
ON_A_FULL_DISK = """
import resource, signal
import torch
from pipelines.targets.color import lab

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(lab.lightness(torch.full((2, 2, 3), 255, dtype=torch.uint8)).sum().item())
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


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **variables}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_without_a_folder_to_keep_code_in_it_compiles_for_itself() -> None:
    done = run(WITHOUT_A_FOLDER)
    assert done.stdout == "42\n", done.stderr


def test_a_full_disk_costs_time_and_is_told(tmp_path: Path) -> None:
    done = run(ON_A_FULL_DISK, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout == "4.0\n", done.stderr
    assert f"compiled loops cannot be cached in {tmp_path}" in done.stderr
    assert "set NUMBA_CACHE_DIR to another folder" in done.stderr


CALLER = """
from callee import FACTOR, plus
from pipelines.kernels.compiled import compiled

@compiled
def both(x):
    return plus(FACTOR * x)
"""
CALLEE = """
from pipelines.kernels.compiled import compiled

FACTOR = {factor}

@compiled
def plus(x):
    return x + {added}
"""
CALL = """
import sys
sys.path.insert(0, {folder!r})
sys.dont_write_bytecode = True
from caller import both

print(both(10), sum(both.stats.cache_hits.values()))
"""


def found_after_changes(folder: Path, decorator: str, *changes: tuple[int, int]) -> list[str]:
    """By the callee's constant and what it adds: the caller's value, and how often its code came from disk."""
    (folder / "caller.py").write_text(CALLER.replace("@compiled", decorator))
    found = []
    for factor, added in changes:
        callee = CALLEE.format(factor=factor, added=added).replace("@compiled", decorator)
        (folder / "callee.py").write_text(callee)
        done = run(CALL.format(folder=str(folder)), NUMBA_CACHE_DIR=str(folder / "kept"))
        found.append(done.stdout.strip() or done.stderr)
    return found


def test_code_kept_on_disk_is_made_anew_when_a_constant_or_a_callee_elsewhere_changes(tmp_path: Path) -> None:
    found = found_after_changes(tmp_path, "@compiled", (2, 1), (2, 1), (3, 1), (3, 5))
    assert found == ["21 0", "21 1", "31 0", "35 0"]


def test_numbas_own_cache_takes_old_code_for_new(tmp_path: Path) -> None:
    """Why there is a cache of ours. Should this fail, Numba has learned it: `njit(cache=True)` can take its place."""
    found = found_after_changes(tmp_path, "@__import__('numba').njit(cache=True)", (2, 1), (3, 5))
    assert found == ["21 0", "21 1"]


READ_ONLY = """
import sys
sys.path.insert(0, {folder!r})
sys.dont_write_bytecode = True
from caller import both

print(both(10), both._cache.cache_path)
"""


def test_many_processes_at_once_beside_read_only_sources(tmp_path: Path) -> None:
    """As in a container: nothing can be written beside the sources, and all ranks start together, the cache empty."""
    (tmp_path / "caller.py").write_text(CALLER)
    (tmp_path / "callee.py").write_text(CALLEE.format(factor=2, added=1))
    # A file where the folder would be: nothing can be kept there, not even by root.
    (tmp_path / "__pycache__").touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "XDG_CACHE_HOME": str(tmp_path / "home")}
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-c", READ_ONLY.format(folder=str(tmp_path))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(3)]
    answers = [process.communicate() for process in processes]
    assert {out.split()[0] for out, _ in answers} == {"21"}, answers
    assert {Path(out.split()[1]).is_relative_to(tmp_path / "home") for out, _ in answers} == {True}
