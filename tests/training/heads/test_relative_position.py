"""Relative position head: the paper's sizes, and that it puts pairs together rightly."""

import pytest
import torch

from pipelines.targets.views.patch_grid import neighbour_pairs
from pipelines.tasks.base import TaskBatch
from training.heads import HeadInput, HeadsConfig, build_head

PAPER_SHAPE = HeadInput(num_channels=1024, height=12, width=12)
SMALL_SHAPE = HeadInput(num_channels=16, height=6, width=6)


def weights(module: torch.nn.Module) -> int:
    """Weights of convolutions and linear layers, without biases and norms: what PAPER counts."""
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)


def paper_head(joint: str) -> torch.nn.Module:
    config = HeadsConfig(preset="paper", options={"relative_position": {"joint": joint}})
    with torch.device("meta"):
        return build_head("relative_position", config, PAPER_SHAPE)


def test_the_two_strided_units_have_1_28_million_weights() -> None:
    # 1024 -> 128 -> 128 (3x3) -> 1024, identity shortcut; 1024 -> 128 -> 128 (3x3) -> 512, projected shortcut.
    assert weights(paper_head("wide").encode) == 409_600 + 868_352


@pytest.mark.parametrize(
    ("joint", "width", "joint_weights"), [("wide", 9216, 29_097_984), ("project", 4608, 59_768_832)]
)
def test_both_readings_of_the_joint_units(joint: str, width: int, joint_weights: int) -> None:
    head = paper_head(joint)
    wide_unit = 2 * 9216 * 512 + 512 * 512
    narrow_unit = 2 * 4608 * 512 + 512 * 512
    first = 9216 * 512 + 512 * 512 + 512 * 4608 + 9216 * 4608
    assert weights(head.joint) == joint_weights == (3 * wide_unit if joint == "wide" else first + 2 * narrow_unit)
    assert weights(head.classify) == 8 * width


def test_a_96_px_patch_becomes_4608_numbers() -> None:
    assert paper_head("wide").encode(torch.empty(4, 1024, 12, 12, device="meta")).shape == (4, 4608)


@pytest.mark.parametrize("side", [3, 5, 6, 8, 12])
@pytest.mark.parametrize("joint", ["wide", "project"])
def test_other_patch_sizes_fit(side: int, joint: str) -> None:
    config = HeadsConfig(preset="small", options={"relative_position": {"joint": joint}})
    head = build_head("relative_position", config, HeadInput(num_channels=16, height=side, width=side))
    assert head(torch.rand(6, 16, side, side)).shape == (3, 8)


def test_a_pair_does_not_depend_on_its_neighbours_and_its_order_matters() -> None:
    head = build_head("relative_position", HeadsConfig(preset="small"), SMALL_SHAPE).eval()
    pairs = torch.rand(3, 2, 16, 6, 6)
    all_at_once = head(pairs.flatten(0, 1))
    torch.testing.assert_close(all_at_once[1:2], head(pairs[1]))
    assert not torch.allclose(all_at_once[1:2], head(pairs[1].flip(0)))


def grid_batch(rows: int, patches: int, first: list[int], second: list[int]) -> TaskBatch:
    number = len(first)
    return TaskBatch(
        task="relative_position",
        inputs=torch.zeros(rows, patches, 3, 8, 8),
        target={
            "position": torch.zeros(rows, number, dtype=torch.int64),
            "pair_first": torch.tensor(first).expand(rows, -1),
            "pair_second": torch.tensor(second).expand(rows, -1),
        },
        weight=torch.ones(rows, number),
        keys=tuple(str(row) for row in range(rows)),
    )


