"""Group norm and synced norm in the place of batch norm."""

import pytest
import torch
from torch import nn

from tests.made.task_batches import MAKERS
from training.heads import HeadInput, HeadsConfig
from training.model import Model, build_model, build_trunk
from training.norms import sync_norms, use_group_norm
from training.ranks.synced_norm import SyncedBatchNorm, SyncedBatchNormAct
from training.trunk import Trunk, TrunkConfig, load_trunk, save_trunk


def model_of(norm: str) -> Model:
    shapes = {task: HeadInput(num_channels=32, height=5, width=5) for task in ("relative_position", "exemplar")}
    trunk = build_trunk(TrunkConfig.model_validate({"depth": 10, "width": 0.125, "norm": norm}), (), 0)
    return build_model(trunk, HeadsConfig(preset="small"), shapes, seed=0)


def test_group_norm_does_not_see_the_other_rows_of_a_batch() -> None:
    images = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    grouped, usual = (model_of(norm).trunk(images).last[:1] for norm in ("group", "batch"))
    alone, usual_alone = (model_of(norm).trunk(images[:1]).last for norm in ("group", "batch"))
    torch.testing.assert_close(grouped, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(usual, usual_alone, rtol=1e-2)


@pytest.mark.parametrize("task", ["relative_position", "exemplar"])
def test_group_norm_trains_trunk_and_head(task: str) -> None:
    model = model_of("group")
    assert not [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    model(MAKERS[task]()).total.backward()
    # A group of a single number would be normalised to 0, and let no gradient through.
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in model.trunk.parameters())


def test_convolutions_start_as_with_batch_norm() -> None:
    grouped, usual = (dict(model_of(norm).trunk.named_parameters()) for norm in ("group", "batch"))
    assert set(grouped) == set(usual)
    assert all(torch.equal(grouped[name], usual[name]) for name in usual)


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (24, 1), (32, 4), (64, 8), (256, 32), (4608, 32)])
def test_groups_have_at_least_8_channels_and_are_at_most_32(channels: int, groups: int) -> None:
    holder = nn.Sequential(nn.BatchNorm2d(channels))
    use_group_norm(holder)
    (norm,) = holder
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (groups, channels)


def test_a_trunk_with_group_norm_is_saved_and_loaded(tmp_path) -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125, norm="group"))
    save_trunk(trunk, tmp_path)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_trunk(tmp_path)(images).last, trunk.eval()(images).last)


@pytest.mark.parametrize("task", ["relative_position", "exemplar"])
def test_synced_norm_of_one_rank_is_batch_norm(task: str) -> None:
    usual, synced = model_of("batch"), model_of("synced")
    sync_norms(synced)
    assert {type(one) for one in synced.modules() if isinstance(one, nn.BatchNorm2d)} == {
        SyncedBatchNorm,
        SyncedBatchNormAct,
    }
    for model in (usual, synced):
        model(MAKERS[task]()).total.backward()
    for own, other in zip(usual.parameters_of(task), synced.parameters_of(task), strict=True):
        assert torch.equal(own.grad, other.grad)
    theirs = synced.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in usual.state_dict().items())


@pytest.mark.parametrize("old", ["shared", "per_task"])
def test_the_old_name_of_statistics_is_read_and_written(old: str) -> None:
    config = TrunkConfig.model_validate({"norm": old})
    assert (config.norm, config.statistics) == ("batch", old)
    assert config.model_dump()["norm"] == old
    assert "statistics" not in config.model_dump()
    assert TrunkConfig.model_validate(config.model_dump()) == config
    grouped = TrunkConfig(norm="group")
    assert TrunkConfig.model_validate(grouped.model_dump()) == grouped


def test_group_norm_is_refused_for_networks_with_weights_of_batch_norm() -> None:
    with pytest.raises(ValueError, match="norm group is for trunks without arch"):
        TrunkConfig(arch="timm:resnet18", norm="group")
