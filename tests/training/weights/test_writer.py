"""Files written while training continues: copies, order, errors, full disks, kills."""

import os
import resource
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pipelines.base.errors import FourfoldError
from training.trunk import Trunk, TrunkConfig, load_trunk
from training.weights.checkpoint import CHECKPOINT_NAME, Checkpoint, CheckpointConfig, load_checkpoint, save_checkpoint
from training.weights.writer import CheckpointWriter, kept_folder, steps_to_keep


def checkpoint_of(step: int, weights: torch.Tensor | None = None) -> Checkpoint:
    values = torch.full((1000,), float(step)) if weights is None else weights
    optimizers = {"exemplar": {"state": {0: {"square_avg": values * 2}}, "param_groups": [{"lr": 0.1, "params": [0]}]}}
    return Checkpoint(
        step=step, seconds=1.0, samples_seen={}, position={}, model={"weights": values}, optimizers=optimizers
    )


def writer_of(folder: Path, **options) -> CheckpointWriter:
    return CheckpointWriter(CheckpointConfig.model_validate(options), folder)


def test_steps_after_a_save_do_not_change_the_file(tmp_path: Path, monkeypatch) -> None:
    is_free, weights = threading.Event(), torch.zeros(4)
    write = torch.save
    monkeypatch.setattr(torch, "save", lambda *given: is_free.wait(10) and write(*given))
    with writer_of(tmp_path) as writer:
        writer.save(checkpoint_of(1, weights))
        assert not (tmp_path / CHECKPOINT_NAME).exists()  # training was not held up
        weights += 1
        is_free.set()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.model["weights"].tolist() == [0, 0, 0, 0]
    assert loaded.optimizers["exemplar"]["param_groups"][0]["lr"] == 0.1


def test_every_field_of_a_checkpoint_is_written(tmp_path: Path) -> None:
    told = {"step": 3, "seconds": 1.5, "cpu_seconds": 2.5, "samples_seen": {"exemplar": 12}, "position": {"step": 3}}
    with writer_of(tmp_path) as writer:
        writer.save(Checkpoint(**told, model={}, optimizers={}))
    loaded = load_checkpoint(tmp_path)
    assert {name: getattr(loaded, name) for name in told} == told


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    with writer_of(tmp_path, keep_last=2) as writer:
        for step in (5, 10, 15):
            writer.save(checkpoint_of(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-00000010.pt",
        "checkpoint-00000015.pt",
        CHECKPOINT_NAME,
    ]
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.step == 15
    (tmp_path / "checkpoint-00000010.pt").replace(tmp_path / CHECKPOINT_NAME)
    older = load_checkpoint(tmp_path)
    assert older is not None
    assert older.step == 10


def test_one_checkpoint_is_one_file(tmp_path: Path) -> None:
    with writer_of(tmp_path) as writer:
        for step in (1, 2):
            writer.save(checkpoint_of(step))
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_a_kept_trunk_is_read_like_a_runs(tmp_path: Path) -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125, norm="per_task"), ("a", "b"))
    images = torch.rand(2, 3, 16, 16)
    trunk.use_statistics("a")
    trunk(images)
    with writer_of(tmp_path) as writer:
        writer.keep(trunk, 0.3)
        trunk.use_statistics("b")
        trunk(images)
    kept = load_trunk(kept_folder(tmp_path, 0.3))
    assert kept_folder(tmp_path, 0.3) == tmp_path / "kept" / "0.3"
    assert (kept.statistics["b"][0].mean == 0).all()
    # Training continues with statistics per task: the copy alone was pooled.
    assert (trunk.statistics["b"][0].mean != 0).any()


def test_an_error_of_the_thread_surfaces_at_the_next_call(tmp_path: Path, monkeypatch) -> None:
    def fail(content, file) -> None:
        raise ValueError("not what a checkpoint holds")

    monkeypatch.setattr(torch, "save", fail)
    writer = writer_of(tmp_path)
    writer.save(checkpoint_of(1))
    deadline, error = time.monotonic() + 30, None
    while error is None and time.monotonic() < deadline:
        try:
            writer.check()
        except ValueError as found:
            error = found
    assert str(error) == "not what a checkpoint holds"
    writer.close()


@contextmanager
def disk_of(num_bytes: int):
    """Let no file of this process grow beyond `num_bytes`: the kernel refuses the write, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_message_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    writer.save(checkpoint_of(1))
    writer.close()
    with pytest.raises(FourfoldError) as caught, disk_of(100_000), writer_of(tmp_path) as writer:
        writer.save(checkpoint_of(2, torch.zeros(1_000_000)))
    assert "cannot write a checkpoint (File too large). Free some space, then run the same command" in str(caught.value)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_a_killed_process_leaves_whole_files(tmp_path: Path) -> None:
    """Six processes that do nothing but write are killed while they do."""
    # On a busy machine none of them may get as far as a whole file.
    save_checkpoint(checkpoint_of(1, torch.ones(500_000)), tmp_path)
    num_begun = 0
    for attempt in range(6):
        child = os.fork()
        if child == 0:
            writer = writer_of(tmp_path, keep_last=2)
            for step in range(1, 10_000):
                writer.save(checkpoint_of(step, torch.full((500_000,), float(step))))
            os._exit(0)
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob(".checkpoint*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.004 * attempt)
        num_begun += 1
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in tmp_path.glob("checkpoint*.pt"):
            whole = Checkpoint(**torch.load(path, weights_only=True))
            assert (whole.model["weights"] == whole.step).all()
        load_checkpoint(tmp_path)
        assert list(tmp_path.glob(".*.tmp")) == []
    assert num_begun == 6
    assert (tmp_path / CHECKPOINT_NAME).is_file()


def test_fractions_become_steps() -> None:
    assert steps_to_keep([0.1, 0.3, 1.0], 10) == {1: [0.1], 3: [0.3], 10: [1.0]}
    assert steps_to_keep([0.01, 0.1, 0.5], 7) == {1: [0.01, 0.1], 4: [0.5]}
    assert steps_to_keep([], 7) == {}


@pytest.mark.parametrize("keep_at", [[0.0], [1.5], [0.3, 0.1], [0.5, 0.5]])
def test_impossible_fractions_are_refused(keep_at) -> None:
    with pytest.raises(ValueError, match="keep_at"):
        CheckpointConfig.model_validate({"keep_at": keep_at})
