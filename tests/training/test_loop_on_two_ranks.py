"""A run on two ranks: what is logged is true of both, and what goes wrong on one stops both with one message."""

import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.base.config import validate
from pipelines.base.errors import FourfoldError
from pipelines.base.progress import quiet_progress
from tests.made.rank_processes import play
from tests.made.tiny_shards import coloured, write_shards
from training.config import PretrainConfig
from training.journal import read_log
from training.loop import pretrain
from training.model import Model
from training.session import Session
from training.updates.loss_averages import LossAverages
from training.updates.losses import Loss

NUM_STEPS = 6
LONGEST_S = 10.0


def config_of(shards: Path, **values: Any) -> PretrainConfig:
    tasks: dict[str, Any] = {"colorization": {}, "exemplar": {}}
    config = {
        "pipeline": {"images": str(shards), "canvas_px": 64, "batch_size": 4, "num_threads": 1, "tasks": tasks},
        "trunk": {"depth": 10, "width": 0.125},
        "heads": {"preset": "small"},
        "budget": {"steps": NUM_STEPS},
        "precision": "fp32",
        "cpu_threads": 1,
    }
    return validate(PretrainConfig, config | values, source="test")


def whole_run(rank: int, shards: Path, folder: Path) -> None:
    """Train, and write down every batch's loss and metrics of this rank with what each is a mean over."""
    rows: list[dict[str, Any]] = []
    add = LossAverages.add

    def recording(self: LossAverages, task: str, step: int, loss: Loss, weight: torch.Tensor) -> None:
        values = {"loss": loss.total.item()} | {name: value.item() for name, value in loss.metrics.items()}
        over = dict.fromkeys(values, weight.sum().item()) | {"loss": 1.0}
        if task == "colorization":
            over["bin_accuracy"] = int((weight > 0).sum())
        rows.append({"task": task, "step": step, "values": values, "over": over})
        add(self, task, step, loss, weight)

    LossAverages.add = recording  # type: ignore[method-assign]
    # Only the first rank measures held-out samples, after steps 3 and 6; lines of the log are due after 3, 4 and 6.
    config = config_of(shards, log_every_steps=4, held_out={"times": 2, "samples": 4}, checkpoint={"every_s": 1e-3})
    pretrain(config, folder / "whole", device="cpu")
    LossAverages.add = add  # type: ignore[method-assign]
    (folder / f"rows{rank}.json").write_text(json.dumps(rows))


def failing_run(rank: int, shards: Path, folder: Path, name: str) -> None:
    """Train until a FourfoldError, and write down its message and how long after the fault it came."""
    message = "none"
    try:
        pretrain(config_of(shards, log_every_steps=100, checkpoint={"every_steps": 2}), folder / name, device="cpu")
    except FourfoldError as error:
        message = str(error)
    now_s = time.monotonic()
    # The system's clock, the same in both processes.
    fault_s = float((folder / f"{name}.fault").read_text())
    (folder / f"{name}{rank}.json").write_text(json.dumps({"message": message, "seconds": now_s - fault_s}))


def not_finite_at_step_3(rank: int, shards: Path, folder: Path) -> None:
    """Rank 1 alone meets a loss of NaN in the step before a checkpoint, so that no gradient tells the other one."""
    forward, learn = Model.forward, Session.learn
    is_bad = False

    def noting(self: Session, step: Any) -> None:
        nonlocal is_bad
        is_bad = self.step == 3 and rank == 1
        if is_bad:
            (folder / "not_finite.fault").write_text(str(time.monotonic()))
        learn(self, step)

    def exploding(self: Model, batch: Any) -> Loss:
        loss = forward(self, batch)
        return Loss(total=loss.total * float("nan"), metrics=loss.metrics) if is_bad else loss

    Model.forward, Session.learn = exploding, noting  # type: ignore[method-assign]
    failing_run(rank, shards, folder, "not_finite")
    Model.forward, Session.learn = forward, learn  # type: ignore[method-assign]


