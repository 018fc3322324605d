"""Grids of patches: canvases whose pixels hold their own coordinates show that every label is where its patches lie."""

import numpy as np
import pytest
import torch

from pipelines.base.batch_rng import BatchRng
from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.tasks.base import CanvasSpec, Geometry, TaskBatch
from pipelines.tasks.relative_position import RelativePosition, RelativePositionConfig

PLACES = {(-1, -1): 0, (0, -1): 1, (1, -1): 2, (-1, 0): 3, (1, 0): 4, (-1, 1): 5, (0, 1): 6, (1, 1): 7}
PLAIN = {"color": "keep", "resample_probability": 0, "standardize": False}


def task(pipeline_px: int = 96, **options: object) -> RelativePosition:
    return RelativePosition(RelativePositionConfig.model_validate(options), CanvasSpec(canvas_px=pipeline_px))


def drawn(of: RelativePosition, count: int) -> Geometry:
    return of.draw(BatchRng(0, [0] * count, [str(key) for key in range(count)], of.name))


def make(of: RelativePosition, pixels: torch.Tensor) -> TaskBatch:
    return of.make(pixels, drawn(of, len(pixels)), [str(row) for row in range(len(pixels))])


def coordinates(count: int, side_px: int) -> torch.Tensor:
    """uint8 (count, S, S, 3): red is x, green is y, blue is the number of the canvas."""
    pixels = torch.empty(count, side_px, side_px, 3, dtype=torch.uint8)
    steps = torch.arange(side_px).to(torch.uint8)
    pixels[..., 0], pixels[..., 1] = steps, steps[:, None]
    pixels[..., 2] = torch.arange(count).view(-1, 1, 1).to(torch.uint8)
    return pixels


@pytest.mark.parametrize("options", [{}, {"rows": 4, "cols": 3}, {"grids_per_image": 2}])
def test_every_label_is_the_place_of_its_second_patch(options: dict[str, int]) -> None:
    of = task(64, **PLAIN, **options)
    batch = make(of, coordinates(5, of.canvas_px))
    corner_RV2 = (batch.inputs[:, :, :2, 0, 0] * 255).round().int().numpy()
    row_R1 = np.arange(len(corner_RV2))[:, None]
    first, second = (batch.target[f"pair_{name}"].numpy() for name in ("first", "second"))
    offset = corner_RV2[row_R1, second] - corner_RV2[row_R1, first]
    # Beyond a quarter of the patch it is a step to the next cell, below that it is jitter.
    step = np.sign(offset) * (np.abs(offset) > of.patch_px / 4)
    found = [[PLACES[tuple(pair)] for pair in row] for row in step.tolist()]
    assert batch.target["position"].tolist() == found
    assert set(batch.target["position"].unique().tolist()) == set(range(8))


def test_each_patch_is_cut_whole_from_its_own_canvas() -> None:
    of = task(**PLAIN, grids_per_image=2)
    levels = (make(of, coordinates(3, of.canvas_px)).inputs * 255).round().int()
    assert levels.shape == (6, 9, 3, 36, 36)
    assert torch.equal(levels[:, :, 2, 0, 0], torch.arange(3).repeat_interleave(2)[:, None].expand(6, 9))
    steps = torch.arange(36)
    assert (levels[:, :, 0] - levels[:, :, 0, :1, :1] == steps).all()
    assert (levels[:, :, 1] - levels[:, :, 1, :1, :1] == steps[:, None]).all()


def test_a_trunk_pass_answers_more_than_four_pairs() -> None:
    promised = task().spec(2)
    assert np.prod(promised["position"].shape) / np.prod(promised["inputs"].shape[:2]) == pytest.approx(40 / 9)


