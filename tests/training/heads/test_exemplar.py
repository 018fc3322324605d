"""Exemplar head: the paper's size, which rows are compared, and who is a negative."""

import numpy as np
import pytest
import torch

from pipelines.tasks.base import TaskBatch
from training.heads import HeadInput, HeadsConfig, build_head

SHAPE = HeadInput(num_channels=8, height=4, width=4)


def batch_of(keys: tuple[str, ...], negative: list[int]) -> TaskBatch:
    rows = len(negative)
    target = {"negative": torch.tensor(negative)}
    return TaskBatch(
        task="exemplar", inputs=torch.zeros(rows, 2, 3, 8, 8), target=target, weight=torch.ones(rows), keys=keys
    )


def config_of(**options) -> HeadsConfig:
    return HeadsConfig(preset="small", options={"exemplar": options})


def hinge(anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray, margin: float) -> float:
    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return 1 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))

    return max(distance(anchor, positive) - distance(anchor, negative) + margin, 0)


def test_the_paper_head_is_the_two_units_of_relative_position() -> None:
    with torch.device("meta"):
        head = build_head("exemplar", HeadsConfig(), HeadInput(num_channels=1024, height=12, width=12))
        codes = head(torch.empty(6, 1024, 12, 12))
    assert codes.shape == (3, 2, 3 * 3 * 512)
    assert sum(p.numel() for p in head.parameters() if p.ndim > 1) == 1_277_952


def test_the_margin_is_one_half_unless_told() -> None:
    assert build_head("exemplar", HeadsConfig(preset="small"), SHAPE).config.margin == 0.5


def test_one_negative_is_the_row_the_task_chose() -> None:
    head = build_head("exemplar", config_of(negatives="one", margin=0.3), SHAPE)
    codes = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    a, p = codes.numpy().transpose(1, 0, 2)
    expected = np.mean([hinge(a[i], p[i], a[j], 0.3) for i, j in enumerate([2, 0, 1])])
    given = head.loss(codes, batch_of(("x", "y", "z"), [2, 0, 1]))
    assert given.total.item() == pytest.approx(expected, rel=1e-5)


def test_all_negatives_leave_out_rows_of_the_same_image() -> None:
    head = build_head("exemplar", config_of(negatives="all"), SHAPE)
    codes = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    a, p = codes.numpy().transpose(1, 0, 2)
    pairs = {0: [2], 1: [2], 2: [0, 1]}
    expected = np.mean([np.mean([hinge(a[i], p[i], a[j], 0.5) for j in others]) for i, others in pairs.items()])
    given = head.loss(codes, batch_of(("x", "x", "z"), [2, 2, 0]))
    assert given.total.item() == pytest.approx(expected, rel=1e-5)


def test_views_of_one_row_stay_together() -> None:
    head = build_head("exemplar", config_of(), SHAPE).eval()
    features = torch.rand(3, 2, 8, 4, 4)
    codes = head(features.flatten(0, 1))
    torch.testing.assert_close(codes[1, 1], head(features[1])[0, 1])


def slow_mask(keys: tuple[str, ...], rows_per_key: int) -> np.ndarray:
    rows = [key for key in keys for _ in range(rows_per_key)]
    return np.array([[a != b for b in rows] for a in rows])


@pytest.mark.parametrize("keys", [("x", "y", "z"), ("x", "x", "z", "x"), ("x",)])
@pytest.mark.parametrize("rows_per_key", [1, 2])
def test_the_mask_of_all_negatives(keys: tuple[str, ...], rows_per_key: int, monkeypatch) -> None:
    batch = batch_of(keys, [0] * (len(keys) * rows_per_key))
    head = build_head("exemplar", config_of(negatives="all"), SHAPE)
    masks = []
    monkeypatch.setattr("training.heads.exemplar.triplet", lambda a, p, mask, *rest: masks.append(mask))
    head.loss(torch.zeros(len(keys) * rows_per_key, 2, 5), batch)
    np.testing.assert_array_equal(masks[0].numpy(), slow_mask(keys, rows_per_key))


def test_the_mask_is_made_where_the_batch_is() -> None:
    """On device "meta" nothing can be computed and nothing copied back: what waits for the device fails there."""
    head = build_head("exemplar", config_of(negatives="all"), SHAPE)
    batch = batch_of(("x", "y", "z"), [0, 0, 0]).to("meta")
    assert head.loss(torch.zeros(3, 2, 5, device="meta"), batch).total.device.type == "meta"


@pytest.mark.cuda
@pytest.mark.parametrize("negatives", ["one", "all"])
def test_the_loss_does_not_wait_for_the_device(negatives: str) -> None:
    head = build_head("exemplar", config_of(negatives=negatives), SHAPE)
    batch = batch_of(("x", "x", "z"), [2, 2, 0]).to("cuda")
    codes = torch.randn(3, 2, 5, device="cuda")
    head.loss(codes, batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = head.loss(codes, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss.total)
