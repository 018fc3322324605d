"""Strides and dilations against a network written out by hand in the order of TF-Slim's `stack_blocks_dense`."""

import pytest
import torch
from torch.nn import functional

from training.trunk import Trunk, TrunkConfig

IMAGES = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slim(depth: int, width: float = 0.125) -> Trunk:
    torch.manual_seed(0)
    return Trunk(TrunkConfig.model_validate({"depth": depth, "width": width, "layout": "slim"})).double().eval()


def strides_and_rates(units: list[tuple[int, int]], output_stride: int = 8) -> list[tuple[int, int]]:
    """(stride, rate) of every unit: a transcription of tf_slim/nets/resnet_utils.py. units: (block, stride) of each."""
    current, rate, found = 1, 1, []
    for _, stride in units:
        if current == output_stride // 4:
            found.append((1, rate))
            rate *= stride
        else:
            found.append((stride, 1))
            current *= stride
    return found


def by_hand(trunk: Trunk, counts: tuple[int, int, int]) -> list[torch.Tensor]:
    """Outputs of all units, from the trunk's weights alone and TF-Slim's strides and rates."""
    weights = trunk.state_dict()
    names = [f"early.1.blocks.{i}" for i in range(counts[0])]
    names += [f"early.2.blocks.{i}" for i in range(counts[1])] + [f"units.{i}" for i in range(counts[2])]
    units = [(block, 2 if i == count - 1 else 1) for block, count in enumerate(counts) for i in range(count)]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, gain, bias = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu(functional.batch_norm(x, mean, var, gain, bias))

    x = (IMAGES - trunk.image_mean) / trunk.image_std
    x = functional.max_pool2d(functional.conv2d(x, weights["early.0.conv.weight"], stride=2, padding=3), 3, 2, 1)
    outputs = []
    for name, (stride, rate) in zip(names, strides_and_rates(units), strict=True):
        preact = norm(f"{name}.norm1", x)
        projection = weights.get(f"{name}.downsample.conv.weight")
        shortcut = functional.max_pool2d(x, 1, stride)
        if projection is not None:
            shortcut = functional.conv2d(preact, projection, stride=stride)
        y = functional.conv2d(preact, weights[f"{name}.conv1.weight"])
        y = norm(f"{name}.norm2", y)
        y = functional.conv2d(y, weights[f"{name}.conv2.weight"], stride=stride, padding=rate, dilation=rate)
        x = functional.conv2d(norm(f"{name}.norm3", y), weights[f"{name}.conv3.weight"]) + shortcut
        outputs.append(x)
    return outputs


def test_the_transcription_gives_the_strides_and_rates_of_the_paper() -> None:
    units = [(block, 2 if i == n - 1 else 1) for block, n in enumerate((3, 4, 23)) for i in range(n)]
    found = strides_and_rates(units)
    assert found[:7] == [(1, 1), (1, 1), (2, 1), (1, 1), (1, 1), (1, 1), (1, 1)]
    assert set(found[7:]) == {(1, 2)}


@pytest.mark.parametrize(("depth", "counts"), [(14, (1, 1, 1)), (26, (2, 2, 2)), (50, (3, 4, 6))])
@torch.no_grad()
def test_features_are_those_of_the_network_by_hand(depth: int, counts: tuple[int, int, int]) -> None:
    trunk = slim(depth)
    expected = by_hand(trunk, counts)
    first, second, third = trunk.stage_maps(IMAGES)[1:]
    for found, index in ((first, counts[0] - 1), (second, counts[0] + counts[1] - 1), (third, -1)):
        torch.testing.assert_close(found, expected[index])
    for found, wanted in zip(trunk(IMAGES).units, expected[-counts[2] :], strict=True):
        torch.testing.assert_close(found, wanted)


def test_all_23_units_of_depth_101_have_one_size() -> None:
    trunk = slim(101, width=0.05)
    output = trunk(IMAGES)
    assert len(output.units) == 23
    assert {tuple(unit.shape[2:]) for unit in output.units} == {(8, 6)}
    assert trunk.stage_strides == (4, 8, 8, 8)


@pytest.mark.parametrize("depth", [10, 18])
def test_basic_units_stride_in_the_last_unit_too(depth: int) -> None:
    trunk = slim(depth)
    shapes = [tuple(one.shape[2:]) for one in trunk.stage_maps(IMAGES)]
    assert shapes == [(16, 12), (8, 6), (8, 6), (8, 6)]
    dilated = [m for m in trunk.units.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert {conv.dilation for conv in dilated} == {(2, 2)}
    unit, x = trunk.early[1].blocks[-1], torch.rand(1, 8, 9, 7, dtype=torch.float64)
    preact = unit.norm1(x)
    expected = unit.conv2(unit.norm2(functional.conv2d(preact, unit.conv1.weight, stride=2, padding=1)))
    torch.testing.assert_close(unit(x), expected + functional.max_pool2d(x, 1, 2))


def test_weights_fit_both_layouts() -> None:
    plain = Trunk(TrunkConfig(depth=26, width=0.125))
    layout = slim(26)
    layout.load_state_dict(plain.state_dict())
    assert [p.shape for p in layout.parameters()] == [p.shape for p in plain.parameters()]


def test_a_named_network_has_its_own_layout() -> None:
    with pytest.raises(ValueError, match="width and layout are for trunks without arch"):
        TrunkConfig(arch="timm:resnet18", layout="slim")
