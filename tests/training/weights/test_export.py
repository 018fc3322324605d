"""Exported trunks in plain timm: the lines of docs/weights.md run, and features are equal."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from pipelines.base.errors import UsageError
from training.trunk import Trunk, TrunkConfig, load_trunk, save_trunk
from training.weights.export import export_trunk
from training.weights.foreign import foreign_trunk, start_from

ROOT = Path(__file__).resolve().parents[3]
IMAGES = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))


def run_of(folder: Path, **options) -> Path:
    torch.manual_seed(0)
    config = TrunkConfig.model_validate(options)
    trunk = Trunk(config, ("a", "b"))
    trunk.train()
    for task in ("a", "b"):
        trunk.use_statistics(task)
        trunk(IMAGES if task == "a" else 1 - IMAGES)  # moves the running statistics
    folder.mkdir(parents=True)
    save_trunk(trunk, folder)
    (folder / "config.yaml").write_text("seed: 0\n")
    return folder


@pytest.mark.parametrize(
    "options",
    [{"depth": 10, "width": 0.25}, {"depth": 26, "width": 0.125, "norm": "per_task"}, {"depth": 50, "width": 0.125}],
)
@torch.no_grad()
def test_the_lines_of_the_page_give_equal_features(tmp_path: Path, options, monkeypatch) -> None:
    run = run_of(tmp_path / "run", **options)
    export_trunk(run, tmp_path / "trunk.safetensors")
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    (program,) = (one for one in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "create_model" in one)
    monkeypatch.chdir(tmp_path)
    names = {"images": IMAGES}
    exec(program, names)
    # Not closer: the trunk works in channels-last order, and sums in another order round otherwise.
    torch.testing.assert_close(names["features"], load_trunk(run)(IMAGES).last, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_exported_torchvision_trunk_lacks_its_fourth_stage_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", arch="torchvision:resnet18")
    header = export_trunk(run, tmp_path / "trunk.safetensors")
    model = timm.create_model(header["timm_name"], **json.loads(header["timm_kwargs"])).eval()
    found = model.load_state_dict(load_file(tmp_path / "trunk.safetensors"), strict=False)
    assert found.unexpected_keys == []
    assert {name.split(".")[0] for name in found.missing_keys} == set(json.loads(header["missing"])) == {"layer4"}
    mean, std = (torch.tensor(json.loads(header[key])).view(3, 1, 1) for key in ("input_mean", "input_std"))
    features = model.forward_intermediates((IMAGES - mean) / std, indices=[3], intermediates_only=True)[0]
    torch.testing.assert_close(features, load_trunk(run)(IMAGES).last, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_export_comes_back_as_the_trunk_it_was(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", depth=10, width=0.25)
    out = tmp_path / "trunk.safetensors"
    header = export_trunk(run, out)
    expected = load_trunk(run)(IMAGES).last
    assert header["timm_name"] == "resnetv2_18"
    torch.testing.assert_close(foreign_trunk("timm:resnetv2_18", out)(IMAGES).last, expected)
    begun = start_from(TrunkConfig(depth=10, width=0.25, weights=out), ())
    torch.testing.assert_close(begun.eval()(IMAGES).last, expected)
    with pytest.raises(UsageError, match="exported as timm:resnetv2_18, given as timm:resnet50"):
        foreign_trunk("timm:resnet50", out)


def test_the_header_says_where_it_comes_from(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", depth=10, width=0.25)
    export_trunk(run, tmp_path / "trunk.safetensors")
    with safe_open(tmp_path / "trunk.safetensors", framework="pt") as file:
        header = file.metadata()
    assert json.loads(header["input_mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(header["fourfold_trunk"])["depth"] == 10
    assert header["config_sha256"] == hashlib.sha256(b"seed: 0\n").hexdigest()
    assert header["fourfold_version"]


def test_slim_strides_cannot_be_exported(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", depth=10, width=0.125, layout="slim")
    with pytest.raises(UsageError, match=r"trunk\.layout is slim, and timm builds no such strides"):
        export_trunk(run, tmp_path / "trunk.safetensors")
    assert not (tmp_path / "trunk.safetensors").exists()
    begun = start_from(TrunkConfig(depth=10, width=0.125, weights=run / "trunk.pt"), ())
    assert isinstance(begun.units, nn.Sequential)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"need a file name that ends with \.safetensors"):
        export_trunk(tmp_path, tmp_path / "trunk.pth")
