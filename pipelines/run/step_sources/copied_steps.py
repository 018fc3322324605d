"""Copy the batches of steps made on the CPU to the trainer's GPU, one step ahead, on a stream of their own.

The copy of a step runs while the trainer works on the step before. Not measured on a GPU.
"""

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from pipelines.base.errors import FourfoldError
from pipelines.run.stage_stats import Listener, StageStats
from pipelines.run.step_maker import MadeStep
from pipelines.run.stream import StepSource

__all__ = ["CopiedSteps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A step on the device, the event after its copy, and the step it is copied from."""

    made: MadeStep
    source: MadeStep
    end: torch.cuda.Event


class CopiedSteps:
    """Steps of another source, with their batches on a CUDA device. See `stream.StepSource`."""

    def __init__(self, source: StepSource, device: torch.device) -> None:
        self._source, self._device = source, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._ahead: _Copy | None = None
        self._running: deque[_Copy] = deque()

    def start(self, position: Mapping[str, int]) -> None:
        self._source.start(position)

    def get(self) -> MadeStep:
        # 1. The step whose copy began with the step before, or the next one.
        copy, self._ahead = self._ahead or self._begin(self._source.get()), None
        # 2. The trainer's stream waits for the copy; this thread does not.
        trainers = torch.cuda.current_stream(self._device)
        trainers.wait_event(copy.end)
        for batch in copy.made.step.batches.values():
            for tensor in (batch.inputs, batch.weight, *batch.target.values()):
                tensor.record_stream(trainers)
        # 3. The next step, if it is made. An error is raised again when that step is asked for.
        if self._source.is_ready():
            with suppress(FourfoldError):
                self._ahead = self._begin(self._source.get())
        return copy.made

    def is_ready(self) -> bool:
        return self._ahead is not None or self._source.is_ready()

    def stop(self) -> None:
        self._ahead = None
        self._stream.synchronize()
        self._running.clear()
        self._source.stop()

    def stats(self) -> tuple[StageStats, ...]:
        return self._source.stats()

    def observe(self, listener: Listener | None) -> None:
        self._source.observe(listener)

    def close(self) -> None:
        self.stop()
        self._source.close()

    def _begin(self, made: MadeStep) -> _Copy:
        """Begin to copy a step. Its memory is kept until the copy has ended: workers use it again afterwards."""
        while self._running and self._running[0].end.query():  # type: ignore[no-untyped-call]
            self._running.popleft()
        with torch.cuda.stream(self._stream):
            batches = {name: batch.to(self._device) for name, batch in made.step.batches.items()}
            end = torch.cuda.Event()  # type: ignore[no-untyped-call]
            end.record(self._stream)
        copy = _Copy(made=replace(made, step=replace(made.step, batches=batches)), source=made, end=end)
        self._running.append(copy)
        return copy
