"""What may be compared, and why not: one planted difference each."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results.record import Record, environment, write_json, write_record
from benchmarks.results.records.compare import compare_records, compared
from benchmarks.results.records.load import load_records
from pipelines.base.errors import DataError, UsageError


def made(**changes: Any) -> Record:
    whole = Record(
        kind="linear_probe",
        key="k" * 64,
        label="all four, depth 10, seed 0",
        date="2026-01-02T03:04:05Z",
        seconds=1.5,
        environment=environment(),
        config={"options": {"pool": 3}, "images": "here", "test_split": "val"},
        inputs={"images_val": "a" * 64, "trunk": "t" * 64},
        results={"top1_pct": 70.0, "num_test": 100},
        code="c" * 64,
    )
    return replace(whole, **changes)


def elsewhere(**changes: Any) -> Any:
    return replace(made().environment, **changes)


PLANTED: dict[str, tuple[dict[str, Any], str, bool]] = {
    "options": ({"config": {"options": {"pool": 1}, "images": "here", "test_split": "val"}}, "configuration", True),
    "place of the data": (
        {"config": {"options": {"pool": 3}, "images": "x", "test_split": "val"}},
        "configuration",
        False,
    ),
    "data": ({"inputs": {"images_val": "b" * 64, "trunk": "t" * 64}}, "data", True),
    "trunk": ({"inputs": {"images_val": "a" * 64, "trunk": "u" * 64}}, "data", False),
    "code": ({"code": "d" * 64}, "code", True),
    "commit, with digests": ({"environment": elsewhere(commit="f" * 40)}, "code", False),
    "machine": ({"environment": elsewhere(cpu_name="another")}, "machine", False),
    "fourfold": ({"environment": elsewhere(versions=environment().versions | {"fourfold": "9.9.0"})}, "code", True),
    "torch": ({"environment": elsewhere(versions=environment().versions | {"torch": "9.9.0"})}, "code", False),
    "kind": ({"kind": "knn"}, "configuration", True),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_difference_is_named_and_judged(name: str) -> None:
    changes, part, forbids = PLANTED[name]
    found = compared(made(), made(**changes))
    assert {one.part for one in found.changes} == {part}
    assert bool(found.reasons) == forbids


def test_equal_records_differ_in_nothing_and_results_stand_side_by_side() -> None:
    found = compared(made(), made(results={"top1_pct": 72.5, "num_test": 100}))
    assert (found.changes, found.results[0]) == ([], ("top1_pct", 70.0, 72.5, 2.5))


def test_pretrainings_may_differ_in_what_a_suite_compares() -> None:
    first = made(kind="pretrain", config={"trunk": {"depth": 10}, "seed": 0})
    found = compared(first, replace(first, config={"trunk": {"depth": 18}, "seed": 0}))
    assert [(one.name, one.first, one.second) for one in found.changes] == [("trunk.depth", "10", "18")]
    assert found.reasons == []


def test_records_of_two_suites_are_paired_by_kind_and_label(tmp_path: Path) -> None:
    labels = ("all four, depth 10, seed 0", "all four, depth 10, seed 1", "exemplar, depth 10, seed 0")
    for name, chosen in (("a", labels[:2]), ("b", labels[1:])):
        for index, label in enumerate(chosen):
            write_record(tmp_path / name / "stages" / f"linear_probe-{index}", made(label=label))
    found, alone = compare_records(load_records(tmp_path / "a"), load_records(tmp_path / "b"))
    assert [one.first for one in found] == [labels[1]]
    assert alone == [f"linear probe: {labels[0]}", f"linear probe: {labels[2]}"]


def test_a_committed_suite_holds_a_record_of_each_kind(tmp_path: Path) -> None:
    write_json(tmp_path / "suite.json", {"results": {}, "record_linear_probe": asdict(made())})
    assert load_records(tmp_path / "suite.json") == [made()]


def test_a_place_without_records_and_half_a_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no records"):
        load_records(tmp_path)
    content = asdict(made())
    del content["environment"]["cpu_name"]
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no complete record"):
        load_records(tmp_path)
