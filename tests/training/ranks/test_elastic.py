"""A run that is stopped and resumed on other numbers of ranks: 2, then 1, then 4; beside one that ran on 1 rank."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.base.config import validate
from tests.made.rank_processes import is_stopped, play_phases
from tests.made.tiny_shards import coloured, write_shards
from training.config import PretrainConfig
from training.journal import read_log
from training.weights.checkpoint import load_checkpoint

NUM_STEPS = 20
PHASES = {"alone": 1, "first": 2, "second": 1, "third": 4}
"""Number of ranks; the last three are parts of one run."""
STOPS = {"first": 6, "second": 12}
"""Step in which the last rank gets a signal."""


def config_of(shards: Path) -> PretrainConfig:
    tasks = {"colorization": {}, "exemplar": {}}
    config: dict[str, Any] = {
        "pipeline": {"images": str(shards), "canvas_px": 32, "batch_size": 8, "num_threads": 1, "tasks": tasks},
        "trunk": {"depth": 10, "width": 0.125, "norm": "group"},
        "heads": {"preset": "small"},
        # As in test_equal_results.py: small steps, so that rounding stays rounding.
        "optimizer": {"lr": 1e-4, "eps": 1e-2},
        "budget": {"steps": NUM_STEPS},
        "precision": "fp32",
        "cpu_threads": 1,
        "log_every_steps": 5,
        "held_out": "off",
    }
    return validate(PretrainConfig, config, source="test")


def one_phase(name: str, rank: int, folder: Path) -> None:
    run_dir = folder / ("alone" if name == "alone" else "moved")
    is_last = rank == PHASES[name] - 1
    if is_stopped(config_of(folder / "shards"), run_dir, STOPS.get(name) if is_last else None):
        # The first rank returns once its checkpoint is on the disk.
        checkpoint = load_checkpoint(run_dir) if rank == 0 else None
        found = f"{checkpoint.step} of {checkpoint.world_size}" if checkpoint else "stopped"
        (folder / f"{name}{rank}.step").write_text(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(0)
    write_shards(folder / "shards", {"train": [(label, coloured(label, rng)) for label in (0, 1, 2, 3) * 6]})
    play_phases(one_phase, PHASES, folder)
    return folder


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / name / "trunk.pt", weights_only=True)["weights"]
    return found


def test_a_signal_to_one_rank_stops_all_after_the_same_step(folder: Path) -> None:
    # In step 6 (the 7th), and the votes that are cast after it are read after the 8th; of one rank, at once.
    assert [(folder / f"first{rank}.step").read_text() for rank in range(2)] == ["8 of 2", "stopped"]
    assert (folder / "second0.step").read_text() == "13 of 1"


def test_the_weights_are_those_of_a_run_on_one_rank(folder: Path) -> None:
    expected, found = weights(folder, "alone"), weights(folder, "moved")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5)


def test_no_step_is_lost_or_taken_twice(folder: Path) -> None:
    alone, moved = (read_log(folder / name / "log.jsonl") for name in ("alone", "moved"))
    assert [line["step"] for line in moved] == [line["step"] for line in alone] == [5, 10, 15, 20]
    assert moved[-1]["passes"] == alone[-1]["passes"]
