"""Copies one step ahead. Streams and events are stand-ins that note what is done; a GPU test is in -m cuda."""

import contextlib
from collections import deque

import pytest
import torch

from pipelines.base.errors import DataError
from pipelines.run.step_maker import MadeStep, Step
from pipelines.run.step_sources import copied_steps
from pipelines.run.step_sources.copied_steps import CopiedSteps
from pipelines.tasks.base import TaskBatch

META = torch.device("meta")  # a device that is not the CPU and is everywhere


class Event:
    done = False

    def record(self, stream: object) -> None:
        pass

    def query(self) -> bool:
        return self.done


class Stream:
    def __init__(self, _: torch.device) -> None:
        self.waited: list[Event] = []

    def wait_event(self, event: Event) -> None:
        self.waited.append(event)

    def synchronize(self) -> None:
        pass


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The trainer's stream."""
    current = Stream(META)
    monkeypatch.setattr(copied_steps.torch.cuda, "Stream", Stream)
    monkeypatch.setattr(copied_steps.torch.cuda, "Event", Event)
    monkeypatch.setattr(copied_steps.torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(copied_steps.torch.cuda, "current_stream", lambda _: current)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    return current


class Source:
    """Steps or errors that are made at once, up to a number."""

    def __init__(self, *steps: MadeStep | Exception) -> None:
        self.steps, self.taken = deque(steps), 0

    def get(self) -> MadeStep:
        one = self.steps[0]
        if isinstance(one, Exception):
            raise one
        self.taken += 1
        return self.steps.popleft()

    def is_ready(self) -> bool:
        return bool(self.steps)


def made(index: int) -> MadeStep:
    batch = TaskBatch(
        task="t", inputs=torch.zeros(2, 3), target={"y": torch.ones(2)}, weight=torch.ones(2), keys=("a", "b")
    )
    return MadeStep(step=Step(index=index, batches={"t": batch}), num_samples=2, after={"step": index + 1})


def test_batches_come_in_order_on_the_device_and_the_next_copy_runs_ahead(trainers: Stream) -> None:
    source = Source(*(made(index) for index in range(3)))
    steps = CopiedSteps(source, META)
    for index in range(3):
        found = steps.get()
        batch = found.step.batches["t"]
        assert (found.step.index, found.after) == (index, {"step": index + 1})
        assert {batch.inputs.device, batch.weight.device, batch.target["y"].device} == {META}
        assert source.taken == min(index + 2, 3)
    # The trainer's stream waited for the end of every copy that it got.
    assert len(set(trainers.waited)) == 3


def test_an_error_ahead_comes_with_its_own_step(trainers: Stream) -> None:
    steps = CopiedSteps(Source(made(0), DataError("second")), META)
    assert steps.get().step.index == 0
    with pytest.raises(DataError, match="second"):
        steps.get()


def test_the_memory_of_a_step_is_kept_until_its_copy_has_ended(trainers: Stream) -> None:
    steps = CopiedSteps(Source(*(made(index) for index in range(4))), META)
    steps.get()
    steps.get()
    assert [copy.source.step.index for copy in steps._running] == [0, 1, 2]
    steps._running[0].end.done = True
    steps.get()
    assert [copy.source.step.index for copy in steps._running] == [1, 2, 3]
