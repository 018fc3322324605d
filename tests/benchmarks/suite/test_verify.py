"""A cell that runs again: equal numbers, a planted wrong one, data that changed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.results.record import RECORD_NAME
from benchmarks.results.records.load import load_records
from benchmarks.suite.graph import expand
from benchmarks.suite.run_suite import run_suite
from benchmarks.suite.verify import Verified, verify_cell
from pipelines.base.errors import DataError, UsageError
from tests.made import made_suites
from tests.made.made_suites import fake_runner, made_results, made_suite

CELL = "colorization, depth 18, seed 1"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    suite, out = made_suite(tmp_path), tmp_path / "out"
    run_suite(suite, out, runner=fake_runner(out), say=lambda line: None)
    return out


def verified(out: Path, cell: str = CELL) -> list[Verified]:
    return verify_cell(out, cell, out.parent / "again", runner=lambda stage, folder: fake_runner(folder)(stage))


def plant(out: Path, more: float) -> None:
    """Add to the recorded number of one cell."""
    for path in out.glob(f"stages/linear_probe-*/{RECORD_NAME}"):
        content = json.loads(path.read_text())
        if content["label"] == CELL:
            content["results"]["top1_pct"] += more
            path.write_text(json.dumps(content))


def test_the_same_number_comes_out_again(out: Path) -> None:
    (found,) = verified(out)
    assert (found.recorded, found.rerun, found.difference) == (62.8, 62.8, 0.0)
    assert found.is_inside


def test_a_planted_wrong_number_is_outside_and_does_not_widen_its_interval(out: Path) -> None:
    before = verified(out)[0].allowed
    plant(out, 5.0)
    (found,) = verify_cell(out, CELL, out.parent / "more", runner=lambda stage, folder: fake_runner(folder)(stage))
    assert found.difference == pytest.approx(-5.0)
    assert found.allowed == before
    assert not found.is_inside


def test_the_interval_is_that_of_a_pooled_standard_deviation(out: Path) -> None:
    # Seeds 0, 1, 2 of 4 task sets at 2 depths are 1 apart; the cell's own group lacks the cell, so has 0 and 2.
    groups = [[0.0, 1.0, 2.0]] * 7 + [[0.0, 2.0]]
    degrees = sum(len(group) - 1 for group in groups)
    sd = math.sqrt(sum((len(group) - 1) * np.var(group, ddof=1) for group in groups) / degrees)
    assert verified(out)[0].allowed == pytest.approx(stats.t.ppf(0.975, degrees) * sd * math.sqrt(2))


def test_nothing_gives_the_interval_without_a_second_seed_and_the_number_of_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        made_suites, "made_results", lambda stage: {k: v for k, v in made_results(stage).items() if k != "num_test"}
    )
    suite, out = made_suite(tmp_path, seeds=[1], depths=[18]), tmp_path / "out"
    run_suite(suite, out, runner=fake_runner(out), say=lambda line: None)
    with pytest.raises(UsageError, match="neither a second seed"):
        verified(out)


def test_a_cell_that_is_not_there_lists_those_that_are(out: Path) -> None:
    with pytest.raises(UsageError, match="exemplar, depth 10, seed 0"):
        verified(out, "exemplar, depth 11, seed 0")


def test_other_shards_than_the_records_are_refused(out: Path) -> None:
    for path in out.glob(f"stages/*/{RECORD_NAME}"):
        content = json.loads(path.read_text())
        if content["label"] == CELL:
            content["inputs"] = {name: "0" * 64 if "images" in name else it for name, it in content["inputs"].items()}
            path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="are not those of the record"):
        verified(out)


def test_a_finished_check_is_not_compared_with_itself(out: Path) -> None:
    verified(out)
    with pytest.raises(UsageError, match="is there already"):
        verified(out)


def test_records_name_the_stages_of_the_suite(out: Path) -> None:
    assert {one.key for one in load_records(out)} == {one.key for one in expand(made_suite(out.parent)).stages}
