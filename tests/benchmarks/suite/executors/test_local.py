from collections.abc import Sequence

import pytest

from benchmarks.results.record import Record, environment
from benchmarks.suite.executors import StageEvent
from benchmarks.suite.executors.local import LocalExecutor
from benchmarks.suite.stages import Stage
from pipelines.base.errors import DataError

FIRST = Stage(kind="pretrain", label="a", key="1" * 64, config={}, inputs={})
SECOND = Stage(kind="linear_probe", label="a", key="2" * 64, config={}, inputs={}, needs=(FIRST,))
OTHER = Stage(kind="pretrain", label="b", key="3" * 64, config={}, inputs={})


def record(stage: Stage) -> Record:
    return Record(
        kind=stage.kind,
        key=stage.key,
        label=stage.label,
        date="2026-01-02T03:04:05Z",
        seconds=1.0,
        environment=environment(),
        config={"x": 1},
        inputs={},
        results={"x": 1},
    )


def told(events: Sequence[StageEvent]) -> list[tuple[str, str]]:
    return [(event.stage.key[0], event.state) for event in events]


def test_stages_run_in_order_and_give_their_records() -> None:
    events = list(LocalExecutor().run([FIRST, SECOND], record))
    assert told(events) == [("1", "started"), ("1", "finished"), ("2", "started"), ("2", "finished")]
    assert events[1].record == record(FIRST)


def test_failed_stage_takes_down_only_what_needs_it() -> None:
    def run(stage: Stage) -> Record:
        if stage is FIRST:
            raise DataError("no such shard; build it")
        return record(stage)

    events = list(LocalExecutor().run([FIRST, SECOND, OTHER], run))
    assert told(events) == [("1", "started"), ("1", "failed"), ("2", "failed"), ("3", "started"), ("3", "finished")]
    assert events[1].error == "no such shard; build it"
    assert FIRST.folder_name in events[2].error


def test_unexpected_error_keeps_its_trace() -> None:
    def run(stage: Stage) -> Record:
        raise ZeroDivisionError("oh")

    event = list(LocalExecutor().run([OTHER], run))[-1]
    assert event.error == "ZeroDivisionError: oh"
    assert "in run" in event.trace


def test_interrupt_goes_through() -> None:
    def run(stage: Stage) -> Record:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(LocalExecutor().run([FIRST], run))


def test_need_that_finished_before_is_no_obstacle() -> None:
    assert told(list(LocalExecutor().run([SECOND], record)))[-1] == ("2", "finished")
