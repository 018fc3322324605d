import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.stages import Graph, Stage
from benchmarks.suite.store.running import running_stages
from benchmarks.suite.store.stage_lock import stage_lock
from tests.made.made_graphs import made_graph

GRAPH = made_graph(3)


def graph_with(budget: Mapping[str, Any]) -> tuple[Graph, Stage]:
    first = replace(GRAPH.stages[0], config=GRAPH.stages[0].config | {"budget": dict(budget)})
    return replace(GRAPH, stages=(first, *GRAPH.stages[1:])), first


def log(stage: Stage, out: Path, *lines: Mapping[str, Any], end: str = "") -> None:
    folder = stage.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


LINE = {
    "step": 50,
    "losses": {"exemplar": 0.5},
    "seconds": 30.0,
    "compute_tflop": 2.0,
    "samples_per_s": {"exemplar": 10},
}


@pytest.mark.parametrize(
    ("budget", "share", "left_s"),
    [
        ({"steps": 200}, 0.25, 90.0),
        ({"compute_tflop": 8.0}, 0.25, 90.0),
        ({"samples": 600}, 0.5, 30.0),
        ({}, None, None),
    ],
)
def test_step_loss_and_time_left_come_from_the_last_whole_line(
    budget: Mapping[str, Any], share: float | None, left_s: float | None, tmp_path: Path
) -> None:
    graph, stage = graph_with(budget)
    log(stage, tmp_path, LINE | {"step": 25}, LINE, end='{"step": 51, "lo')
    with stage_lock(stage.folder(tmp_path)):
        (found,) = running_stages(graph, tmp_path)
    assert (found.step, found.losses, found.share, found.left_s) == (50, {"exemplar": 0.5}, share, left_s)
    assert found.owner.pid == os.getpid()
    assert found.seconds < 60


def test_stages_that_end_or_are_no_part_of_the_suite_are_not_at_work(tmp_path: Path) -> None:
    graph, stage = graph_with({"steps": 200})
    other = Stage(kind="other", label="other", key="f" * 64, config={}, inputs={})
    with ExitStack() as held:
        for one in (GRAPH.stages[3], stage, other):
            held.enter_context(stage_lock(one.folder(tmp_path)))
        assert [one.stage for one in running_stages(graph, tmp_path)] == [stage, GRAPH.stages[3]]
    assert running_stages(graph, tmp_path) == []
    assert running_stages(graph, tmp_path / "elsewhere") == []
