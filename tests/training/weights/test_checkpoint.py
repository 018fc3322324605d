"""A checkpoint is whole, safe to read, and due when it should be."""

import pickle

import pytest
import torch

from pipelines.base.errors import DataError
from training.weights.checkpoint import (
    CHECKPOINT_NAME,
    Checkpoint,
    CheckpointClock,
    CheckpointConfig,
    load_checkpoint,
    save_checkpoint,
)


def checkpoint_of(step: int) -> Checkpoint:
    weights = torch.nn.Parameter(torch.arange(4.0))
    optimizer = torch.optim.RMSprop([weights])
    weights.grad = torch.ones(4)
    optimizer.step()
    return Checkpoint(
        step=step,
        seconds=1.5,
        samples_seen={"exemplar": 32},
        position={"step": step},
        model={"weights": weights.detach()},
        optimizers={"exemplar": optimizer.state_dict()},
    )


def test_what_is_saved_comes_back(tmp_path) -> None:
    saved = checkpoint_of(3)
    save_checkpoint(saved, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.seconds, loaded.samples_seen, loaded.position) == (
        3,
        1.5,
        {"exemplar": 32},
        {"step": 3},
    )
    assert torch.equal(loaded.model["weights"], saved.model["weights"])
    square = loaded.optimizers["exemplar"]["state"][0]["square_avg"]
    assert torch.equal(square, torch.full((4,), 0.01))


def test_no_checkpoint_is_none(tmp_path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_a_failing_write_leaves_the_last_one(tmp_path, monkeypatch) -> None:
    save_checkpoint(checkpoint_of(1), tmp_path)

    def fail(content, file) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(checkpoint_of(2), tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_leftovers_of_a_killed_process_are_removed(tmp_path) -> None:
    leftover = tmp_path / f".{CHECKPOINT_NAME}.123.tmp"
    leftover.write_bytes(b"half")
    assert load_checkpoint(tmp_path) is None
    assert not leftover.exists()


def test_a_damaged_checkpoint_is_named(tmp_path) -> None:
    path = save_checkpoint(checkpoint_of(1), tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"checkpoint\.pt: cannot read it"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / CHECKPOINT_NAME).write_bytes(pickle.dumps({"step": Evil()}))
    with pytest.raises(DataError):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("version", [1, 99])
def test_another_format_is_refused(tmp_path, version) -> None:
    other = {name: getattr(checkpoint_of(1), name) for name in Checkpoint.__slots__} | {"format_version": version}
    torch.save(other, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(DataError, match=f"format_version {version}; this fourfold reads 3"):
        load_checkpoint(tmp_path)


def test_due_by_steps() -> None:
    clock = CheckpointClock(CheckpointConfig(every_steps=3, every_s=1e-9))
    assert [step for step in range(1, 10) if clock.is_step_due(step)] == [3, 6, 9]
    assert not clock.is_time_due


def test_due_by_the_clock(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("training.weights.checkpoint.time.monotonic", lambda: now[0])
    clock = CheckpointClock(CheckpointConfig(every_s=60))
    now[0] = 159.0
    assert not clock.is_time_due
    now[0] = 160.0
    assert clock.is_time_due
    clock.restart()
    assert not clock.is_time_due
    assert not clock.is_step_due(3)
