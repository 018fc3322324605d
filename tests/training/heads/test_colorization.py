"""Colorization head: the paper's size, the size of its map, and its accuracy."""

import pytest
import torch

from pipelines.tasks.base import TaskBatch
from training.heads import HeadInput, HeadsConfig, build_head


def test_the_paper_head_has_34_84_million_weights() -> None:
    with torch.device("meta"):
        head = build_head("colorization", HeadsConfig(), HeadInput(num_channels=1024, height=32, width=32))
    weights = sum(p.numel() for p in head.parameters() if p.ndim > 1)
    assert weights == 4 * 1024 * 4096 + 4096 * 4096 + 4096 * 313 == 34_836_480


@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 12), (5, 7)])
def test_the_map_keeps_its_size(height: int, width: int) -> None:
    shape = HeadInput(num_channels=8, height=height, width=width)
    head = build_head("colorization", HeadsConfig(preset="small"), shape)
    assert head(torch.rand(2, 8, height, width)).shape == (2, 313, height, width)


def test_the_2x2_kernel_looks_right_and_down() -> None:
    head = build_head("colorization", HeadsConfig(preset="small"), HeadInput(num_channels=8, height=4, width=4))
    plain = torch.zeros(1, 8, 4, 4)
    dotted = plain.clone()
    dotted[0, :, 2, 2] = 1
    changed = (head(plain) != head(dotted)).any(1)[0]
    assert {tuple(cell) for cell in changed.nonzero().tolist()} == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_bin_accuracy_compares_with_the_heaviest_bin() -> None:
    head = build_head("colorization", HeadsConfig(preset="small"), HeadInput(num_channels=8, height=1, width=2))
    logits = torch.zeros(1, 313, 1, 2)
    logits[0, 7] = 1
    bins = torch.tensor([[[[7, 7]], [[9, 9]]]])
    bin_weights = torch.tensor([[[[0.6, 0.4]], [[0.4, 0.6]]]])
    batch = TaskBatch(
        task="colorization",
        inputs=torch.zeros(1, 3, 8, 16),
        target={"bins": bins, "bin_weights": bin_weights},
        weight=torch.tensor([[[2.0, 0.5]]]),
        keys=("a",),
    )
    assert head.loss(logits, batch).metrics["bin_accuracy"].item() == 0.5
