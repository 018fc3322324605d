from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.probes.fine_tune import FineTuneConfig, _boxes, labelled_rows, run
from benchmarks.evaluations.trunk_source import TrunkSource
from tests.made.tiny_shards import coloured, write_shards
from training.trunk import Trunk, TrunkConfig, save_trunk


def test_share_of_every_class_and_at_least_one_label() -> None:
    labels = np.repeat([0, 1, 2], [200, 30, 4])
    for share, counts in ((1.0, [2, 1, 1]), (10.0, [20, 3, 1]), (100.0, [200, 30, 4])):
        rows = labelled_rows(labels, share, 0)
        assert np.bincount(labels[rows]).tolist() == counts
        assert (np.diff(rows) > 0).all()
    assert labelled_rows(labels, 10.0, 0).tolist() != labelled_rows(labels, 10.0, 1).tolist()


def test_crops_lie_inside_and_have_the_wanted_area() -> None:
    width, height = np.full(500, 60), np.full(500, 40)
    boxes = _boxes(width, height, (0.25, 1.0), np.random.default_rng(0))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 60).all()
    assert (boxes[:, 3] <= 40).all()
    sides = boxes[:, 2] - boxes[:, 0]
    assert (sides == boxes[:, 3] - boxes[:, 1]).all()
    assert (sides.min(), sides.max()) == (20, 40)


def test_more_labels_are_learned_from_and_the_same_comes_twice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = {"train": 60, "val": 30}
    write_shards(
        tmp_path, {split: [(i % 3, coloured(i % 3, rng)) for i in range(count)] for split, count in counts.items()}
    )
    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    save_trunk(Trunk(TrunkConfig(depth=10, width=0.125)), tmp_path / "run")
    context = Context(trunk=TrunkSource(run=tmp_path / "run"), images=tmp_path, store=tmp_path / "kept")
    config = FineTuneConfig(canvas_px=32, num_samples=480, batch_size=16, labels_pct=[5, 100])
    first, second = run(context, config), run(context, config)
    assert first["top1_100_percent_pct"] > 80
    assert (first["num_labels_5_percent"], first["num_labels_100_percent"]) == (3, 60)
    timeless = [name for name in first if not name.startswith("seconds")]
    assert {name: first[name] for name in timeless} == {name: second[name] for name in timeless}


def test_share_above_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="up to 100"):
        FineTuneConfig(labels_pct=[200])
