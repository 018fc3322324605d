"""Motion segmentation head: the paper's size and map."""

import pytest
import torch

from training.heads import HeadInput, HeadsConfig, build_head


def test_the_paper_head_has_20_98_million_weights() -> None:
    with torch.device("meta"):
        head = build_head("motion_segmentation", HeadsConfig(), HeadInput(num_channels=1024, height=30, width=40))
    weights = sum(p.numel() for p in head.parameters() if p.ndim > 1)
    assert weights == 1024 * 4096 + 4096 * 4096 + 4096 == 20_975_616


def test_a_logit_per_cell() -> None:
    shape = HeadInput(num_channels=8, height=5, width=7)
    head = build_head("motion_segmentation", HeadsConfig(preset="small"), shape)
    assert head(torch.rand(2, 8, 5, 7)).shape == (2, 5, 7)


def test_cells_do_not_see_each_other() -> None:
    shape = HeadInput(num_channels=8, height=5, width=7)
    head = build_head("motion_segmentation", HeadsConfig(preset="small"), shape)
    features = torch.rand(1, 8, 5, 7)
    torch.testing.assert_close(head(features)[:, 2:3, 3:4], head(features[:, :, 2:3, 3:4]))


def test_an_unknown_balance_is_refused() -> None:
    with pytest.raises(ValueError, match="as_is"):
        HeadsConfig(options={"motion_segmentation": {"foreground": "more"}})
