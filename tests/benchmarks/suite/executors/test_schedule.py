import copy

import pytest

from benchmarks.suite.executors import StageEvent
from benchmarks.suite.executors import schedule as schedule_module
from benchmarks.suite.executors.schedule import Schedule
from benchmarks.suite.stages import Stage
from tests.made.made_graphs import made_graph, made_record


def stage(name: str, *needs: Stage) -> Stage:
    return Stage(kind=name, label=name, key=name, config={}, inputs={}, needs=needs)


A, C = stage("a"), stage("c")
B, D = stage("b", A), stage("d", A, C)
E = stage("e", D)


def finished(one: Stage) -> StageEvent:
    """As it comes from another process: the stage is a copy."""
    return StageEvent(stage=copy.deepcopy(one), state="finished")


def test_stages_come_in_order_as_far_as_needs_allow() -> None:
    schedule = Schedule([A, B, C, D, E])
    assert (schedule.take(), schedule.take(), schedule.take()) == (A, C, None)
    schedule.close(finished(C))
    assert schedule.take() is None
    schedule.close(finished(A))
    assert (schedule.take(), schedule.take(), schedule.take()) == (B, D, None)
    for one in (B, D, E):
        assert not schedule.is_over
        schedule.close(finished(one))
    assert schedule.is_over


def test_a_failure_takes_down_all_that_need_it_and_nothing_else() -> None:
    schedule = Schedule([A, B, C, D, E])
    events = schedule.close(StageEvent(stage=C, state="failed", error="broken"))
    assert [(event.stage.key, event.state) for event in events] == [("c", "failed"), ("d", "failed"), ("e", "failed")]
    assert "c-c" in events[1].error
    assert "d-d" in events[2].error
    schedule.close(finished(A))
    assert schedule.take() is not None
    schedule.close(finished(B))
    assert schedule.is_over


def test_deferred_stage_comes_back_after_a_growing_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(schedule_module.time, "monotonic", lambda: now_s[0])
    schedule = Schedule([A, C])
    first = schedule.take()
    assert first is A
    pauses = []
    for _ in range(8):
        schedule.defer(A)
        pause_s = schedule.pause_s()
        assert pause_s is not None
        pauses.append(pause_s)
        assert schedule.take() in (C, None)
        now_s[0] += pause_s
        assert schedule.take() is A
    assert pauses[:3] == [0.25, 0.5, 1.0]
    assert pauses[-1] == 10.0


def test_every_stage_of_a_large_graph_comes_once() -> None:
    stages = made_graph(2000).stages
    schedule, taken = Schedule(stages), []
    while not schedule.is_over:
        one = schedule.take()
        assert one is not None
        taken.append(one)
        schedule.close(StageEvent(stage=one, state="finished", record=made_record(one)))
    assert taken == list(stages)


def evaluation(kind: str, trunk: str) -> Stage:
    config = {"shared_features": [{"split": "train"}]}
    return Stage(kind=kind, label=kind, key=f"{kind} {trunk}", config=config, inputs={"trunk": trunk})


def test_evaluations_wait_for_the_one_that_makes_their_features() -> None:
    one, two, three = (evaluation(kind, "a") for kind in ("probe", "knn", "few"))
    other = evaluation("probe", "b")
    schedule = Schedule([one, two, three, other])
    assert [schedule.take() for _ in range(3)] == [one, other, None]
    schedule.close(finished(one))
    assert [schedule.take() for _ in range(3)] == [two, three, None]
    for stage in (two, three, other):
        schedule.close(finished(stage))
    assert schedule.is_over


def test_stages_that_wait_for_one_another_are_an_error() -> None:
    schedule = Schedule([evaluation(kind, "a") for kind in ("probe", "knn")])
    assert schedule.take() is not None
    assert schedule.take() is None
    with pytest.raises(RuntimeError, match="2 stages wait for one another"):
        schedule.sleep()


@pytest.mark.parametrize("state", ["failed", "deferred"])
def test_another_evaluation_makes_the_features_where_the_first_does_not(state: str) -> None:
    one, two, three = (evaluation(kind, "a") for kind in ("probe", "knn", "few"))
    schedule = Schedule([one, two, three])
    assert [schedule.take(), schedule.take()] == [one, None]
    if state == "failed":
        schedule.close(StageEvent(stage=copy.deepcopy(one), state="failed", error="broken"))
    else:
        schedule.defer(one)
    assert [schedule.take(), schedule.take()] == [two, None]
    schedule.close(finished(two))
    assert schedule.take() is three
