import json
from pathlib import Path

import pytest

from benchmarks.cli.app import run
from training.trunk import Trunk, TrunkConfig, save_trunk


def test_export_writes_a_file_and_prints_its_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_trunk(Trunk(TrunkConfig(depth=10, width=0.125)), tmp_path)
    out = tmp_path / "trunk.safetensors"
    assert run(["export", str(tmp_path), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["file"] == str(out)
    assert printed["header"]["timm_name"] == "resnetv2_18"
    assert out.is_file()


def test_export_without_a_run_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(tmp_path), "--out", str(tmp_path / "trunk.safetensors")]) == 2
    assert "has no trunk.pt" in capsys.readouterr().err
