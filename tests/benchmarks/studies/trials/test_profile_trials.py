"""Trials of the profiler: a trial judges what is planted, and the record goes on where it stopped."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies.trials import profile_trials as trials
from benchmarks.studies.trials.planted import PLANTS
from benchmarks.studies.trials.trial_shards import TrialShards

MakeShards = Callable[..., Path]


@pytest.fixture
def given(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(out=tmp_path / "trials.json", only="verdicts", minutes=1e9)


@pytest.fixture
def shards(small_shards: MakeShards) -> TrialShards:
    folder = small_shards(24, 4)
    return TrialShards(images=folder, clips=folder, oversized=folder, vp9=folder)


def test_a_slow_step_is_found_in_a_trial(shards: TrialShards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "TRIAL_S", 1.0)
    monkeypatch.setitem(trials.BASES, "images", ({"canvas_px": 64, "tasks": {"colorization": {}}},))
    plant = next(plant for plant in PLANTS if plant.name == "slow step")
    row = trials.run_trial(shards, plant, 0)
    assert (row["expected"], row["stage"], row["is_right"]) == ("step", "step", True)
    assert row["samples_per_s"] < 125


def test_the_record_goes_on_where_it_stopped(
    shards: TrialShards, given: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []

    def run_trial(shards: TrialShards, plant: Any, trial: int) -> dict[str, Any]:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append((plant.name, trial))
        return {"is_right": True}

    monkeypatch.setattr(trials, "NUM_TRIALS", 1)
    monkeypatch.setattr(trials, "run_trial", run_trial)
    with pytest.raises(KeyboardInterrupt):
        trials.run_all(shards, given)
    assert len(json.loads(given.out.read_text())["results"]["verdicts"]) == 5
    monkeypatch.setattr(trials, "run_trial", lambda shards, plant, trial: done.append((plant.name, trial)) or {})
    trials.run_all(shards, given)
    assert done == [(plant.name, 0) for plant in PLANTS]
    record = json.loads(given.out.read_text())
    assert set(record["results"]["verdicts"]) == {f"{plant.name} 0" for plant in PLANTS}
    assert record["environment"]["cpu_name"]
    assert record["config"]["num_trials"] == 1


def test_no_trial_begins_after_its_time(shards: TrialShards, given: argparse.Namespace) -> None:
    given.minutes = -1.0
    trials.run_all(shards, given)
    assert not given.out.exists()
