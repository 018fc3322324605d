from benchmarks.suite.costs.forecast import forecast
from tests.made.made_graphs import made_graph, made_record

GRAPH = made_graph(4)  # 4 pretrainings, each with a probe behind it
NOTHING = {stage.key: None for stage in GRAPH.stages}


def test_work_and_wall_time_of_what_is_left() -> None:
    done = {
        stage.key: made_record(stage, seconds) for stage, seconds in zip(GRAPH.stages[:2], (600.0, 60.0), strict=True)
    }
    found = forecast(GRAPH, NOTHING | done, num_jobs=3)
    assert (found.work_s, found.wall_s, found.unknown) == (3 * 660.0, 660.0, ())
    assert found.slot_hours == 3 * 660 / 3600
    assert forecast(GRAPH, NOTHING | done, num_jobs=2).wall_s == 2 * 660.0


def test_kinds_of_which_none_has_finished_are_named_and_not_counted() -> None:
    found = forecast(GRAPH, NOTHING | {GRAPH.stages[0].key: made_record(GRAPH.stages[0], 10.0)}, num_jobs=1)
    assert (found.work_s, found.wall_s, found.unknown) == (30.0, 30.0, ("linear_probe",))
    assert forecast(GRAPH, NOTHING, num_jobs=1).unknown == ("pretrain", "linear_probe")
