"""Data of evaluations, checked before a plan or a run: every problem is told, one line each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cli import app as cli
from benchmarks.suite.preflight import check_data
from pipelines.base.errors import DataError, UsageError
from tests.made.made_suites import made_suite, write_suite
from tests.made.tiny_shards import coloured, write_shards


def plan(path: Path, out: Path) -> int:
    return cli.run(["bench", "plan", str(path), "--out", str(out)])


def shards_of(folder: Path, train: list[int], val: list[int]) -> Path:
    rng = np.random.default_rng(0)
    splits = {
        "train": [(label, coloured(label, rng)) for label in train],
        "val": [(one, coloured(one, rng)) for one in val],
    }
    return write_shards(folder, splits)


CASES: dict[str, tuple[dict[str, Any], tuple[list[int], list[int]] | None, list[str], int]] = {
    "no data set": ({"evaluations": {"detection": {"data": "NOWHERE"}}}, None, ["evaluations.detection", "NOWHERE"], 2),
    "another layout": ({"evaluations": {"depth": {"data": "FOLDER"}}}, None, ["evaluations.depth", "FOLDER"], 2),
    "a class of the test split alone": ({}, ([0, 1, 0, 1], [0, 1, 2]), ["classes [2] are in split val only"], 1),
    "too few images": (
        {"evaluations": {"linear_probe": {"labels_per_class": [3]}}},
        ([0, 1, 0, 1], [0, 1]),
        ["labels_per_class = 3: class 0 has 2 samples"],
        1,
    ),
    "one class": ({}, ([0, 0], [0]), ["1 class in split train"], 1),
}


@pytest.mark.parametrize("case", CASES)
def test_plan_refuses_as_run_does(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, labels, messages, code = CASES[case]
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER" / "notes.txt").write_text("no data set")
    text = json.dumps(changes).replace("FOLDER", str(tmp_path / "FOLDER")).replace("NOWHERE", str(tmp_path / "NOWHERE"))
    changes = {"baselines": ["random_init"], **json.loads(text)}
    if labels is not None:
        shards_of(tmp_path / "shards", *labels)
    path = write_suite(tmp_path, **changes)
    assert plan(path, tmp_path / "out") == code
    planned = capsys.readouterr().err
    assert all(message in planned for message in messages)
    assert "made-up.yaml" in planned
    # As `run` has it, which leaves nothing behind either.
    assert cli.run(["bench", "run", str(path), "--out", str(tmp_path / "out")]) == code
    assert capsys.readouterr().err == planned
    assert not (tmp_path / "out").exists()


def test_every_problem_is_told_once(tmp_path: Path) -> None:
    evaluations = {"detection": {"data": str(tmp_path / "boxes")}, "depth": {"data": str(tmp_path / "rooms")}}
    axes = {"pretrain.trunk.width": [0.25, 0.5]}
    with pytest.raises(UsageError) as error:
        check_data(made_suite(tmp_path, baselines=[], evaluations=evaluations, axes=axes))
    lines = str(error.value).splitlines()
    assert [line.split("evaluations.")[1].split(":")[0] for line in lines if "evaluations." in line] == [
        "detection",
        "depth",
    ]


def test_damaged_data_is_no_wrong_usage(tmp_path: Path) -> None:
    shards_of(tmp_path / "shards", [0, 0], [0])
    with pytest.raises(DataError, match="1 class"):
        check_data(made_suite(tmp_path, baselines=["random_init"]))
