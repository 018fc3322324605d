"""Trials of the profiler: a trial judges what is planted, and a wrong verdict is exit code 1."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies.trials import profile_trials as trials
from benchmarks.studies.trials.planted import PLANTS, Plant
from benchmarks.studies.trials.trial_shards import TrialShards

MakeShards = Callable[..., Path]


@pytest.fixture
def shards(small_shards: MakeShards) -> TrialShards:
    folder = small_shards(24, 4)
    return TrialShards(images=folder, clips=folder, oversized=folder)


def test_a_slow_step_is_found_in_a_trial(shards: TrialShards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trials.BASES, "images", ({"canvas_px": 64, "tasks": {"colorization": {}}},))
    plant = next(plant for plant in PLANTS if plant.name == "slow step")
    row = trials.run_trial(shards, plant, 0, seconds=1.0)
    assert (row["expected"], row["stage"], row["is_right"]) == ("step", "step", True)
    assert row["samples_per_s"] < 125


@pytest.mark.parametrize("wrong", ["", "slow step"])
def test_every_plant_is_tried_and_counted(
    wrong: str,
    shards: TrialShards,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run_trial(shards: TrialShards, plant: Plant, trial: int, seconds: float) -> dict[str, Any]:
        return {"plant": plant.name, "is_right": plant.name != wrong, "sentence": "", "seconds": seconds}

    monkeypatch.setattr(trials, "run_trial", run_trial)
    monkeypatch.setattr(trials, "make_trial_shards", lambda folder: shards)
    arguments = ["--trials", "2", "--out", str(tmp_path / "trials.json")]
    if wrong:
        with pytest.raises(SystemExit, match="1"):
            trials.STUDY.main(arguments)
    else:
        trials.STUDY.main(arguments)
    rows = json.loads((tmp_path / "trials.json").read_text())["results"]["verdicts"]
    assert [row["plant"] for row in rows] == 2 * [plant.name for plant in PLANTS]
    assert f"slow step: {0 if wrong else 2} of 2 right" in capsys.readouterr().out