def killed_at_step_3(rank: int, shards: Path, folder: Path) -> None:
    learn = Session.learn

    def dying(self: Session, step: Any) -> None:
        if self.step == 3 and rank == 1:
            (folder / "killed.fault").write_text(str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGKILL)
        learn(self, step)

    Session.learn = dying  # type: ignore[method-assign]
    failing_run(rank, shards, folder, "killed")


SCENES: tuple[Callable[[int, Path, Path], None], ...] = (whole_run, not_finite_at_step_3, killed_at_step_3)


def all_scenes(shards: Path, rank: int, folder: Path) -> None:
    with quiet_progress():
        for scene in SCENES:
            scene(rank, shards, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all scenes. One pair of processes plays them all: to start them takes longer than the runs."""
    rng = np.random.default_rng(0)
    samples = [(label, coloured(label, rng, 48)) for label in (0, 1, 2, 3) * 5]
    shards = write_shards(tmp_path_factory.mktemp("shards"), {"train": samples, "val": samples[:8]})
    folder = tmp_path_factory.mktemp("ranks")
    play(partial(all_scenes, shards), 2, folder)
    return folder


def logged(folder: Path) -> list[dict[str, Any]]:
    return read_log(folder / "whole" / "log.jsonl")


def expected(folder: Path, task: str, name: str, first: int, last: int) -> float:
    """Mean over steps `first` to `last` of the mean over both ranks' rows."""
    rows = [row for rank in range(2) for row in json.loads((folder / f"rows{rank}.json").read_text())]
    means = []
    for step in range(first, last + 1):
        both = [row for row in rows if (row["task"], row["step"]) == (task, step)]
        assert len(both) == 2
        means.append(np.average([row["values"][name] for row in both], weights=[row["over"][name] for row in both]))
    return float(np.mean(means))


@pytest.mark.parametrize(
    ("task", "metric"), [("colorization", "loss"), ("colorization", "bin_accuracy"), ("exemplar", "satisfied")]
)
def test_the_log_has_means_over_both_ranks(folder: Path, task: str, metric: str) -> None:
    lines = logged(folder)
    assert [line["step"] for line in lines] == [3, 4, 6]
    for line, (first, last) in zip(lines, [(0, 2), (3, 3), (4, 5)], strict=True):
        found = line["losses"][task] if metric == "loss" else line["metrics"][task][metric]
        assert found == pytest.approx(expected(folder, task, metric, first, last), rel=1e-6)


def test_the_ranks_differ_so_that_one_alone_would_be_seen(folder: Path) -> None:
    rows = [json.loads((folder / f"rows{rank}.json").read_text()) for rank in range(2)]
    assert all(a["values"]["loss"] != b["values"]["loss"] for a, b in zip(*rows, strict=True))


def test_the_summary_has_the_last_line(folder: Path) -> None:
    summary = json.loads((folder / "whole" / "summary.json").read_text())
    assert summary["losses"] == logged(folder)[-1]["losses"]
    assert summary["metrics"] == logged(folder)[-1]["metrics"]


def test_a_loss_that_is_not_finite_on_one_rank_stops_both_with_one_message(folder: Path) -> None:
    found = [json.loads((folder / f"not_finite{rank}.json").read_text()) for rank in range(2)]
    assert found[0]["message"] == found[1]["message"]
    assert found[0]["message"].startswith("colorization: the loss is not a finite number at step 3.")
    assert max(one["seconds"] for one in found) < LONGEST_S
    assert torch.load(folder / "not_finite" / "checkpoint.pt", weights_only=True)["step"] == 2


def test_a_rank_that_is_killed_takes_the_other_one_down(folder: Path) -> None:
    found = json.loads((folder / "killed0.json").read_text())
    assert found["message"].startswith("Another rank of this run has stopped, its own message says why")
    assert "Start the run again to resume" in found["message"]
    assert found["seconds"] < LONGEST_S
    assert not (folder / "killed1.json").exists()
    assert torch.load(folder / "killed" / "checkpoint.pt", weights_only=True)["step"] == 2
