import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.costs.calibration import (
    CALIBRATION_NAME,
    Machine,
    StageCost,
    calibrated_seconds,
    calibration_key,
    read_calibration,
    stage_seconds,
    write_calibration,
)
from benchmarks.suite.costs.cost import Cost
from benchmarks.suite.costs.time_left import cost_class
from benchmarks.suite.stages import Stage

MACHINE = Machine(cpu_name="a", num_cores=2, num_gpus=0)


def pretraining(seed: int, task: str = "exemplar", code: str = "c") -> Stage:
    config = {"pipeline": {"tasks": {task: {}}}, "trunk": {"depth": 10}, "seed": seed}
    return Stage(kind="pretrain", label=f"{task} {seed}", key=f"{task}{seed}", config=config, inputs={}, code=code)


def evaluation(kind: str, trunk: Stage) -> Stage:
    inputs, config = {"trunk": trunk.key}, {"options": {"pool": 1}}
    return Stage(
        kind=kind, label=kind, key=f"{kind} {trunk.key}", config=config, inputs=inputs, needs=(trunk,), code="e"
    )


def keep(stages: list[Stage], out: Path, cost: StageCost, machine: Machine = MACHINE) -> None:
    keys = [calibration_key(stage, machine) for stage in stages]
    write_calibration(dict.fromkeys(keys, cost), dict.fromkeys(keys, "a stage"), out)


def test_another_seed_costs_the_same_other_work_code_and_machines_are_not_known(tmp_path: Path) -> None:
    one = pretraining(0)
    keep([one], tmp_path, StageCost(own=Cost(5.0, 4.0)))
    stages = [one, pretraining(1), pretraining(0, "colorization"), replace(pretraining(2), code="other")]
    found = read_calibration(stages, tmp_path, MACHINE)
    assert found == {"exemplar0": Cost(5.0, 4.0), "exemplar1": Cost(5.0, 4.0)}
    assert read_calibration(stages, tmp_path, replace(MACHINE, num_cores=3)) == {}


def test_the_first_evaluation_of_every_trunk_pays_for_the_features(tmp_path: Path) -> None:
    trunks = [pretraining(0), pretraining(1)]
    stages = [evaluation(kind, trunk) for trunk in trunks for kind in ("linear_probe", "knn")]
    keep(stages, tmp_path, StageCost(own=Cost(1.0, 1.0), features=Cost(10.0, 10.0)))
    found = read_calibration(stages, tmp_path, MACHINE)
    assert [found[stage.key].cpu_s for stage in stages] == [11.0, 1.0, 11.0, 1.0]
    seconds = calibrated_seconds(stages, found, 1, MACHINE)
    assert seconds == {cost_class(stages[0]).work: 11.0, cost_class(stages[1]).work: 1.0}


def test_a_file_keeps_what_others_wrote_and_a_damaged_one_is_no_error(tmp_path: Path) -> None:
    one, other = pretraining(0), pretraining(0, "colorization")
    keep([one], tmp_path, StageCost(own=Cost(1.0, 1.0)))
    keep([other], tmp_path, StageCost(own=Cost(2.0, 2.0)))
    assert len(read_calibration([one, other], tmp_path, MACHINE)) == 2
    content: dict[str, Any] = json.loads((tmp_path / CALIBRATION_NAME).read_text())
    content["entries"][calibration_key(one, MACHINE)] = {"own": {"cpu_s": 1.0}}
    (tmp_path / CALIBRATION_NAME).write_text(json.dumps(content))
    assert list(read_calibration([one, other], tmp_path, MACHINE)) == [other.key]
    (tmp_path / CALIBRATION_NAME).write_text("{")
    assert read_calibration([one, other], tmp_path, MACHINE) == {}


@pytest.mark.parametrize(
    ("num_jobs", "num_cores", "num_gpus", "seconds"),
    [
        (1, 2, 0, 6.0),  # alone: its wall time
        (2, 2, 0, 8.0),  # two of 8 CPU seconds each need 16 in all
        (4, 2, 0, 16.0),
        (2, 8, 0, 6.0),  # cores enough for both
        (2, 8, 2, 6.0),
        (4, 8, 2, 12.0),  # two stages on every GPU
    ],
)
def test_stages_side_by_side_share_cores_and_gpus(num_jobs: int, num_cores: int, num_gpus: int, seconds: float) -> None:
    machine = Machine(cpu_name="a", num_cores=num_cores, num_gpus=num_gpus)
    assert stage_seconds(Cost(8.0, 6.0), num_jobs, machine) == seconds
