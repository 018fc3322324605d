"""What goes wrong on one of two ranks ends both, soon and with one message, and loses no checkpoint.

Each scene is the command line on two ranks, which meet by a store that outlives them, as torchrun's does.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.distributed import TCPStore

from benchmarks.cli.app import Terminated, _terminate, run
from pipelines.base.config import load_config
from pipelines.base.progress import quiet_progress
from tests.made.rank_processes import play
from tests.made.tiny_shards import coloured, write_shards
from training.config import PretrainConfig
from training.journal import read_log
from training.loop import pretrain
from training.model import Model
from training.ranks import one_message
from training.session import Session
from training.updates import loss_averages
from training.updates.losses import Loss

NUM_STEPS, FAULT_STEP = 12, 5
LONGEST_S = 10.0
SMALL_DISK_BYTES = 100_000
TORCHRUN = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}


def write_config(path: Path, shards: Path) -> None:
    tasks: dict[str, Any] = {"colorization": {}}
    config = {
        "pipeline": {"images": str(shards), "canvas_px": 32, "batch_size": 4, "num_threads": 1, "tasks": tasks},
        "trunk": {"depth": 10, "width": 0.125, "norm": "group"},
        "heads": {"preset": "small"},
        # As in test_equal_results.py: small steps, so that rounding stays rounding.
        "optimizer": {"lr": 1e-4, "eps": 1e-2},
        "budget": {"steps": NUM_STEPS},
        "checkpoint": {"every_steps": 4},
        "log_every_steps": 100,
        "held_out": "off",
        "precision": "fp32",
        "cpu_threads": 1,
    }
    path.write_text(yaml.safe_dump(config))


def at_step(folder: Path, name: str, fault: Callable[[], None]) -> None:
    """Let something happen as step FAULT_STEP begins, and write down when."""
    learn = Session.learn

    def faulty(self: Session, step: Any) -> None:
        if self.step == FAULT_STEP:
            note_fault(folder, name)
            fault()
        learn(self, step)

    Session.learn = faulty  # type: ignore[method-assign]


def note_fault(folder: Path, name: str) -> None:
    # The system's clock, the same in all processes.
    (folder / f"{name}.fault").write_text(str(time.monotonic()))


def not_finite(folder: Path, rank: int, name: str = "not_finite") -> None:
    """Rank 1 alone meets a loss of NaN, after which no checkpoint and no line of the log is due for long."""
    if rank == 0:
        return
    forward = Model.forward
    bad_losses: list[float] = []

    def exploding(self: Model, batch: Any) -> Loss:
        loss = forward(self, batch)
        factor = bad_losses.pop() if bad_losses else 1.0
        return Loss(total=loss.total * factor, metrics=loss.metrics, weight_sums=loss.weight_sums)

    Model.forward = exploding  # type: ignore[method-assign]
    at_step(folder, name, lambda: bad_losses.append(float("nan")))


def not_finite_in_a_group(folder: Path, rank: int) -> None:
    """The same where the rank trains one task and the other rank another."""
    not_finite(folder, rank, "not_finite_in_a_group")


def half_a_checkpoint(folder: Path, rank: int) -> None:
    if rank == 0:
        note_fault(folder, "half_a_checkpoint")
        run_dir = folder / "half_a_checkpoint"
        run_dir.mkdir()
        whole = (folder / "not_finite" / "checkpoint.pt").read_bytes()
        (run_dir / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])


def other_number(folder: Path, rank: int) -> None:
    if rank == 0:
        note_fault(folder, "other_number")


def full_disk(folder: Path, rank: int) -> None:
    if rank == 0:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        at_step(folder, "full_disk", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK_BYTES, limits)))


def bug(folder: Path, rank: int) -> None:
    if rank == 1:
        at_step(folder, "bug", lambda: {}["planted"])  # type: ignore[index]


def signal_to_one(folder: Path, rank: int) -> None:
    if rank == 1:
        at_step(folder, "signal_to_one", lambda: os.kill(os.getpid(), signal.SIGTERM))


def killed(folder: Path, rank: int) -> None:
    if rank == 1:
        at_step(folder, "killed", lambda: os.kill(os.getpid(), signal.SIGKILL))


OPTIONS: dict[Callable[[Path, int], None], tuple[str, ...]] = {
    not_finite: ("budget.steps=100000",),
    not_finite_in_a_group: (
        "budget.steps=100000",
        "updates=summed",
        "ranks={tasks: {colorization: 1, exemplar: 1}}",
        "pipeline.tasks.exemplar={}",
    ),
    half_a_checkpoint: (),
    other_number: ("pipeline.batch_size=3",),
    bug: (),
    full_disk: (),
    signal_to_one: (),
    killed: (),
}
"""Last the scene that leaves one process less."""
MESSAGES = {
    "not_finite": "colorization: the loss is not a finite number at step 5. Lower optimizer.lr",
    "not_finite_in_a_group": "exemplar: the loss is not a finite number at step 5. Lower optimizer.lr",
    "half_a_checkpoint": "checkpoint.pt: cannot read it (",
    "other_number": "batch_size = 3: over 2 ranks; need a multiple of 2",
    "bug": "KeyError: 'planted'. This is a bug in fourfold",
    "full_disk": "cannot write a checkpoint (File too large). Free some space, then run the same command again",
    "signal_to_one": "interrupted",
    "killed": "Another rank of this run was killed or cannot be reached. Run the same command again",
}
EXIT_CODES = {"other_number": 2, "signal_to_one": 130}
CHECKPOINTS = {"not_finite": 4, "not_finite_in_a_group": 4, "bug": 4, "full_disk": 4, "signal_to_one": 7, "killed": 4}


def all_scenes(ports: list[int], rank: int, folder: Path) -> None:
    loss_averages.CHECK_EVERY_S = 0.2
    before = Model.forward, Session.learn, resource.getrlimit(resource.RLIMIT_FSIZE)
    for (scene, options), port in zip(OPTIONS.items(), ports, strict=True):
        name = scene.__name__
        os.environ |= TORCHRUN | {"MASTER_PORT": str(port)}
        one_message._answer = None
        scene(folder, rank)
        with (folder / f"{name}{rank}.txt").open("w") as sys.stderr:
            given = [part for option in options for part in ("--set", option)]
            code = run(["pretrain", str(folder / "config.yaml"), "--out", str(folder / name), *given])
        sys.stderr = sys.__stderr__
        ended = {"code": code, "end_s": time.monotonic()}
        (folder / f"{name}{rank}.json").write_text(json.dumps(ended))
        Model.forward, Session.learn = before[:2]  # type: ignore[method-assign]
        resource.setrlimit(resource.RLIMIT_FSIZE, before[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(0)
    write_shards(folder / "shards", {"train": [(label, coloured(label, rng)) for label in (0, 1, 2, 3) * 3]})
    write_config(folder / "config.yaml", folder / "shards")
    # One each: ranks that meet again must not find the addresses of the last time.
    stores = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in OPTIONS]
    play(partial(all_scenes, [store.port for store in stores]), 2, folder, is_joined=False)
    return folder


def ends(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the ranks that ended by themselves wrote down."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}[01].json"))]
    assert len(found) == (1 if name == "killed" else 2)
    return found


@pytest.mark.parametrize("name", MESSAGES)
def test_two_ranks_print_one_message(folder: Path, name: str) -> None:
    lines = [line for rank in range(2) for line in (folder / f"{name}{rank}.txt").read_text().splitlines()]
    # A busy machine shows progress, every 10 s.
    lines = [line for line in lines if not line.startswith(("pretrain", "ranks are divided"))]
    assert len(lines) == 1, lines
    assert lines[0].startswith("fourfold: ")
    assert MESSAGES[name] in lines[0]


@pytest.mark.parametrize("name", MESSAGES)
def test_both_end_soon_and_not_with_success(folder: Path, name: str) -> None:
    fault_s = float((folder / f"{name}.fault").read_text())
    for end in ends(folder, name):
        assert end["code"] != 0
        assert end["end_s"] - fault_s < LONGEST_S
    # The rank that knows the reason has its exit code, also where the other prints.
    assert EXIT_CODES.get(name, 1) in [end["code"] for end in ends(folder, name)]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_last_checkpoint_stays(folder: Path, name: str) -> None:
    assert torch.load(folder / name / "checkpoint.pt", weights_only=True)["step"] == CHECKPOINTS[name]


def test_a_run_of_which_a_rank_was_killed_resumes_on_one_rank(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(PretrainConfig, folder / "config.yaml")
    pretrain(config, folder / "killed", device="cpu")
    assert "resumes on 1 rank from a checkpoint of 2: batches over all ranks stay the same" in capsys.readouterr().err
    with quiet_progress():
        pretrain(config, folder / "alone", device="cpu")
    runs = [folder / name for name in ("alone", "killed")]
    expected, found = (torch.load(run / "trunk.pt", weights_only=True)["weights"] for run in runs)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5)
    assert [line["step"] for line in read_log(folder / "killed" / "log.jsonl")] == [NUM_STEPS]


def test_a_signal_cannot_cut_off_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun sends SIGTERM to all ranks once one has ended."""
    with pytest.raises(Terminated):
        _terminate(signal.SIGTERM, None)
    monkeypatch.setattr(one_message, "_answer", False)
    _terminate(signal.SIGTERM, None)


def test_the_first_of_a_try_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun starts a run that failed again, beside the same store."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in (TORCHRUN | {"MASTER_PORT": str(store.port)}).items():
        monkeypatch.setenv(name, value)
    assert [asked(monkeypatch) for _ in range(3)] == [True, False, False]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert [asked(monkeypatch) for _ in range(2)] == [True, False]


def asked(monkeypatch: pytest.MonkeyPatch) -> bool:
    """What a rank hears, and hears again, that asks for the first time."""
    monkeypatch.setattr(one_message, "_answer", None)
    answer = one_message.is_first_to_fail()
    assert one_message.is_first_to_fail() == answer
    return answer


def test_without_torchrun_a_process_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert one_message.is_first_to_fail()
    assert not one_message.has_failed()
