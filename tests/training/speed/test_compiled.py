"""Compiling: one graph of every task's trunk, lasso and head, without breaks, that does what the model does."""

import pytest
import torch
from torch import _dynamo as dynamo

from pipelines.tasks import PRETEXT_TASKS, TASKS
from tests.made.task_batches import random_batch
from training.config import PretrainConfig
from training.session import model_of
from training.speed.compiled import CACHE_VARIABLE, compiled_forward, kernel_folder, reason_not_to_compile


@pytest.fixture(autouse=True)
def _forget_graphs(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    dynamo.reset()
    yield
    dynamo.reset()


def test_every_task_is_one_graph_without_breaks_and_the_same_loss() -> None:
    value = {
        "pipeline": {
            "tasks": {name: {} for name in PRETEXT_TASKS},
            "canvas_px": 64,
            "clip_height_px": 48,
            "clip_width_px": 64,
        },
        "trunk": {"depth": 10, "width": 0.125, "statistics": "per_task"},
        "heads": {"preset": "small"},
        "lasso": {"penalty": 0.1},
        "budget": {"steps": 1},
    }
    config = PretrainConfig.model_validate(value)
    tasks = {name: TASKS[name](own, config.pipeline.canvas) for name, own in config.pipeline.tasks.items()}
    model = model_of(config, tasks, num_labels=5).train()
    dynamo.utils.counters.clear()
    # "eager" runs the captured graph as it is: breaks are found without a compiler.
    forward = compiled_forward(model, backend="eager")
    for name, task in tasks.items():
        batch = random_batch(task, 2)
        for _ in range(2):
            assert torch.equal(forward(batch).total, model(batch).total), name
    assert dynamo.utils.counters["stats"]["unique_graphs"] == len(tasks)
    assert not dynamo.utils.counters["graph_break"]


def test_kernels_lie_in_the_folder_that_runs_share(monkeypatch, tmp_path) -> None:
    assert kernel_folder() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    assert kernel_folder() == tmp_path / "cache" / "kernels"


def test_a_cpu_compiles_nothing_and_says_why() -> None:
    assert "not faster on a CPU" in str(reason_not_to_compile(torch.device("cpu")))
