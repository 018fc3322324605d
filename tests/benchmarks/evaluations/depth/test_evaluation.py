import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.depth.evaluation import EVALUATION, DepthConfig, MeanDepth, measure_depth
from benchmarks.evaluations.depth.pair import Pair
from pipelines.base.errors import FourfoldError
from tests.made.depth_data import write_rooms
from training.trunk import Trunk, TrunkConfig


def small_trunk() -> Trunk:
    torch.manual_seed(3)
    return Trunk(TrunkConfig(depth=10, width=0.125)).eval()


def measure(tmp_path: Path, data: Path, **changes: Any) -> dict[str, Any]:
    options = {"data": data, "steps": 60, "batch_size": 3, "width_px": 64, "height_px": 48} | changes
    return measure_depth(small_trunk(), DepthConfig(**options), folder=tmp_path / "run", key=json.dumps(changes))


def test_depth_that_shows_in_the_image_is_learned(tmp_path: Path) -> None:
    data = write_rooms(tmp_path / "rooms", num_train=12)
    results = measure(tmp_path, data, optimizer="adamw", lr=0.003)
    assert results["mae_m"] < 0.8 * results["mean_image"]["mae_m"]
    assert (results["num_train"], results["num_test"]) == (12, 3)
    assert results["num_test_pixels"] == 3 * (48 * 64 - 72)
    assert results["filters"] == [16, 8, 8]
    json.dumps(results)


def test_frozen_trunk_keeps_its_weights_and_results_repeat(tmp_path: Path) -> None:
    data, trunk = write_rooms(tmp_path / "rooms"), small_trunk()
    before = [weight.clone() for weight in trunk.parameters()]
    config = DepthConfig(data=data, steps=3, batch_size=2, width_px=64, height_px=48, freeze_trunk=True, lasso=True)
    results = measure_depth(trunk, config, folder=tmp_path / "one", key="one")
    assert all(torch.equal(one, other) for one, other in zip(before, trunk.parameters(), strict=True))
    again = measure_depth(small_trunk(), config, folder=tmp_path / "two", key="two")
    assert {**again, "training_s": 0} == {**results, "training_s": 0}
    assert results["lasso_mix"] == [1.0]  # depth 10 has one unit


def test_unfit_test_pair_is_known_before_the_first_step(tmp_path: Path) -> None:
    data = write_rooms(tmp_path / "rooms")
    context = Context(trunk=None, images=None, store=tmp_path)
    EVALUATION.check(context, DepthConfig(data=data))
    (data / "depth" / "room7.png").write_bytes(b"no image")
    with pytest.raises(FourfoldError, match=r"room7\.png: cannot be decoded"):
        EVALUATION.check(context, DepthConfig(data=data))


def test_mean_image_is_the_mean_of_known_depths() -> None:
    mean, depths = MeanDepth(2, 2), ([[1.0, 0], [3, np.nan]], [[3.0, 0], [0, 0]])
    for depth in depths:
        mean.add(Pair(rgb_HW3=np.zeros((2, 2, 3), np.uint8), depth_HW=np.array(depth, dtype=np.float32)))
    np.testing.assert_allclose(mean.image(), [[2, 7 / 3], [3, 7 / 3]], rtol=1e-6)
