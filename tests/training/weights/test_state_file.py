"""Files of weights: what is read, and one message for what is not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines.base.errors import DataError, UsageError
from training.weights.state_file import read_state

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize("content", [STATE, {"model": STATE, "optimizer": {"lr": 0.1}}, {"state_dict": STATE}])
def test_tensors_of_a_torch_file(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "x.pth")
    found = read_state(tmp_path / "x.pth")
    assert {name: value.tolist() for name, value in found.tensors.items()} == {
        name: value.tolist() for name, value in STATE.items()
    }
    assert found.header == {}


def test_tensors_and_header_of_a_safetensors_file(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors", {"made": "here"})
    found = read_state(tmp_path / "x.safetensors")
    assert found.header == {"made": "here"}
    assert torch.equal(found.tensors["a.weight"], STATE["a.weight"])


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(DataError, match=r"model\.pth: cannot read it as weights .* torch\.save\(model\.state_dict"):
        read_state(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_half_a_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save(STATE, path)
    else:
        save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="cannot read it as weights"):
        read_state(path)


def test_a_file_without_tensors_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"holds no tensors by name \(keys epoch, best\)"):
        read_state(tmp_path / "x.pth")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_state(tmp_path / "x.pth")
