"""Trunks of other libraries' weights against those libraries themselves; files that do not fit are explained."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from pipelines.base.errors import DataError, UsageError
from training.model import build_trunk
from training.trunk import Trunk, TrunkConfig, recalibrate, save_trunk
from training.weights.foreign import foreign_fourth_stage, foreign_trunk, start_from

IMAGES = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
IMAGENET = {"mean": torch.tensor([0.485, 0.456, 0.406]), "std": torch.tensor([0.229, 0.224, 0.225])}


def with_odd_statistics(network: nn.Module) -> nn.Module:
    """Random running statistics and gains: with those at 0 and 1, a trunk that drops them would pass."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return network.eval()


def normalised(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    return (IMAGES - mean.view(3, 1, 1)) / std.view(3, 1, 1)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    network = with_odd_statistics(torchvision.models.resnet18(weights=None))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return network, path


@torch.no_grad()
def torchvision_maps(network: nn.Module) -> list[torch.Tensor]:
    x = normalised(**IMAGENET)
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    maps = [x]
    for stage in (network.layer1, network.layer2, network.layer3):
        maps.append(stage(maps[-1]))
    return maps


@torch.no_grad()
def test_a_torchvision_resnet_has_torchvisions_own_features(resnet18) -> None:
    network, path = resnet18
    trunk = foreign_trunk("torchvision:resnet18", path)
    expected = torchvision_maps(network)
    output, maps = trunk(IMAGES), trunk.stage_maps(IMAGES)
    units = [network.layer3[0](expected[2]), expected[3]]
    for found, wanted in zip((*maps, *output.units), (*expected, *units), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert output.last is output.units[-1]
    assert (trunk.stage_channels, trunk.num_channels, trunk.num_units) == ((64, 64, 128, 256), 256, 2)
    assert trunk.stage_strides == (4, 4, 8, 16)
    assert not trunk.training


@torch.no_grad()
def test_the_fourth_stage_follows_the_third(resnet18) -> None:
    network, path = resnet18
    third = torchvision_maps(network)[-1]
    found = foreign_fourth_stage("torchvision:resnet18", path)(third)
    torch.testing.assert_close(found, network.layer4(third), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_dilated_third_stage_has_the_same_features_at_every_second_cell_of_its_first_convolution(resnet18) -> None:
    network, path = resnet18
    dense = foreign_trunk("torchvision:resnet18", path, stride_px=8)
    assert dense(IMAGES).last.shape == (2, 256, 8, 6)
    second = torchvision_maps(network)[2]
    first_conv = dense.units[0].conv1(second)
    torch.testing.assert_close(first_conv[:, :, ::2, ::2], network.layer3[0].conv1(second), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnetv2_18", "resnet26d"])
@torch.no_grad()
def test_a_timm_resnet_has_timms_own_features(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    network = with_odd_statistics(timm.create_model(name, num_classes=5))
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    trunk = foreign_trunk(f"timm:{name}", path)
    mean, std = (torch.tensor(network.pretrained_cfg[key]) for key in ("mean", "std"))
    expected = network.forward_intermediates(normalised(mean, std), indices=[1, 2, 3], intermediates_only=True)
    for found, wanted in zip(trunk.stage_maps(IMAGES)[1:], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(trunk(IMAGES).last, expected[-1], rtol=1e-5, atol=1e-5)


def test_batch_norm_of_other_networks_can_be_recalibrated(resnet18) -> None:
    trunk = foreign_trunk("torchvision:resnet18", resnet18[1])
    before = trunk(IMAGES).last
    recalibrate(trunk, [IMAGES])
    assert not torch.allclose(trunk(IMAGES).last, before)


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3}])
def test_weights_inside_a_training_checkpoint_are_found(tmp_path: Path, resnet18, wrap) -> None:
    network, path = resnet18
    torch.save(wrap(network.state_dict()), tmp_path / "checkpoint.pth")
    wrapped, plain = (foreign_trunk("timm:resnet18", one) for one in (tmp_path / "checkpoint.pth", path))
    assert torch.equal(wrapped(IMAGES).last, plain(IMAGES).last)


def test_two_networks_in_one_file_are_refused(tmp_path: Path, resnet18) -> None:
    state = resnet18[0].state_dict()
    both = {f"{side}.{name}": value for side in ("query", "key") for name, value in state.items()}
    torch.save(both, tmp_path / "two.pth")
    with pytest.raises(DataError, match=r"two\.pth: holds 2 networks, under key\., query\."):
        foreign_trunk("timm:resnet18", tmp_path / "two.pth")


def test_weights_of_another_network_are_named(resnet18) -> None:
    with pytest.raises(DataError) as caught:
        foreign_trunk("torchvision:resnet34", resnet18[1])
    text = str(caught.value)
    assert "resnet18.pth: not the weights of torchvision:resnet34: " in text
    assert "missing (first layer1.2.conv1.weight)" in text
    assert text.endswith("They fit torchvision:resnet18.")


def test_another_shape_is_shown(tmp_path: Path, resnet18) -> None:
    state = dict(resnet18[0].state_dict())
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "gray.pth")
    with pytest.raises(DataError, match=r"first conv1\.weight: \(64, 1, 7, 7\), need \(64, 3, 7, 7\)\)\. Allowed: "):
        foreign_trunk("torchvision:resnet18", tmp_path / "gray.pth")


def test_units_that_no_one_asked_for_are_not_dropped(tmp_path: Path, resnet18) -> None:
    state = dict(resnet18[0].state_dict()) | {"layer2.7.conv1.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "more.pth")
    with pytest.raises(DataError, match=r"1 unknown \(first layer2\.7\.conv1\.weight\)"):
        foreign_trunk("torchvision:resnet18", tmp_path / "more.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "need timm:NAME or torchvision:NAME"),
        ("timm:hf_hub/x", "need timm:NAME"),
        ("timm:resnet1", "timm has no such model"),
        ("timm:vit_tiny_patch16_224", "it is no ResNet"),
        ("torchvision:vgg16", "of torchvision, resnet18, resnet34"),
    ],
)
def test_names_that_are_no_trunk_are_refused(resnet18, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        foreign_trunk(name, resnet18[1])


def test_training_starts_from_the_weights_of_a_file(resnet18) -> None:
    config = TrunkConfig(arch="torchvision:resnet18", weights=resnet18[1], statistics="per_task")
    trunk = build_trunk(config, ("exemplar",), seed=3)
    assert trunk.num_channels == 256
    expected = foreign_trunk("torchvision:resnet18", resnet18[1], stride_px=8)
    trunk.use_statistics("exemplar")
    assert torch.equal(trunk.eval()(IMAGES).last, expected(IMAGES).last)


@pytest.mark.parametrize("arch", [None, "timm:resnet18"])
def test_a_run_starts_from_the_trunk_of_another(tmp_path: Path, arch) -> None:
    config = TrunkConfig(depth=10, width=0.25) if arch is None else TrunkConfig(arch=arch)
    trunk = with_odd_statistics(build_trunk(config, (), seed=0))
    path = save_trunk(trunk, tmp_path)
    begun = start_from(config.model_copy(update={"weights": path, "statistics": "per_task"}), ("exemplar",))
    begun.use_statistics("exemplar")
    assert torch.equal(begun.eval()(IMAGES).last, trunk(IMAGES).last)


def test_a_trunk_of_another_width_is_refused(tmp_path: Path) -> None:
    path = save_trunk(Trunk(TrunkConfig(depth=10, width=0.25)), tmp_path)
    with pytest.raises(DataError, match=r"trunk\.pt: not the weights of a trunk of depth 10 and width 0\.5: .* shape"):
        start_from(TrunkConfig(depth=10, width=0.5, weights=path), ())


def test_weights_without_a_name_are_refused(resnet18) -> None:
    with pytest.raises(UsageError, match=r"neither a trunk\.pt nor an export .* trunk\.arch: timm:NAME"):
        start_from(TrunkConfig(depth=18, weights=resnet18[1]), ())
