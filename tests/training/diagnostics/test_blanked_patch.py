"""Accuracy with one patch blanked, of models whose answer is known: one that sees both patches, one that cheats."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.base.batch_rng import BatchRng
from pipelines.tasks.base import CanvasSpec, TaskBatch
from pipelines.tasks.relative_position import RelativePosition, RelativePositionConfig
from training.diagnostics.blanked_patch import BlankedAccuracy, blanked_accuracy, with_second_blanked
from training.updates.losses import Loss, weighted_mean


def grids(rows: int = 200) -> TaskBatch:
    """Two patches a row, pairs both ways; the label is the bits of both: 4 * (second is light) + (first is light)."""
    light = torch.randint(2, (rows, 2), generator=torch.Generator().manual_seed(0)).float()
    inputs = light.view(rows, 2, 1, 1, 1).expand(-1, -1, 3, 4, 4) * 0.8 + 0.1
    first, second = torch.tensor([0, 1]).expand(rows, -1), torch.tensor([1, 0]).expand(rows, -1)
    position = (4 * light.gather(1, second) + light.gather(1, first)).long()
    target = {"position": position, "pair_first": first, "pair_second": second}
    keys = tuple(str(row) for row in range(rows))
    return TaskBatch(task="relative_position", inputs=inputs, target=target, weight=torch.ones(rows, 2), keys=keys)


class Reader(nn.Module):
    """Answers from the brightness of both patches, or of the first alone."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.both, self.unused = both, nn.Parameter(torch.zeros(1))

    def forward(self, batch: TaskBatch) -> Loss:
        light = (batch.inputs.mean((2, 3, 4)) > 0.55).long()
        answer = light.gather(1, batch.target["pair_first"])
        if self.both:
            answer = answer + 4 * light.gather(1, batch.target["pair_second"])
        is_right = (answer == batch.target["position"]).float()
        return Loss(total=is_right.sum(), metrics={"accuracy": weighted_mean(is_right, batch.weight)})


class Constant(Reader):
    """Answers 0 whatever it sees."""

    def __init__(self) -> None:
        super().__init__(both=False)

    def forward(self, batch: TaskBatch) -> Loss:
        is_right = (batch.target["position"] == 0).float()
        return Loss(total=is_right.sum(), metrics={"accuracy": weighted_mean(is_right, batch.weight)})


def measured(**options: Any) -> BlankedAccuracy:
    return blanked_accuracy(Reader(**options), [grids(), grids(50)])  # type: ignore[arg-type]


def test_who_needs_both_patches_loses_by_the_blank_one() -> None:
    found = measured(both=True)
    assert found.num_pairs == 500
    assert found.both == 1
    # Half of the second patches are dark, as the blank one is taken to be.
    assert found.second_blanked == pytest.approx(0.5, abs=0.06)


def test_who_looks_at_the_first_patch_alone_keeps_everything() -> None:
    found = measured(both=False)
    assert found.both == found.second_blanked
    assert found.kept_ratio == pytest.approx(1)


def test_chance_is_the_best_constant_of_a_grid_and_an_eighth_of_pairs() -> None:
    of = RelativePosition(RelativePositionConfig(), CanvasSpec(canvas_px=64))
    rng = BatchRng(0, [0, 0], ["a", "b"], of.name)
    pixels = torch.zeros(2, of.canvas_px, of.canvas_px, 3, dtype=torch.uint8)
    batch = of.make(pixels, of.draw(rng), ["a", "b"])
    assert blanked_accuracy(Reader(both=True), [batch]).chance == pytest.approx(6 / 40)  # type: ignore[arg-type]
    first = {"position": torch.zeros(4, dtype=torch.int64)}
    pairs = replace(batch, inputs=torch.rand(4, 2, 3, 4, 4), target=first, weight=torch.ones(4))
    assert blanked_accuracy(Constant(), [pairs]).chance == 1 / 8  # type: ignore[arg-type]


def test_kept_is_the_share_above_chance() -> None:
    found = BlankedAccuracy(both=0.35, second_blanked=0.2, num_pairs=10, chance=0.15)
    assert found.kept_ratio == pytest.approx(0.25)


def test_a_weight_of_0_leaves_a_pair_out() -> None:
    batch = grids()
    batch.weight[:, 1] = 0
    assert blanked_accuracy(Reader(both=True), [batch]).num_pairs == 200  # type: ignore[arg-type]


def test_the_model_stays_in_training() -> None:
    reader = Reader(both=True).train()
    blanked_accuracy(reader, [grids(2)])  # type: ignore[arg-type]
    assert reader.training


def test_the_first_patches_stay_and_the_second_are_even() -> None:
    batch = grids(3)
    blank = with_second_blanked(batch)
    assert torch.equal(blank.inputs[:, :2], batch.inputs)
    assert len(blank.inputs[:, 2].unique()) == 1
    assert blank.target["pair_second"].unique().tolist() == [2]


def test_pairs_have_their_second_patch_replaced() -> None:
    inputs = torch.rand(3, 2, 3, 4, 4)
    target = {"position": torch.zeros(3, dtype=torch.int64)}
    pair = TaskBatch(task="relative_position", inputs=inputs, target=target, weight=torch.ones(3), keys=("a", "b", "c"))
    blank = with_second_blanked(pair).inputs
    assert torch.equal(blank[:, 0], inputs[:, 0])
    assert blank.shape == inputs.shape
    assert len(blank[:, 1].unique()) == 1


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        blanked_accuracy(Reader(both=True), [])  # type: ignore[arg-type]
