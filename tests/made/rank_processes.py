"""Processes that are ranks of one run, started once for all checks of a test file."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from pipelines.base.progress import quiet_progress
from tests.made.patience import wait_until
from training.config import PretrainConfig
from training.loop import pretrain
from training.session import Session

__all__ = ["LONGEST_S", "is_stopped", "play", "play_phases"]

LONGEST_S = 600.0
FAILED = 1
"""Exit code of a rank whose scene raised an error."""


def play(scene: Callable[[int, Path], None], world_size: int, folder: Path, *, is_joined: bool = True) -> None:
    """Call `scene(rank, folder)` in `world_size` processes, and return when all have ended.

    is_joined: they are one gloo group from the start. To join first and leave at once would break off ranks that are
    still joining. A scene writes what it found into the folder: a rank that fails leaves `error<rank>.txt` there, which
    is raised.
    """
    # A server that has imported torch once, and forks: importing it in every process takes longer than the scenes.
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "training.loop", "tests.made.task_batches"])
    processes = [
        context.Process(target=_one_rank, args=(scene, rank, world_size, folder, is_joined))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    end_s = time.monotonic() + LONGEST_S
    while any(process.is_alive() for process in processes) and time.monotonic() < end_s:
        if any(process.exitcode == FAILED for process in processes):
            break  # others may wait for it
        time.sleep(0.05)
    # A rank that is still there hangs; its files are missing, and the tests say which.
    for process in processes:
        process.kill()
    errors = [path.read_text() for path in sorted(folder.glob("error*.txt"))]
    assert not errors, "\n".join(errors)


def play_phases(phase: Callable[[str, int, Path], None], phases: Mapping[str, int], folder: Path) -> None:
    """Call `phase(name, rank, folder)` name by name, each in a group of its own of `phases[name]` ranks."""
    play(partial(_all_phases, phase, phases), max(phases.values()), folder, is_joined=False)


def is_stopped(config: PretrainConfig, run_dir: Path, signal_at: int | None) -> bool:
    """Train, with a SIGTERM to this process in step `signal_at`, and return whether the run stopped before its end."""
    learn = Session.learn

    def signalled(self: Session, step: Any) -> None:
        if self.step == signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        learn(self, step)

    Session.learn = signalled  # type: ignore[method-assign]
    try:
        pretrain(config, run_dir, device="cpu")
    except KeyboardInterrupt:
        return True
    finally:
        Session.learn = learn  # type: ignore[method-assign]
    return False


def _all_phases(phase: Callable[[str, int, Path], None], phases: Mapping[str, int], rank: int, folder: Path) -> None:
    for name, world_size in phases.items():
        if rank < world_size:
            os.environ |= {"WORLD_SIZE": str(world_size)}
            if world_size > 1:
                store = f"file://{folder}/store-{name}"
                distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
            with quiet_progress():
                phase(name, rank, folder)
            if world_size > 1:
                distributed.barrier()
                distributed.destroy_process_group()
        (folder / f"{name}{rank}.done").touch()
        wait_until(lambda name=name: len(list(folder.glob(f"{name}*.done"))) == max(phases.values()))


def _one_rank(scene: Callable[[int, Path], None], rank: int, world_size: int, folder: Path, is_joined: bool) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    exit_code = 0
    try:
        if is_joined:
            store = f"file://{folder}/store"
            distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
        scene(rank, folder)
        # Gloo's threads may still send the last message to another rank.
        time.sleep(0.25)
    except BaseException:
        exit_code = FAILED
        (folder / f"error{rank}.txt").write_text(f"rank {rank}: {traceback.format_exc()}")
    finally:
        # Not an ordinary end: leaving the group of a killed rank waits for it.
        os._exit(exit_code)