@pytest.mark.parametrize(
    ("pipeline_px", "options", "expected"),
    [
        (256, {}, (398, 96, 48, 7)),
        (96, {}, (150, 36, 18, 3)),
        (64, {}, (100, 24, 12, 2)),
        (256, {"grids_per_image": 4}, (542, 96, 48, 7)),
        (256, {"rows": 4}, (542, 96, 48, 7)),
        (256, {"canvas_px": 256}, (256, 61, 30, 5)),
        (256, {"canvas_px": 256, "patch_px": 64}, (256, 64, 30, 2)),
        (256, {"canvas_px": 600}, (600, 96, 48, 7)),
        (96, {"patch_px": 20, "gap_px": 0, "jitter_px": 5}, (70, 20, 0, 5)),
    ],
)
def test_lengths_and_canvas_follow_from_what_is_given(
    pipeline_px: int, options: dict[str, int], expected: tuple[int, ...]
) -> None:
    of = task(pipeline_px, **options)
    assert (of.canvas_px, of.patch_px, of.grid.gap_px, of.grid.jitter_px) == expected
    assert of.grid.needed_px <= of.canvas_px


def test_a_grid_that_does_not_fit_its_canvas_is_refused_with_the_size_needed() -> None:
    with pytest.raises(UsageError, match="relative_position: needs a canvas of at least 394 px, canvas_px is 390"):
        RelativePosition(RelativePositionConfig(canvas_px=390, patch_px=96, gap_px=48, jitter_px=5), CanvasSpec())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs_per_image": 2}, "set grids_per_image, or set form: pairs"),
        ({"form": "pairs", "grids_per_image": 2}, "set pairs_per_image"),
        ({"rows": 2}, "rows"),
        ({"cols": 9}, "cols"),
        ({"form": "ring"}, "form"),
        ({"canvas_px": 4}, "canvas_px"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate(RelativePositionConfig, options, source="x.yaml")


def test_options_survive_being_written_and_read() -> None:
    for options in ({}, {"form": "pairs", "pairs_per_image": 3}, {"rows": 4, "grids_per_image": 2}):
        config = RelativePositionConfig.model_validate(options)
        assert RelativePositionConfig.model_validate(config.model_dump(mode="json")) == config


def test_geometry_is_golden() -> None:
    # A change here changes every pretraining run: it must be deliberate.
    geometry = task(color="drop").draw(BatchRng(0, [0], ["sample"], "relative_position"))
    assert {name: value.ravel()[:6].tolist() for name, value in geometry.items()} == {
        "corner_xy": [0, 2, 59, 5, 113, 2],
        "resample_px": [36, 36, 36, 22, 36, 32],
        "channel": [1, 1, 0, 2, 1, 1],
        "noise_start": [310776, 545259, 723635, 128330, 22722, 37229],
    }


def test_no_option_but_the_layout_moves_a_patch() -> None:
    first, *others = (
        drawn(task(**options), 5)
        for options in (
            {},
            {"color": "drop"},
            {"resample_probability": 0},
            {"jpeg_quality": (30, 60)},
            {"color": "keep"},
        )
    )
    assert all(np.array_equal(first["corner_xy"], other["corner_xy"]) for other in others)


def test_a_sample_is_drawn_alike_alone_and_in_a_batch() -> None:
    of, keys = task(color="drop", grids_per_image=2), ["a", "b", "c"]
    whole = of.draw(BatchRng(3, [1, 1, 2], keys, of.name))
    alone = of.draw(BatchRng(3, [1], ["b"], of.name))
    assert all(np.array_equal(whole[name][1], alone[name][0]) for name in whole)


@pytest.mark.parametrize("share_decode", [True, False])
def test_the_pipeline_gives_each_task_its_own_canvas(small_shards, share_decode: bool) -> None:
    tasks = {"relative_position": {"resample_probability": 0}, "colorization": {}}
    config = PipelineConfig(
        images=small_shards(images=6), tasks=tasks, canvas_px=64, batch_size=4, num_threads=1, share_decode=share_decode
    )
    with build_pipeline(config, seed=0) as pipeline:
        batches = next(pipeline).batches
        alone = config.model_copy(update={"tasks": {"colorization": config.tasks["colorization"]}})
    with build_pipeline(alone, seed=0) as pipeline:
        assert torch.equal(next(pipeline).batches["colorization"].inputs, batches["colorization"].inputs)
    grids, place = batches["relative_position"], batches["relative_position"].geometry["corner_xy"]
    assert grids.inputs.shape == (4, 9, 3, 24, 24)
    assert place.max() + 24 > 64
    is_same_box = np.array_equal(grids.geometry["box"], batches["colorization"].geometry["box"])
    assert is_same_box == share_decode
