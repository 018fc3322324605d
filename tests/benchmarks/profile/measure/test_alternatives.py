"""Alternatives that are measured: which size of images would do, and what decoding them costs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.profile.measure.alternatives import cost_with_small_images, needed_short_side_px, short_side_px
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]


@pytest.mark.parametrize(("canvas_px", "low", "expected"), [(256, 0.75, 342), (256, 1.0, 256), (96, 0.5, 192)])
def test_needed_size_is_that_of_the_smallest_crop(canvas_px: int, low: float, expected: int) -> None:
    config = made_config(canvas_px=canvas_px, canvas_scale=(low, 1.0)).pipeline
    assert needed_short_side_px(config) == expected


def test_short_side_is_a_median(small_shards: MakeShards) -> None:
    assert 48 <= short_side_px(made_config(images=small_shards(20), batch_size=4).pipeline) <= 60


def test_smaller_images_have_a_cost(small_shards: MakeShards) -> None:
    config = made_config(images=small_shards(8), batch_size=4, canvas_px=16).pipeline
    assert 0 < cost_with_small_images(config, 24, torch.device("cpu")) < 1
