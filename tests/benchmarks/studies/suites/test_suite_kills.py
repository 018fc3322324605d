"""A suite killed by SIGKILL and started again ends in the table of an unbroken one, and the comparison can fail."""

from pathlib import Path

from benchmarks.studies.suites.suite_kills import SuiteKillOptions, _changed, _last_begun, measure


def test_a_killed_suite_ends_in_the_same_table() -> None:
    results = measure(SuiteKillOptions(num_kills=2, num_seeds=1, num_steps=3, depths=(10,)))
    assert results["problems"] == []
    assert len(results["kills"]) == 2
    assert results["num_stages_killed_run"] == results["num_stages"] == 4 * 3
    counts = [kill["num_finished"] for kill in results["kills"]]
    assert counts == sorted(counts)


def test_a_record_that_changes_or_vanishes_is_told() -> None:
    before = {"a": "1", "b": "2", "c": "3"}
    assert _changed(before, before | {"d": "4"}) == []
    assert [text.partition(":")[0] for text in _changed(before, {"a": "1", "b": "9"})] == ["b", "c"]


def test_stage_at_work_is_that_of_the_last_line_without_an_end(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    assert _last_begun(lines) == ""
    begun = "[1/9] linear probe: a, seed 0 (time left not known yet)\n"
    lines.write_text(begun)
    assert _last_begun(lines) == "linear probe"
    lines.write_text(begun + "[1/9] linear probe: a, seed 0: top1_pct 40.0 in 1 s\n")
    assert _last_begun(lines) == ""
