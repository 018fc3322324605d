"""A run on two ranks: what is logged is true of both."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.base.config import validate
from pipelines.base.progress import quiet_progress
from tests.made.rank_processes import play
from tests.made.tiny_shards import coloured, write_shards
from training.config import PretrainConfig
from training.journal import read_log
from training.loop import pretrain
from training.updates.loss_averages import LossAverages
from training.updates.losses import Loss

NUM_STEPS = 6


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


def whole_runs(shards: Path, rank: int, folder: Path) -> None:
    with quiet_progress():
        whole_run(rank, shards, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    samples = [(label, coloured(label, rng, 48)) for label in (0, 1, 2, 3) * 5]
    shards = write_shards(tmp_path_factory.mktemp("shards"), {"train": samples, "val": samples[:8]})
    folder = tmp_path_factory.mktemp("ranks")
    play(partial(whole_runs, shards), 2, folder)
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
