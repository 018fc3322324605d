"""The map of trunks: its numbers against the direct formula of CKA, at every point of the axes."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.evaluations.unlabelled.measures import linear_cka
from benchmarks.results.report.report_page import page_of
from benchmarks.results.report.trunk_similarity import TrunkSimilarity, similarities_of, similarity_chart
from benchmarks.results.report.view import full_view
from benchmarks.suite.status import CellStatus, SuiteStatus
from tests.made.made_status import made_status
from tests.made.made_suites import made_suite

Features = dict[str, np.ndarray[Any, Any]]


def made(folder: Path, **changes: Any) -> tuple[SuiteStatus, Features]:
    """A finished suite whose trunks have random features of 12 images each, by the key of their pretraining."""
    evaluations = {"linear_probe": {"labels_per_class": []}, "unlabelled": {"against_suite": True}}
    suite = made_suite(folder, evaluations=evaluations, baselines=["random_init"], **changes)
    status, rng = made_status(suite, folder / "out"), np.random.default_rng(0)
    keys = dict.fromkeys(one.cell.pretrain.key for one in status.cells if one.cell.pretrain)
    features = {key: rng.normal(size=(12, 5)) for key in keys}
    return full_view(replace(status, cells=tuple(with_cka(one, features) for one in status.cells))), features


def with_cka(one: CellStatus, features: Features) -> CellStatus:
    record = one.records["unlabelled"]
    inputs = record.inputs
    found = {
        label: linear_cka(features[inputs["trunk"]], features[inputs[f"trunk of {label}"]])
        for label in record.results["cka_against"]
    }
    # A run outside of the suite has no place on the map.
    found["runs/other"] = 0.5
    return replace(one, records=one.records | {"unlabelled": replace(record, results={"cka_against": found})})


def direct_cka(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    centre = np.eye(len(first)) - 1 / len(first)
    one, other = (centre @ (rows @ rows.T) @ centre for rows in (first, second))
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def expected(status: SuiteStatus, features: Features, first: str, second: str, at: str = "") -> list[float]:
    keys: dict[str, list[str]] = {}
    for one in status.cells:
        if one.cell.pretrain and (not at or at in one.cell.label or not one.cell.axes):
            keys.setdefault(f"{one.cell.task_set.name}, depth {one.cell.depth}", []).append(one.cell.pretrain.key)
    pairs = zip(keys[first], keys[second], strict=True)
    return [direct_cka(features[one], features[other]) for one, other in pairs]


def assert_direct(found: TrunkSimilarity, status: SuiteStatus, features: Features, at: str = "") -> None:
    assert len(found.values) == len(found.names) * (len(found.names) - 1) // 2
    for (row, column), one in found.values.items():
        seeds = expected(status, features, found.names[row], found.names[column], at)
        assert (one.mean, one.num_seeds) == (pytest.approx(np.mean(seeds)), 3)


def test_numbers_are_means_over_seeds_of_the_direct_formula(tmp_path: Path) -> None:
    status, features = made(tmp_path)
    (found,) = similarities_of(status)
    assert found.names[:3] == ["random weights, depth 10", "colorization, depth 10", "exemplar, depth 10"]
    assert len(found.names) == 8
    assert_direct(found, status, features)
    for row, (_, numbers) in enumerate(found.table):
        assert [found.table[column][1][row] for column in range(8)] == numbers
        assert numbers[row] is None


def test_squares_carry_their_numbers(tmp_path: Path) -> None:
    status, _ = made(tmp_path)
    (found,) = similarities_of(status)
    drawn = [one for one in ElementTree.fromstring(similarity_chart(found).svg()).iter() if "data-y" in one.attrib]
    assert [float(one.attrib["data-y"]) for one in drawn] == [one.mean for one in found.values.values()]
    assert [one.attrib["data-x"] for one in drawn] == [found.names[column] for _, column in found.values]


def test_each_width_has_a_map(tmp_path: Path) -> None:
    status, features = made(tmp_path, axes={"pretrain.trunk.width": [0.25, 0.5]}, depths=[10])
    found = similarities_of(status)
    assert [one.point for one in found] == ["width 0.25", "width 0.5"]
    for one in found:
        assert len(one.names) == 4
        assert_direct(one, status, features, at=one.point)


def test_page_has_the_map_and_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.preview.task_sheet.write_sheet", lambda *given, **options: None)
    evaluations: dict[str, Any] = {"linear_probe": {"labels_per_class": []}, "unlabelled": {}}
    suite = made_suite(tmp_path, evaluations=evaluations, depths=[10])
    assert "How alike" not in page_of(suite, made_status(suite, tmp_path / "out"))
    evaluations["unlabelled"] = {"against_suite": True}
    suite = made_suite(tmp_path, evaluations=evaluations, depths=[10])
    page = page_of(suite, made_status(suite, tmp_path / "out"))
    # The suite runs baselines first; the second trunk is compared with the first.
    assert "colorization, depth 10 and random weights, depth 10: 0.90 ± 0.00 (3 seeds)" in page
    assert '<th scope="row">2 colorization, depth 10</th><td>0.90 ± 0.00 <small>(3)</small></td><td>–</td>' in page
