"""Processes started by torchrun train as one run. What they share is in training/ranks.

Every rank starts from the same weights (they follow from the seed) and takes the same steps, so weights stay equal
without being sent. A rank that stops ends the run: the others fail at their next message to it.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import distributed

from pipelines.base.errors import FourfoldError, UsageError
from pipelines.decode.base import thread_count
from training.ranks.one_message import is_first_to_fail

__all__ = [
    "Ranks",
    "choose_device",
    "cpu_threads",
    "joined_ranks",
    "leave_group",
    "rank_message",
    "ranks_of_environment",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Place of this process among the processes of a run. `local_rank` counts on this machine and picks the GPU.

    group: torch's group of these processes; None: all of the run.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    group: distributed.ProcessGroup | None = field(default=None, repr=False, compare=False)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """Return for each flag whether any rank has it set, in one message. All ranks must call it.

        A rank that stops alone, or saves alone, leaves the others waiting. Raises FourfoldError if a rank is gone.
        """
        if self.world_size == 1:
            return list(flags)
        votes = torch.tensor([float(flag) for flag in flags], device=device)
        self.add_up(votes)
        return [vote > 0 for vote in votes.tolist()]

    def add_up(self, values: torch.Tensor) -> None:
        """Replace `values` by its sum over all ranks, in place. All ranks must call it.

        Raises FourfoldError if a rank is gone.
        """
        if self.world_size > 1:
            with rank_message():
                distributed.all_reduce(values, group=self.group)

    def wait(self) -> None:
        """Return once all ranks are here. Raises FourfoldError if a rank is gone."""
        if self.world_size > 1:
            with rank_message():
                distributed.barrier(group=self.group)


@contextmanager
def rank_message() -> Iterator[None]:
    """Raise FourfoldError for a message to the other ranks that fails inside the block."""
    try:
        yield
    except RuntimeError as error:
        # From here on torchrun may terminate this rank at any moment.
        is_first_to_fail()
        # The transport only knows that a connection closed. Its place in torch's sources and its advice are left out.
        reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0]
        raise FourfoldError(
            "Another rank of this run was killed or cannot be reached. Run the same command again: it resumes from the "
            f"last checkpoint. ({reason})"
        ) from error


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """ "auto": the rank's GPU if there is one, else the CPU. Raises UsageError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r}: need auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices. Use auto or cpu."
        )
    return device


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the block; 0 means OMP_NUM_THREADS, or else all cores but one.

    The last core is the pipeline's. When a core is taken, torch's other threads spin until the one on it is scheduled
    again: with 2 threads on a loaded machine of 2 cores, steps took 11 times as long as with 1.
    """
    before = torch.get_num_threads()
    all_but_one = before if "OMP_NUM_THREADS" in os.environ else max(1, thread_count(0) - 1)
    torch.set_num_threads(count or all_but_one)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ranks_of_environment() -> Ranks:
    """Return the place of this process among those that torchrun started; without torchrun, of one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Ranks()
    return Ranks(
        rank=int(os.environ.get("RANK", "0")),
        world_size=world_size,
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )


@contextmanager
def joined_ranks(device_name: str) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes torchrun started (if it did) for the time of the block."""
    ranks = ranks_of_environment()
    device = choose_device(device_name, ranks.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if ranks.world_size == 1 or distributed.is_initialized():
        yield ranks, device
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ranks, device
    except BaseException:
        # Before it leaves, by which the others fail: the first to ask is one that has the reason.
        is_first_to_fail()
        raise
    finally:
        leave_group()


def leave_group() -> None:
    """Leave the group of ranks, safely for a process that ends next."""
    distributed.destroy_process_group()
    # Gloo's threads still give back the tensors of the last messages, and need the interpreter for it: without this
    # rest, one rank in ten aborted at its end on a busy machine.
    time.sleep(0.25)
