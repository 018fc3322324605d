"""The trunk against the published networks' sizes, and its batch norm statistics."""

import math

import pytest
import torch

from pipelines.base.errors import DataError, UsageError
from training.trunk import UNITS_PER_STAGE, Trunk, TrunkConfig, load_trunk, recalibrate, save_trunk

TINY = TrunkConfig(depth=10, width=0.125)


def conv_weights(depth: int) -> int:
    with torch.device("meta"):
        trunk = Trunk(TrunkConfig.model_validate({"depth": depth}))
    return sum(parameter.numel() for parameter in trunk.parameters() if parameter.ndim == 4)


def basic_conv_weights(units: tuple[int, int, int]) -> int:
    """Counted by hand: 7x7 stem, two 3x3 per unit, and a 1x1 projection where width, stride or dilation change."""
    total, before = 3 * 64 * 49, 64
    for channels, count in zip((64, 128, 256), units, strict=True):
        total += 9 * before * channels + 9 * channels**2 * (2 * count - 1)
        total += before * channels if before != channels else 0
        before = channels
    return total


def test_depth_101_has_the_27_million_convolution_weights_of_slim_resnet_v2_101() -> None:
    assert conv_weights(101) == 27_452_608


@pytest.mark.parametrize("depth", [10, 18, 34])
def test_basic_depths_have_full_width_inner_convolutions(depth: int) -> None:
    assert conv_weights(depth) == basic_conv_weights(UNITS_PER_STAGE[depth])


@pytest.mark.parametrize(("depth", "channels"), [(10, 256), (18, 256), (14, 1024), (26, 1024)])
def test_output_channels_are_those_of_the_third_stage(depth: int, channels: int) -> None:
    assert TrunkConfig.model_validate({"depth": depth}).channels[-1] == channels


@pytest.mark.parametrize(("height", "width"), [(36, 36), (48, 48), (64, 64), (96, 96), (41, 57), (8, 8), (24, 32)])
def test_the_map_has_a_cell_per_started_8_pixels(height: int, width: int) -> None:
    output = Trunk(TINY)(torch.rand(2, 3, height, width))
    assert output.last.shape == (2, 32, math.ceil(height / 8), math.ceil(width / 8))


@pytest.mark.parametrize("depth", [10, 18, 26, 34])
def test_every_unit_of_the_third_stage_comes_out_in_one_shape(depth: int) -> None:
    trunk = Trunk(TrunkConfig.model_validate({"depth": depth, "width": 0.125}))
    output = trunk(torch.rand(2, 3, 40, 40))
    assert len(output.units) == trunk.num_units == UNITS_PER_STAGE[depth][2]
    assert {unit.shape for unit in output.units} == {output.last.shape}
    assert output.units[-1] is output.last


def test_the_representation_is_the_raw_residual_stream() -> None:
    trunk = Trunk(TrunkConfig(depth=18, width=0.125))
    residuals: list[torch.Tensor] = []
    trunk.units[-1].conv2.register_forward_hook(lambda module, args, output: residuals.append(output))
    output = trunk(torch.rand(2, 3, 32, 32))
    assert (output.last < 0).any()
    torch.testing.assert_close(output.last, output.units[0] + residuals[0])


def test_the_third_stage_is_dilated_and_not_strided() -> None:
    convs = [m for m in Trunk(TrunkConfig(depth=34, width=0.125)).units.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {conv.stride for conv in convs} == {(1, 1)}
    assert convs[-1].dilation == (2, 2)


def test_widths_are_multiples_of_8() -> None:
    assert TrunkConfig(depth=18, width=0.3).channels == (16, 16, 40, 80)
    assert TrunkConfig(depth=18, width=0.01).channels == (8, 8, 8, 8)


def test_an_imagenet_mean_image_is_zero_to_the_stem() -> None:
    trunk = Trunk(TINY)
    seen: list[torch.Tensor] = []
    trunk.early.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    trunk(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(2, 3, 16, 16))
    torch.testing.assert_close(seen[0], torch.zeros(2, 3, 16, 16))


def test_per_task_statistics_do_not_touch_each_other() -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125, statistics="per_task"), ["a", "b"])
    trunk.use_statistics("b")
    trunk(torch.rand(2, 3, 32, 32))
    first_norm = trunk.statistics["a"][0], trunk.statistics["b"][0]
    assert (first_norm[0].mean == 0).all()
    assert (first_norm[1].mean != 0).any()


