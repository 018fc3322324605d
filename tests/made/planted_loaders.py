"""Loaders that do one thing wrong, for the tests of what starts and ends them."""

import os
import sys
import time
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.loaders.setting import Batch, Batches, Setting
from tests.made.loader_settings import right_batches


class Right:
    """Does everything right; the others change one method."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def start(self, epoch: int) -> Batches:
        return (batch for batch in right_batches(self._setting))

    def let_go(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""


class Hanging(Right):
    """Waits for ever in a pass, and so does a worker of it; both ignore the polite end."""

    def start(self, epoch: int) -> Batches:
        worker = get_context("fork").Process(target=time.sleep, args=(600,))
        worker.start()
        print(f"worker {worker.pid}", file=sys.stderr, flush=True)
        time.sleep(600)
        yield Batch([], torch.empty(0))


class Dying(Right):
    def start(self, epoch: int) -> Batches:
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(7)


class Chatty(Right):
    """Prints where the answers go."""

    def start(self, epoch: int) -> Batches:
        print("a progress bar of the library")
        os.write(1, b"and a word from its C code\n")
        return super().start(epoch)


class Short(Right):
    """The first pass is whole; all others lack a batch."""

    def start(self, epoch: int) -> Batches:
        return (batch for batch in right_batches(self._setting)[: None if epoch == 0 else -1])


def absent(setting: Setting) -> Any:
    raise ModuleNotFoundError("No module\nnamed 'ffcv'")
