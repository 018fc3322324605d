from pathlib import Path

import pytest

from benchmarks.results.record import Record, write_json
from benchmarks.suite.run_options import Retry, RunOptions, chosen_stages, parse_duration
from benchmarks.suite.stages import Stage
from benchmarks.suite.status import ERROR_NAME
from pipelines.base.errors import UsageError
from tests.made.made_graphs import made_graph, made_record

GRAPH = made_graph(8)  # depths 10 and 18, colorization and exemplar, seeds 0 and 1
NOTHING: dict[str, Record | None] = {stage.key: None for stage in GRAPH.stages}


def names(stages: list[Stage]) -> list[str]:
    return [f"{stage.kind}: {stage.label}" for stage in stages]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-5m", "5 m", "m", "5x"])
def test_wrong_durations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="such as 90s, 30m, 8h or 1h30m"):
        parse_duration(text)


def test_part_of_a_name_chooses_whole_cells() -> None:
    chosen = chosen_stages(GRAPH, NOTHING, Path(), RunOptions(only=("exemplar, depth 10",)))
    assert names(chosen) == [
        "pretrain: exemplar, depth 10, seed 0",
        "linear_probe: exemplar, depth 10, seed 0",
        "pretrain: exemplar, depth 10, seed 1",
        "linear_probe: exemplar, depth 10, seed 1",
    ]


@pytest.mark.parametrize("pattern", ["linear_probe: *depth 18, seed 1", "Linear Probe: *depth 18, seed 1"])
def test_an_evaluation_comes_with_the_pretraining_it_needs(pattern: str) -> None:
    chosen = chosen_stages(GRAPH, NOTHING, Path(), RunOptions(only=(pattern,)))
    assert [stage.kind for stage in chosen] == ["pretrain", "linear_probe"] * 2
    assert {stage.label for stage in chosen} == {"colorization, depth 18, seed 1", "exemplar, depth 18, seed 1"}


def test_finished_stages_are_left_out_and_several_patterns_add_up() -> None:
    records = NOTHING | {GRAPH.stages[0].key: made_record(GRAPH.stages[0])}
    chosen = chosen_stages(GRAPH, records, Path(), RunOptions(only=("*seed 0", "*seed 1")))
    assert chosen == list(GRAPH.stages[1:])


def test_pattern_that_fits_nothing_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"'jigsaw' fits no cell.*colorization, depth 10, seed 0; "):
        chosen_stages(GRAPH, NOTHING, Path(), RunOptions(only=("exemplar", "jigsaw")))


@pytest.mark.parametrize(("retry", "expected"), [("all", range(16)), ("failed", [0, 1]), ("none", range(2, 16))])
def test_failed_stages_are_run_again_alone_or_not_at_all(retry: Retry, expected: list[int], tmp_path: Path) -> None:
    """The first probe has failed: alone it needs its pretraining, too, and that has no record any more."""
    failed = [0, 1] if retry == "none" else [1]
    for place in failed:
        write_json(GRAPH.stages[place].folder(tmp_path) / ERROR_NAME, {"error": "made to fail"})
    chosen = chosen_stages(GRAPH, NOTHING, tmp_path, RunOptions(retry=retry))
    assert chosen == [GRAPH.stages[place] for place in expected]


def test_stage_that_needs_a_failed_one_is_left_out_with_it(tmp_path: Path) -> None:
    write_json(GRAPH.stages[0].folder(tmp_path) / ERROR_NAME, {"error": "made to fail"})
    assert chosen_stages(GRAPH, NOTHING, tmp_path, RunOptions(retry="none")) == list(GRAPH.stages[2:])
