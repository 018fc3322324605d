import numpy as np
import pytest

from benchmarks.results.record import Record
from benchmarks.suite.costs.time_left import TimeLeft, cost_class
from benchmarks.suite.stages import Stage
from tests.made.made_graphs import made_graph, made_record

STAGES = made_graph(10).stages


def slow(
    stages: list[Stage], records: dict[str, Record | None], calibrated_s: dict[str, float] | None = None
) -> float | None:
    """The definition, stage by stage: the mean over finished stages of the finest class that has any.

    Calibrated seconds come after those of the same work, times what finished stages of the kind took of theirs.
    """
    total_s, given = 0.0, calibrated_s or {}
    for stage in stages:
        if records[stage.key] is not None:
            continue
        one = cost_class(stage)
        for name in ("work", "calibrated", "at_depth", "kind"):
            if name == "calibrated":
                if one.work in given:
                    done = [
                        (record.seconds, given[cost_class(other).work])
                        for other in stages
                        if cost_class(other).kind == one.kind
                        and cost_class(other).work in given
                        and (record := records[other.key]) is not None
                    ]
                    taken_s, promised_s = (sum(part) for part in zip(*done, strict=True)) if done else (1.0, 1.0)
                    total_s += given[one.work] * taken_s / promised_s
                    break
                continue
            alike = [
                record.seconds
                for other in stages
                if getattr(cost_class(other), name) == getattr(one, name) and (record := records[other.key]) is not None
            ]
            if alike:
                total_s += sum(alike) / len(alike)
                break
        else:
            return None
    return total_s


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_after_every_event_it_is_the_mean_over_stages_alike(share: float) -> None:
    """share: of the kinds of work, calibrated before."""
    rng = np.random.default_rng(0)
    works = list(dict.fromkeys(cost_class(stage).work for stage in STAGES))
    calibrated_s = {work: float(rng.uniform(1, 9)) for work in works[: round(share * len(works))]}
    records: dict[str, Record | None] = {stage.key: None for stage in STAGES}
    left = TimeLeft(STAGES, records, calibrated_s)
    assert (left.total_s() is None) == (share < 1)
    for place in rng.permutation(len(STAGES)):
        stage, seconds = STAGES[place], float(rng.uniform(1, 9))
        records[stage.key] = made_record(stage, seconds)
        left.finish(stage, seconds)
        expected = slow(list(STAGES), records, calibrated_s)
        assert left.total_s() == (None if expected is None else pytest.approx(expected))
        again = TimeLeft(STAGES, records, calibrated_s).total_s()
        assert again == (None if expected is None else pytest.approx(expected))
    assert left.total_s() == pytest.approx(0)


def test_stage_that_is_dropped_costs_nothing() -> None:
    records = {stage.key: None for stage in STAGES} | {stage.key: made_record(stage, 2.0) for stage in STAGES[:4]}
    left = TimeLeft(STAGES, records)
    before_s = left.total_s()
    assert before_s == pytest.approx(2.0 * (len(STAGES) - 4))
    left.finish(STAGES[-1], None)
    assert left.total_s() == pytest.approx(before_s - 2.0)


def test_seed_and_places_do_not_change_the_class_of_a_stage_but_the_task_does() -> None:
    one = {"pipeline": {"tasks": {"exemplar": {}}, "images": "/a"}, "trunk": {"depth": 10}, "seed": 0}
    other = {"pipeline": {"tasks": {"exemplar": {}}, "images": "/b"}, "trunk": {"depth": 10}, "seed": 1}
    third = {"pipeline": {"tasks": {"colorization": {}}, "images": "/b"}, "trunk": {"depth": 10}, "seed": 1}
    classes = [
        cost_class(Stage(kind="pretrain", label="a", key="k", config=config, inputs={}))
        for config in (one, other, third)
    ]
    assert classes[0] == classes[1] != classes[2]
    assert classes[1].at_depth == classes[2].at_depth == ("pretrain", 10)


def test_calibrated_seconds_count_until_a_stage_of_that_work_has_finished() -> None:
    records = {stage.key: None for stage in STAGES}
    works = {cost_class(stage).work for stage in STAGES}
    left = TimeLeft(STAGES, records, calibrated_s={work: 3.0 for work in works})
    assert left.total_s() == pytest.approx(3.0 * len(STAGES))
    left.finish(STAGES[0], 5.0)
    assert left.of(STAGES[8]) == 5.0  # the same work, with another seed
    assert left.of(STAGES[2]) == pytest.approx(5.0)  # other work of the kind: slower by as much
    assert left.of(STAGES[1]) == 3.0  # another kind
