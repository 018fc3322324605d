"""Lines of progress, and that a suite four times as large takes about four times as long: CPU time, not wall time."""

import time
from pathlib import Path

from benchmarks.suite.executors import StageEvent
from benchmarks.suite.executors.schedule import Schedule
from benchmarks.suite.progress import Progress
from benchmarks.suite.stages import Graph
from benchmarks.suite.status import status_of
from tests.made.made_graphs import made_graph, made_record
from tests.made.patience import retried

GRAPH = made_graph(4)
NOTHING = {stage.key: None for stage in GRAPH.stages}


def test_line_tells_number_and_time_left_over_all_jobs() -> None:
    progress = Progress(GRAPH.stages, NOTHING, GRAPH.stages, 2)
    first, probe = GRAPH.stages[:2]
    assert progress.line(StageEvent(stage=first, state="started")) == (
        "[1/8] pretrain: colorization, depth 10, seed 0 (time left not known yet)"
    )
    done = StageEvent(stage=first, state="finished", record=made_record(first, 60.0))
    assert progress.line(done) == "[1/8] pretrain: colorization, depth 10, seed 0: done in 1 min 0 s"
    progress.line(StageEvent(stage=probe, state="finished", record=made_record(probe, 20.0)))
    # Left: 3 pretrainings of 60 s and 3 probes of 20 s, two at a time.
    line = progress.line(StageEvent(stage=GRAPH.stages[2], state="started"))
    assert line == "[3/8] pretrain: colorization, depth 18, seed 0 (about 2 min 0 s left)"


def test_stage_of_another_run_is_told_once() -> None:
    progress = Progress(GRAPH.stages, NOTHING, GRAPH.stages, 1)
    events = [StageEvent(stage=GRAPH.stages[0], state=state) for state in ("started", "busy") * 3]
    lines = [line for event in events if (line := progress.line(event)) is not None]
    assert len(lines) == 2
    assert lines[1].endswith("another run is at work on it; waiting for its record")


def test_stages_that_this_run_leaves_out_cost_no_time() -> None:
    records = NOTHING | {stage.key: made_record(stage, 10.0) for stage in GRAPH.stages[:2]}
    progress = Progress(GRAPH.stages, records, GRAPH.stages[2:4], 1)
    line = progress.line(StageEvent(stage=GRAPH.stages[2], state="started"))
    assert line is not None
    assert line.endswith("(about 20 s left)")


def test_four_times_the_cells_take_about_four_times_the_cpu() -> None:
    graphs = {num_cells: made_graph(num_cells) for num_cells in (1000, 4000)}

    def is_linear() -> None:
        seconds = {num_cells: whole_run_s(graph) for num_cells, graph in graphs.items()}
        # Quadratic: 16 times.
        assert seconds[4000] < 6 * seconds[1000], seconds

    retried(is_linear)


def whole_run_s(graph: Graph) -> float:
    """CPU seconds of the schedule and the lines of a whole run, and of a status after it."""
    start_s = time.process_time()
    schedule = Schedule(graph.stages)
    progress = Progress(graph.stages, {stage.key: None for stage in graph.stages}, graph.stages, 1)
    while (stage := schedule.take()) is not None:
        progress.line(StageEvent(stage=stage, state="started"))
        for event in schedule.close(StageEvent(stage=stage, state="finished", record=made_record(stage))):
            progress.line(event)
    status_of("large", graph, Path("no such folder"))
    return time.process_time() - start_s
