"""A run whose ranks are divided among tasks: stopped on 2 ranks, resumed on 4, beside one that ran on 1 rank."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from tests.made.rank_processes import is_stopped, play_phases
from tests.made.tiny_shards import coloured, write_shards
from training.config import PretrainConfig
from training.journal import read_log
from training.loop import pretrain
from training.model import build_trunk
from training.weights.checkpoint import load_checkpoint

NUM_STEPS = 14
PHASES = {"alone": 1, "first": 2, "second": 4, "local": 2}
"""Number of ranks; "first" and "second" are parts of one run, "local" adds up trunk updates every 4 steps."""
STOP = 5
"""Step of "first" and of "local" in which the last rank gets a signal."""


def config_of(shards: Path, **changes: Any) -> PretrainConfig:
    tasks = {"colorization": {}, "exemplar": {"accumulate": 2}}
    config: dict[str, Any] = {
        "pipeline": {"images": str(shards), "canvas_px": 32, "batch_size": 8, "num_threads": 1, "tasks": tasks},
        "trunk": {"depth": 10, "width": 0.125, "norm": "group"},
        "heads": {"preset": "small"},
        "lasso": {},
        "updates": "summed",
        # As in test_equal_results.py: small steps, so that rounding stays rounding.
        "optimizer": {"lr": 1e-4, "eps": 1e-2, "weight_decay": 0.1},
        "budget": {"steps": NUM_STEPS},
        "precision": "fp32",
        "cpu_threads": 1,
        "log_every_steps": 7,
        "held_out": {"split": "train", "times": 2},
        "ranks": {"tasks": "auto"},
    }
    return validate(PretrainConfig, config | changes, source="test")


def one_phase(name: str, rank: int, folder: Path) -> None:
    run_dir = folder / {"first": "divided", "second": "divided"}.get(name, name)
    config = config_of(folder / "shards", **({"ranks": {"local_steps": 4}} if name == "local" else {}))
    is_signalled = name in ("first", "local") and rank == PHASES[name] - 1
    if is_stopped(config, run_dir, STOP if is_signalled else None):
        checkpoint = load_checkpoint(run_dir) if rank == 0 else None
        (folder / f"{name}{rank}.step").write_text(str(checkpoint.step) if checkpoint else "stopped")
    if name == "local":
        distributed.barrier()
        pretrain(config, run_dir, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(0)
    write_shards(folder / "shards", {"train": [(label, coloured(label, rng)) for label in (0, 1, 2, 3) * 4]})
    play_phases(one_phase, PHASES, folder)
    return folder


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / name / "trunk.pt", weights_only=True)["weights"]
    return found


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((value - other[key]).abs().max()) for key, value in one.items())


def test_a_run_divided_over_two_and_then_four_ranks_ends_as_on_one(folder: Path) -> None:
    # The signal came in the 6th step; the votes that are cast after it are read after the next.
    assert (folder / "first0.step").read_text() == str(STOP + 2)
    assert furthest(weights(folder, "divided"), weights(folder, "alone")) < 1e-5


def test_the_log_has_all_tasks_as_on_one_rank(folder: Path) -> None:
    alone, divided = (read_log(folder / name / "log.jsonl") for name in ("alone", "divided"))
    assert [line["step"] for line in divided] == [line["step"] for line in alone] == [7, 14]
    for one, other in zip(alone, divided, strict=True):
        assert other["passes"] == one["passes"]
        for part in ("losses", "metrics", "lasso", "held_out"):
            assert other[part].keys() == one[part].keys() == {"colorization", "exemplar"}
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-4)
        # The first rank measures with the heads of the other group, too.
        for task, values in one["held_out"].items():
            assert other["held_out"][task]["model"] == pytest.approx(values["model"], rel=1e-3, abs=1e-3)


def test_groups_that_take_steps_alone_stop_where_their_trunks_agree(folder: Path) -> None:
    assert (folder / "local0.step").read_text() == "8"
    apart = furthest(weights(folder, "local"), weights(folder, "alone"))
    # Other weights, as each group's steps lack the other's last updates; but not far away.
    moved = furthest(weights(folder, "alone"), untrained(folder))
    assert 1e-7 < apart < 0.5 * moved


def untrained(folder: Path) -> dict[str, torch.Tensor]:
    config = config_of(folder / "shards")
    return dict(build_trunk(config.trunk, tuple(config.pipeline.tasks), config.seed).state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": "per_task"}, "use updates: summed and balance: none"),
        ({"balance": "pcgrad"}, "use updates: summed and balance: none"),
        ({"diagnostics": {"every": 5}}, "ranks with diagnostics"),
    ],
)
def test_what_needs_all_gradients_on_one_rank_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config_of(tmp_path, **changes)
