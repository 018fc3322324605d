"""Held-out measuring: it changes no weight, references are those of NumPy, and planted faults are named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.base.config import validate
from pipelines.base.progress import quiet_progress
from tests.made.pictures import stored_clips, stored_images, write_splits
from tests.made.task_batches import MAKERS
from training.config import PretrainConfig
from training.diagnostics.held_out import problems_of
from training.heads import HEADS, HeadInput, HeadsConfig, build_head
from training.journal import read_log
from training.loop import pretrain
from training.trunk import load_trunk

TASKS = {"relative_position": {}, "colorization": {}, "exemplar": {}, "motion_segmentation": {"num_threads": 1}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return with_splits(tmp_path_factory.mktemp("held_out"), ("train", "val"))


def with_splits(folder: Path, splits: tuple[str, ...]) -> Path:
    return write_splits(
        folder, {one: stored_images(9, split=one) + stored_clips(3, num_frames=4, split=one) for one in splits}
    )


def config_of(shards: Path, **values) -> PretrainConfig:
    pipeline = {
        "images": str(shards), "clips": str(shards), "tasks": TASKS, "canvas_px": 64, "clip_height_px": 48,
        "clip_width_px": 64, "num_frames": 4, "batch_size": 4, "clip_batch_size": 2, "num_threads": 1,
    }  # fmt: skip
    config = {
        "pipeline": pipeline,
        "trunk": {"depth": 10, "width": 0.125},
        "heads": {"preset": "small"},
        "budget": {"steps": 4},
        "log_every_steps": 100,
        "cpu_threads": 1,
        "held_out": {"samples": 6, "times": 2},
    }
    return validate(PretrainConfig, config | values, source="test")


def trained(config: PretrainConfig, out: Path):
    with quiet_progress():
        return pretrain(config, out, device="cpu")


def test_measuring_changes_no_weight(shards, tmp_path) -> None:
    measured = trained(config_of(shards), tmp_path / "measured")
    plain = trained(config_of(shards, held_out="off"), tmp_path / "plain")
    weights = [load_trunk(tmp_path / name).state_dict() for name in ("measured", "plain")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert measured.held_out
    assert plain.held_out == {}


def test_every_task_is_measured_at_even_parts_beside_its_references(shards, tmp_path) -> None:
    summary = trained(config_of(shards), tmp_path)
    lines = [line for line in read_log(tmp_path / "log.jsonl") if "held_out" in line]
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[-1]["held_out"] == summary.held_out
    assert set(summary.held_out) == set(TASKS)
    assert set(summary.held_out["motion_segmentation"]) == {"model", "constant", "place"}
    assert set(summary.held_out["colorization"]["place"]) == {"loss", "bin_accuracy"}
    assert summary.passes == pytest.approx(
        {name: (4 * 2 / 3 if name == "motion_segmentation" else 4 * 4 / 9) for name in TASKS}, abs=1e-3
    )


def test_a_run_without_the_split_says_so_and_trains(tmp_path, capsys) -> None:
    alone = with_splits(tmp_path / "one", ("train",))
    summary = pretrain(config_of(alone), tmp_path / "run", device="cpu")
    assert summary.held_out == {}
    (warning,) = summary.warnings
    assert "no images in split val" in warning
    assert warning in capsys.readouterr().err


def head_of(task: str, **options):
    height, width = MAKERS[task]().inputs.shape[-2:]
    shape = HeadInput(num_channels=8, height=-(-height // 8), width=-(-width // 8), num_labels=5)
    return build_head(task, HeadsConfig(preset="small", options={task: options} if options else {}), shape)


def test_blind_motion_is_the_share_of_moving_cells() -> None:
    batches = [MAKERS["motion_segmentation"](rows=8, seed=seed) for seed in range(3)]
    moving = np.concatenate([batch.target["moving"].numpy() for batch in batches])
    share = moving.mean()
    loss = head_of("motion_segmentation").references(batches)["constant"](batches[0])
    there = batches[0].target["moving"].numpy()
    expected = -(there * np.log(share) + (1 - there) * np.log(1 - share)).mean()
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    # The best constant answer for the IoU is "everything moves".
    assert float(loss.metrics["foreground_iou"]) == pytest.approx(there.mean(), rel=1e-5)


@pytest.mark.parametrize("foreground", ["as_is", "balanced"])
def test_motion_that_always_comes_at_one_place_is_known_without_seeing(foreground: str) -> None:
    batch = MAKERS["motion_segmentation"](rows=6)
    batch.target["moving"][:] = 0
    batch.target["moving"][:, 1:3, 2:4] = 1
    references = head_of("motion_segmentation", foreground=foreground).references([batch] * 20)
    place, constant = references["place"](batch), references["constant"](batch)
    assert float(place.metrics["foreground_iou"]) == 1
    assert float(place.total) < 0.1 * float(constant.total)


def test_blind_color_is_the_entropy_of_what_occurs() -> None:
    batch = MAKERS["colorization"](rows=4)
    bins, shares, weight = (
        one.numpy().astype(np.float64) for one in (batch.target["bins"], batch.target["bin_weights"], batch.weight)
    )
    counts = np.zeros(313)
    np.add.at(counts, bins.astype(int), shares * weight[:, None])
    spread = (counts + 1e-3) / (counts + 1e-3).sum()
    losses = -(shares * np.log(spread[bins.astype(int)])).sum(1)
    expected = (losses * weight).sum() / weight.sum()
    assert float(head_of("colorization").references([batch])["constant"](batch).total) == pytest.approx(
        expected, rel=1e-4
    )
    place = head_of("colorization").references([batch] * 50)["place"](batch)
    assert float(place.total) < expected


def test_no_reference_of_any_head_looks_at_pixels() -> None:
    for task in HEADS:
        batch = MAKERS[task](rows=4)
        for reference in head_of(task).references([batch]).values():
            before = float(reference(batch).total)
            assert float(reference(replace(batch, inputs=batch.inputs * 0)).total) == before


@pytest.mark.parametrize(
    ("training_loss", "model", "constant", "passes", "expected"),
    [
        (0.5, 0.6, 1.0, 3.0, []),
        (0.9, 1.1, 1.0, 3.0, ["no better than the constant"]),
        (0.1, 1.1, 1.0, 3.0, ["no better than the constant", "learned by heart"]),
        (0.5, 0.6, 1.0, 51.0, ["seen 51 times"]),
    ],
)
def test_what_is_wrong_is_said(training_loss, model, constant, passes, expected) -> None:
    held_out = {"model": {"loss": model}, "constant": {"loss": constant}}
    found = list(problems_of("colorization", training_loss, held_out, passes))
    assert len(found) == len(expected)
    assert all(part in sentence for part, sentence in zip(expected, found, strict=True))
