"""A run in memory: what it costs, how its learning rate goes, what it logs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.base.config import validate
from pipelines.build import build_pipeline
from tests.made.tiny_shards import coloured, write_shards
from training.config import PretrainConfig
from training.parallel import Ranks
from training.session import Session
from training.weights.writer import CheckpointWriter


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    samples = [(label, coloured(label, rng, 32)) for label in (0, 1, 2, 3) * 3]
    return write_shards(tmp_path_factory.mktemp("shards"), {"train": samples})


@pytest.fixture
def new_session(shards):
    opened = []

    def build(tasks=("exemplar",), **values) -> Session:
        pipeline = {"images": str(shards), "canvas_px": 32, "batch_size": 4, "num_threads": 1}
        config = {
            "pipeline": pipeline | {"tasks": {task: {} for task in tasks}},
            "trunk": {"depth": 10, "width": 0.125},
            "heads": {"preset": "small"},
            "budget": {"steps": 4},
            **values,
        }
        checked = validate(PretrainConfig, config, source="test")
        opened.append(build_pipeline(checked.pipeline, seed=0))
        return Session(checked, opened[-1], Ranks(), torch.device("cpu"))

    yield build
    for pipeline in opened:
        pipeline.close()


def test_all_steps_are_taken_once(new_session) -> None:
    session = new_session()
    indices = []
    for step in session.steps():
        indices.append(step.index)
        session.learn(step)
    assert indices == [0, 1, 2, 3]


def test_a_smaller_batch_of_one_task_is_counted_as_what_it_is(new_session, shards) -> None:
    """Half the samples, half the compute and half the passes; the source is read once for both tasks."""
    tasks = {"exemplar": {"batch_size": 2}, "colorization": {}}
    pipeline = {"images": str(shards), "canvas_px": 32, "batch_size": 4, "num_threads": 1, "tasks": tasks}
    both, half = new_session(("exemplar", "colorization")), new_session(pipeline=pipeline)
    for session in (both, half):
        for step in session.steps():
            session.learn(step)
    assert half.samples_seen == {"colorization": 16, "exemplar": 8}
    assert half.source_samples == both.source_samples == {"image": 16}
    assert half.passes["exemplar"] * 2 == pytest.approx(half.passes["colorization"], abs=2e-3)
    assert half.flop["exemplar"] * 2 == pytest.approx(both.flop["exemplar"], rel=0.01)
    assert half.compute_tflop == pytest.approx(4 * sum(half.flop.values()) / 1e12)
    budget = {"samples": 60}  # of 4 + 2 samples a step
    assert new_session(pipeline=pipeline, budget=budget).num_steps == 10


def test_compute_is_steps_times_the_cost_of_a_step(new_session) -> None:
    session = new_session(("exemplar", "colorization"))
    for step in session.steps():
        session.learn(step)
    assert session.compute_tflop == pytest.approx(4 * sum(session.flop.values()) / 1e12)


def test_the_learning_rate_follows_the_schedule(new_session) -> None:
    session = new_session(schedule={"lr_warmup_steps": 3}, optimizer={"lr": 0.4})
    rates = []
    for step in session.steps():
        rates.append(session.lr)
        session.learn(step)
        assert session.updater.optimizers["exemplar"].param_groups[0]["lr"] == rates[-1]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_heads_fit_the_patches_and_labels_of_the_data(new_session) -> None:
    session = new_session(("relative_position", "supervised"))
    # 96/256 of a 32 px canvas: 12 px patches, a 2x2 map, pooled to 1x1 by two strides; 64 numbers each.
    assert session.model.heads["relative_position"].classify.in_features == 2 * 64
    assert session.model.heads["supervised"].classify.out_features == 4


def test_lines_are_due_at_multiples_and_at_the_end(new_session) -> None:
    session = new_session(log_every_steps=3)
    due = []
    for step in session.steps():
        session.learn(step)
        due.append(session.is_log_due)
    assert due == [False, False, True, True]


def test_a_checkpoint_moves_a_new_session(new_session, tmp_path) -> None:
    first = new_session()
    for step in first.steps():
        first.learn(step)
        if first.step == 2:
            break
    with CheckpointWriter(first.config.checkpoint, tmp_path) as writer:
        first.save(writer)
    second = new_session()
    second.restore(tmp_path)
    assert (second.step, second.samples_seen) == (2, {"exemplar": 8})
    assert next(second.steps()).index == 2
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[name])
