"""Make steps ahead in threads of this process: one thread begins them, a pool decodes and makes the batches."""

import time
from collections.abc import Generator, Mapping
from dataclasses import replace

import torch

from pipelines.run.prefetch import Prefetcher
from pipelines.run.stage_stats import Listener, StageStats
from pipelines.run.step_maker import BegunStep, MadeStep, StepMaker

__all__ = ["StepThreads"]


class StepThreads:
    """Steps made by threads, with a bounded queue of begun steps before the consumer. See `stream.StepSource`."""

    def __init__(self, maker: StepMaker, depth: int, device: torch.device) -> None:
        """`depth`: steps held ready, besides the one that is being made; each costs the bytes of all its batches.
        `device`: where batches come to; a kind may be made on the CPU and the other there."""
        self.maker, self._device = maker, device
        self._depth = depth
        self._prefetcher: Prefetcher[BegunStep] | None = None

    def start(self, position: Mapping[str, int]) -> None:
        self._prefetcher = Prefetcher(self._begin_all(dict(position)), self._depth, "fourfold-pipeline")

    def get(self) -> MadeStep:
        assert self._prefetcher is not None
        made = self.maker.finish(self._prefetcher.get())
        if self._device.type == "cpu":
            return made
        batches = {name: batch.to(self._device) for name, batch in made.step.batches.items()}
        return replace(made, step=replace(made.step, batches=batches))

    def is_ready(self) -> bool:
        begun = self._prefetcher.first_ready() if self._prefetcher is not None else None
        return begun is not None and all(batch.done() for batch in begun.batches.values())

    def stop(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.stop()
            self._prefetcher = None

    def stats(self) -> tuple[StageStats, ...]:
        return self.maker.stats()

    def observe(self, listener: Listener | None) -> None:
        self.maker.observe(listener)

    def close(self) -> None:
        self.stop()
        self.maker.close()

    def _begin_all(self, position: dict[str, int]) -> Generator[BegunStep, None, None]:
        room_wait_s = 0.0
        self.maker.start()
        # The order: 1. begin a step, 2. hand it over, which blocks while the queue is full, 3. count that time. It goes
        # to the next step, whose tasks were idle because of it.
        while True:
            begun = self.maker.begin(position, room_wait_s)
            position = begun.after
            start_s = time.perf_counter()
            yield begun
            room_wait_s = time.perf_counter() - start_s
            self.maker.count_room_wait(room_wait_s)