def test_pairs_of_a_grid_are_formed_of_the_patches_that_the_batch_names() -> None:
    head = build_head("relative_position", HeadsConfig(preset="small"), SMALL_SHAPE).eval()
    maps = torch.rand(3, 4, 16, 6, 6)
    batch = grid_batch(3, 4, [0, 3, 2, 2, 1], [1, 0, 2, 3, 0])
    logits = head.predict(maps.flatten(0, 1), batch)
    assert logits.shape == (3, 5, 8)
    for row in range(3):
        for pair, (first, second) in enumerate(zip([0, 3, 2, 2, 1], [1, 0, 2, 3, 0], strict=True)):
            alone = head(torch.stack([maps[row, first], maps[row, second]]))
            torch.testing.assert_close(logits[row, pair], alone[0])


def test_every_patch_of_a_grid_is_encoded_once() -> None:
    head = build_head("relative_position", HeadsConfig(preset="small"), SMALL_SHAPE)
    seen: list[int] = []
    head.encode.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    head.predict(torch.rand(18, 16, 6, 6), grid_batch(2, 9, list(range(9)) * 4, [0] * 36))
    assert seen == [18]


def test_a_batch_of_pairs_is_predicted_as_before() -> None:
    head = build_head("relative_position", HeadsConfig(preset="small"), SMALL_SHAPE).eval()
    maps = torch.rand(6, 16, 6, 6)
    batch = TaskBatch(
        task="relative_position",
        inputs=torch.zeros(3, 2, 3, 8, 8),
        target={"position": torch.zeros(3, dtype=torch.int64)},
        weight=torch.ones(3),
        keys=("a", "b", "c"),
    )
    assert torch.equal(head.predict(maps, batch), head(maps))


def test_loss_and_accuracy_of_a_grid_are_means_over_its_pairs() -> None:
    head = build_head("relative_position", HeadsConfig(preset="small"), SMALL_SHAPE)
    batch = grid_batch(2, 2, [0, 1], [1, 0])
    batch.weight[1, 1] = 0
    logits = torch.full((2, 2, 8), -100.0)
    logits[0, 0, 0], logits[0, 1, 5], logits[1, 0, 0], logits[1, 1, 5] = 100, 100, 100, 100
    loss = head.loss(logits, batch)
    assert loss.metrics["accuracy"].item() == pytest.approx(2 / 3)
    # A certain mistake costs the difference of the logits; two of three are right.
    assert loss.total.item() == pytest.approx(200 / 3)


def test_accuracy_counts_rows_with_weight_only() -> None:
    head = build_head("relative_position", HeadsConfig(preset="small"), SMALL_SHAPE)
    logits = torch.eye(8)[[3, 4, 5]]
    batch = TaskBatch(
        task="relative_position",
        inputs=torch.zeros(3, 2, 3, 8, 8),
        target={"position": torch.tensor([3, 0, 0])},
        weight=torch.tensor([1.0, 1.0, 0.0]),
        keys=("a", "b", "c"),
    )
    assert head.loss(logits, batch).metrics["accuracy"].item() == 0.5


def test_references_of_grids_are_6_and_9_of_40() -> None:
    pairs = neighbour_pairs(3, 3)
    batch = grid_batch(2, 9, pairs.first.tolist(), pairs.second.tolist())
    batch.target["position"] = torch.from_numpy(pairs.position).expand(2, -1)
    references = build_head("relative_position", HeadsConfig(preset="small"), SMALL_SHAPE).references([batch, batch])
    assert references["constant"](batch).metrics["accuracy"].item() == pytest.approx(6 / 40)
    assert references["place"](batch).metrics["accuracy"].item() == pytest.approx(9 / 40)
    assert references["place"](batch).total < references["constant"](batch).total


def test_pairs_have_the_most_frequent_position_as_their_only_reference() -> None:
    batch = TaskBatch(
        task="relative_position",
        inputs=torch.zeros(4, 2, 3, 8, 8),
        target={"position": torch.tensor([3, 3, 5, 5])},
        weight=torch.tensor([1.0, 1.0, 1.0, 0.0]),
        keys=tuple("abcd"),
    )
    references = build_head("relative_position", HeadsConfig(preset="small"), SMALL_SHAPE).references([batch])
    assert list(references) == ["constant"]
    assert references["constant"](batch).metrics["accuracy"].item() == pytest.approx(2 / 3)