def test_per_task_statistics_leave_the_weights_shared() -> None:
    shared = Trunk(TINY)
    separate = Trunk(TrunkConfig(depth=10, width=0.125, statistics="per_task"), ["a", "b"])
    assert [p.shape for p in shared.parameters()] == [p.shape for p in separate.parameters()]


def test_statistics_of_an_unknown_task_are_refused() -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125, statistics="per_task"), ["a"])
    with pytest.raises(UsageError, match=r"c: the trunk has .* of a only"):
        trunk.use_statistics("c")


def test_pooled_statistics_are_those_of_the_mixture() -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125, statistics="per_task"), ["a", "b"])
    trunk.statistics["a"][0].mean.fill_(1.0)
    trunk.statistics["b"][0].mean.fill_(3.0)
    trunk.statistics["b"][0].var.fill_(5.0)
    trunk.pool_statistics()
    norm = trunk._norms()[0]
    # Equal mixture of N(1, 1) and N(3, 5): mean 2, variance (1 + 5) / 2 + 1.
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean[0].item() == pytest.approx(2.0)
    assert norm.running_var[0].item() == pytest.approx(4.0)


def test_recalibrated_statistics_are_the_plain_average_over_batches() -> None:
    trunk = Trunk(TINY)
    batches = [torch.rand(4, 3, 32, 32) * scale for scale in (0.2, 1.0)]
    seen: list[torch.Tensor] = []
    first = trunk._norms()[0]
    handle = first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    recalibrate(trunk, batches)
    handle.remove()
    expected = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(first.running_mean, expected)
    assert first.momentum == 0.1
    assert not trunk.training


def test_recalibration_changes_no_weight() -> None:
    trunk = Trunk(TINY)
    before = [p.clone() for p in trunk.parameters()]
    recalibrate(trunk, [torch.rand(2, 3, 16, 16)])
    assert all(torch.equal(a, b) for a, b in zip(before, trunk.parameters(), strict=True))


@pytest.mark.parametrize("statistics", ["shared", "per_task"])
def test_a_saved_trunk_gives_the_same_features(tmp_path, statistics) -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125, statistics=statistics), ["a", "b"])
    images = torch.rand(2, 3, 32, 32)
    trunk.use_statistics("a")
    trunk(images)
    save_trunk(trunk, tmp_path)
    loaded = load_trunk(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded(images).last, trunk.eval()(images).last)


def test_a_run_without_a_trunk_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"has no trunk\.pt"):
        load_trunk(tmp_path)


def test_a_damaged_trunk_is_named(tmp_path) -> None:
    (tmp_path / "trunk.pt").write_bytes(b"not a trunk")
    with pytest.raises(DataError, match=r"trunk\.pt: damaged"):
        load_trunk(tmp_path)


def test_a_depth_without_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match="depth"):
        TrunkConfig.model_validate({"depth": 20})


@pytest.mark.cuda
@pytest.mark.gpu_only
def test_the_trunk_gives_the_same_features_on_a_gpu() -> None:
    trunk = Trunk(TINY).eval()
    images = torch.rand(2, 3, 36, 36)
    expected = trunk(images).last
    # TF32 convolutions differ in the third digit.
    torch.testing.assert_close(trunk.cuda()(images.cuda()).last.cpu(), expected, rtol=1e-2, atol=1e-2)
