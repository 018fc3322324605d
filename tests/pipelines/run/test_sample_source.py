"""Crop boxes lie inside every image, on whole pixels of a reduced decode; stages one by one make the same batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.build import PipelineConfig, build_pipeline
from pipelines.decode.jpeg_reduction import jpeg_reduction
from pipelines.run.sample_source import TaskSamples, canvas_boxes

SHARES = st.floats(0, 1, exclude_max=True)


def boxes(uniform: np.ndarray, width: int, height: int, scale: tuple[float, float], canvas_px: int) -> np.ndarray:
    sizes = (np.full(len(uniform), size, np.int64) for size in (width, height))
    return canvas_boxes(uniform, *sizes, scale, canvas_px)


@settings(max_examples=200, deadline=None)
@given(
    uniform=st.tuples(SHARES, SHARES, SHARES, SHARES),
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    low=st.floats(0.01, 1),
    canvas_px=st.integers(8, 400),
)
def test_boxes_are_squares_inside_the_image(
    uniform: tuple[float, ...], width: int, height: int, low: float, canvas_px: int
) -> None:
    x0, y0, x1, y1 = boxes(np.array([uniform]), width, height, (low, 1.0), canvas_px)[0].tolist()
    side = x1 - x0
    assert side == y1 - y0 >= 1
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert not np.mod([x0, y0, x1, y1], jpeg_reduction(side, canvas_px)).any()
    assert side > low * min(width, height) - 8.5


def test_boxes_reach_every_edge_and_size() -> None:
    uniform = np.random.default_rng(0).random((4000, 4))
    for width, height, canvas_px in ((50, 40, 32), (410, 330, 16)):
        found = boxes(uniform, width, height, (0.5, 1.0), canvas_px)
        side = found[:, 2] - found[:, 0]
        step = jpeg_reduction(side.max(), canvas_px)
        assert side.min() <= 0.5 * height + 1
        assert side.max() > height - step
        assert found[:, :2].min(0).tolist() == [0, 0]
        assert (found[:, 2:].max(0) > np.array([width, height]) - step).all()


def test_boxes_are_golden() -> None:
    # A change here changes every pretraining run: it must be deliberate.
    uniform = np.array([[0.0, 0.5, 0.999, 0], [0.9, 0.1, 0.3, 0]])
    assert boxes(uniform, 500, 375, (0.75, 1.0), 256).tolist() == [[110, 94, 391, 375], [13, 3, 379, 369]]
    assert boxes(uniform, 4000, 3000, (0.75, 1.0), 256).tolist() == [[876, 752, 3124, 3000], [108, 24, 3032, 2948]]


@pytest.mark.parametrize("share_decode", [True, False])
def test_stages_run_one_by_one_make_the_batches_of_the_pipeline(
    small_shards: Callable[..., Path], share_decode: bool
) -> None:
    tasks = {"colorization": {}, "exemplar": {"patch_px": 16}, "relative_position": {}}
    facts = {"images": small_shards(8), "tasks": tasks, "batch_size": 4, "canvas_px": 48, "share_decode": share_decode}
    config = PipelineConfig.model_validate(facts)
    with build_pipeline(config, seed=3) as running, build_pipeline(config, seed=3) as pipeline:
        expected = next(running).batches
        source = pipeline.maker.sources["image"].source
        picks = source.plan.picks(0)
        for group in [list(tasks)] if share_decode else [[name] for name in tasks]:
            drawn = source.draw(picks, group)
            decoded = source.decode(source.read(picks), drawn)
            for name in group:
                prepared = TaskSamples(
                    pixels=decoded[pipeline.tasks[name].canvas_px].pixels,
                    geometry=drawn.geometry_of(name),
                    keys=source.keys(picks),
                    failed=(),
                )
                batch = pipeline.maker.make(name, prepared)
                assert batch.keys == expected[name].keys
                assert torch.equal(batch.inputs, expected[name].inputs)
