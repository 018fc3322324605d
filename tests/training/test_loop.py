"""A run from start to end, and every way it can stop and go on."""

import errno
import json
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.base.config import load_config, validate
from pipelines.base.errors import DataError, FourfoldError, UsageError
from pipelines.base.progress import quiet_progress
from tests.made.tiny_shards import coloured, write_shards
from training.config import PretrainConfig
from training.journal import read_log
from training.loop import pretrain
from training.model import Model
from training.session import Session
from training.trunk import load_trunk
from training.updates.losses import Loss
from training.weights.checkpoint import load_checkpoint, save_checkpoint

NUM_STEPS = 6


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_progress():
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    samples = [(label, coloured(label, rng, 48)) for label in (0, 1, 2, 3) * 5]
    return write_shards(tmp_path_factory.mktemp("shards"), {"train": samples})


def config_of(shards: Path, **values) -> PretrainConfig:
    tasks = values.pop("tasks", {"relative_position": {}, "colorization": {"task_weight": 0.5}, "exemplar": {}})
    config = {
        "pipeline": {"images": str(shards), "canvas_px": 64, "batch_size": 4, "num_threads": 1, "tasks": tasks},
        "trunk": {"depth": 10, "width": 0.125},
        "heads": {"preset": "small"},
        "budget": {"steps": NUM_STEPS},
        "checkpoint": {"every_steps": 2},
        "log_every_steps": 1,
        "cpu_threads": 1,
    }
    return validate(PretrainConfig, config | values, source="test")


def weights_of(run: Path) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in load_trunk(run).state_dict().values()])


@pytest.fixture(scope="module")
def unbroken(shards, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("unbroken")
    with quiet_progress():
        pretrain(config_of(shards), run, device="cpu")
    return run


def stop_at(step: int, monkeypatch, error: BaseException) -> None:
    """Let the step after `step` fail before it learns anything."""
    learn = Session.learn

    def failing(self: Session, batches) -> None:
        if self.step == step:
            raise error
        learn(self, batches)

    monkeypatch.setattr(Session, "learn", failing)


def test_a_run_leaves_its_files(unbroken) -> None:
    names = {path.name for path in unbroken.iterdir()}
    begun, made = {"config.yaml", "backend.json"}, {"trunk.pt", "summary.json"}
    assert names == {*begun, "checkpoint.pt", "log.jsonl", "tensorboard", *made}
    assert load_config(PretrainConfig, unbroken / "config.yaml").trunk.depth == 10


def test_the_log_has_a_line_per_step_with_everything(unbroken) -> None:
    lines = read_log(unbroken / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    keys = {
        "step",
        "losses",
        "metrics",
        "samples_per_s",
        "data_wait_ratio",
        "lr",
        "seconds",
        "compute_tflop",
        "lasso",
        "passes",
    }
    assert set(lines[-1]) == keys
    assert {"relative_position", "exemplar"} <= set(lines[0]["losses"])
    compute = [line["compute_tflop"] for line in lines]
    assert all(before < after for before, after in pairwise(compute))


def test_the_summary_counts_samples_per_task(unbroken) -> None:
    summary = json.loads((unbroken / "summary.json").read_text())
    assert summary["num_steps"] == NUM_STEPS
    assert summary["samples_seen"]["exemplar"] == 4 * NUM_STEPS
    assert 0 < summary["samples_seen"]["colorization"] <= 4 * NUM_STEPS
    assert summary["num_trunk_parameters"] == sum(p.numel() for p in load_trunk(unbroken).parameters())


def test_the_summary_counts_updates_and_sources(unbroken) -> None:
    summary = json.loads((unbroken / "summary.json").read_text())
    heads = {task: seen // 4 for task, seen in summary["samples_seen"].items()}
    assert summary["head_updates"] == heads
    assert summary["trunk_updates"] == sum(heads.values())
    # Relative position is in every step, so that every step reads a batch of images, once for all tasks.
    assert summary["source_samples"] == {"image": 4 * NUM_STEPS}
    assert summary["source_passes"] == {"image": round(4 * NUM_STEPS / 20, 3)}
    assert set(summary["decay"]) == {"trunk", *heads}
    assert 0 < summary["cpu_seconds"] < 600
    assert summary["gpu_seconds"] == 0


def test_the_trunk_has_learned(unbroken, shards, tmp_path) -> None:
    pretrain(config_of(shards, tasks={}), tmp_path, device="cpu")
    assert not torch.equal(weights_of(unbroken), weights_of(tmp_path))


def test_the_same_config_gives_the_same_weights(unbroken, shards, tmp_path) -> None:
    pretrain(config_of(shards), tmp_path, device="cpu")
    assert torch.equal(weights_of(unbroken), weights_of(tmp_path))


def test_trunks_are_kept_at_fractions_of_the_run_also_across_a_resume(unbroken, shards, tmp_path, monkeypatch) -> None:
    config = config_of(shards, checkpoint={"every_steps": 2, "keep_at": [0.4, 0.5, 1.0], "keep_last": 2})
    with monkeypatch.context() as patch:
        stop_at(4, patch, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(config, tmp_path, device="cpu")
    pretrain(config, tmp_path, device="cpu")
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept == {"0.4", "0.5", "1"}
    assert torch.equal(weights_of(tmp_path / "kept" / "1"), weights_of(unbroken))
    # 0.4 and 0.5 of 6 steps: both after step 3.
    assert torch.equal(weights_of(tmp_path / "kept" / "0.4"), weights_of(tmp_path / "kept" / "0.5"))
    assert not torch.equal(weights_of(tmp_path / "kept" / "0.5"), weights_of(unbroken))
    assert {path.name for path in tmp_path.glob("checkpoint*")} == {
        "checkpoint.pt",
        "checkpoint-00000004.pt",
        "checkpoint-00000006.pt",
    }


def test_a_fraction_that_is_asked_for_too_late_is_told(shards, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(4, patch, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(config_of(shards, checkpoint={"every_steps": 2, "keep_at": [0.5]}), tmp_path, device="cpu")
    late = config_of(shards, checkpoint={"every_steps": 2, "keep_at": [0.2, 0.5, 1.0]})
    told = f"{tmp_path}: checkpoint.keep_at 0.2 will not be kept: the run is at step {{}} of 6 already"
    lines: list[str] = []
    monkeypatch.setattr("training.loop.print_line", lines.append)
    for step in (4, 6):
        lines.clear()
        pretrain(late, tmp_path, device="cpu")
        assert [line.startswith(told.format(step)) for line in lines if "keep_at" in line] == [True]
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"0.5", "1"}


def test_the_order_of_tasks_in_the_file_changes_nothing(unbroken, shards, tmp_path) -> None:
    tasks = {"exemplar": {}, "relative_position": {}, "colorization": {"task_weight": 0.5}}
    pretrain(config_of(shards, tasks=tasks), tmp_path, device="cpu")
    assert torch.equal(weights_of(unbroken), weights_of(tmp_path))


def test_a_run_resumes_from_a_file_with_another_order_of_tasks(unbroken, shards, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(3, patch, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(config_of(shards), tmp_path, device="cpu")
    tasks = {"exemplar": {}, "colorization": {"task_weight": 0.5}, "relative_position": {}}
    pretrain(config_of(shards, tasks=tasks), tmp_path, device="cpu")
    assert torch.equal(weights_of(unbroken), weights_of(tmp_path))


def test_a_finished_run_returns_at_once(unbroken, shards, monkeypatch) -> None:
    monkeypatch.setattr("training.loop.build_pipeline", lambda *args, **options: pytest.fail("built a pipeline"))
    assert pretrain(config_of(shards), unbroken, device="cpu").num_steps == NUM_STEPS


def test_another_config_in_the_same_folder_is_refused(unbroken, shards) -> None:
    with pytest.raises(UsageError, match="holds a run with other values of seed"):
        pretrain(config_of(shards, seed=1), unbroken, device="cpu")


def test_how_often_to_save_may_change(unbroken, shards) -> None:
    pretrain(config_of(shards, checkpoint={"every_s": 5}, log_every_steps=7), unbroken, device="cpu")


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_run_that_broke_goes_on_as_if_it_had_not(unbroken, shards, tmp_path, monkeypatch, step) -> None:
    with monkeypatch.context() as patch:
        stop_at(step, patch, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(config_of(shards), tmp_path, device="cpu")
    pretrain(config_of(shards), tmp_path, device="cpu")
    assert torch.equal(weights_of(unbroken), weights_of(tmp_path))
    lines, expected = (read_log(run / "log.jsonl") for run in (tmp_path, unbroken))
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    assert [line["losses"] for line in lines] == [line["losses"] for line in expected]


RESUMED = [
    {"lasso": {"penalty": 0.1}},
    {"trunk": {"depth": 10, "norm": "per_task"}},
    {
        "tasks": {"exemplar": {"accumulate": 2, "batch_size": 2}, "colorization": {"every": 2, "lr_scale": 0.5}},
        "updates": "summed",
        "balance": "pcgrad",
        "ema": {"decay": 0.5},
        "schedule": {"name": "exponential", "lr_warmup_steps": 0, "every_passes": 0.5},
    },
]


@pytest.mark.parametrize("options", RESUMED)
def test_lasso_and_statistics_per_task_survive_too(shards, tmp_path, monkeypatch, options) -> None:
    options = {"optimizer": {"name": "adamw"}, "schedule": {"name": "cosine", "lr_warmup_steps": 2}, **options}
    config = config_of(shards, **options)
    pretrain(config, tmp_path / "unbroken", device="cpu")
    with monkeypatch.context() as patch:
        stop_at(3, patch, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(config, tmp_path / "broken", device="cpu")
    pretrain(config, tmp_path / "broken", device="cpu")
    assert torch.equal(weights_of(tmp_path / "unbroken"), weights_of(tmp_path / "broken"))


@pytest.mark.parametrize("updates", ["per_task", "summed"])
def test_diagnostics_change_no_weight_and_stand_in_the_log(unbroken, shards, tmp_path, updates: str) -> None:
    plain = unbroken
    if updates != "per_task":
        plain = tmp_path / "plain"
        pretrain(config_of(shards, updates=updates), plain, device="cpu")
    config = config_of(shards, updates=updates, diagnostics={"every": 2}, log_every_steps=5)
    pretrain(config, tmp_path / "diagnosed", device="cpu")
    assert torch.equal(weights_of(plain), weights_of(tmp_path / "diagnosed"))
    lines = {line["step"]: line for line in read_log(tmp_path / "diagnosed" / "log.jsonl")}
    assert sorted(lines) == [2, 4, 5, 6]
    assert [step for step, line in lines.items() if "diagnostics" in line] == [2, 4, 6]
    found = lines[6]["diagnostics"]
    assert sum(found["motion_share"].values()) == pytest.approx(1.0, abs=1e-4)
    assert set(found["batch_cosine"]) == set(found["effective_rank"]) >= {"relative_position", "exemplar"}
    assert set(found["task_cosine"]["exemplar + relative_position"]) == {"trunk", "stem", "stage1", "stage2", "stage3"}
    assert found["seconds"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves(unbroken, shards, tmp_path, monkeypatch, number) -> None:
    config = config_of(shards, checkpoint={"every_s": 1e6})
    learn = Session.learn

    def signalled(self: Session, step) -> None:
        learn(self, step)
        if self.step == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "learn", signalled)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, tmp_path, device="cpu")
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 3
    pretrain(config, tmp_path, device="cpu")
    assert torch.equal(weights_of(unbroken), weights_of(tmp_path))


def test_a_run_killed_before_its_summary_only_needs_that(unbroken, shards, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("training.loop.save_trunk", lambda *args: (_ for _ in ()).throw(RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(config_of(shards), tmp_path, device="cpu")
    assert pretrain(config_of(shards), tmp_path, device="cpu").losses
    assert torch.equal(weights_of(unbroken), weights_of(tmp_path))


def test_a_loss_that_is_not_finite_names_task_and_step_and_is_never_saved(shards, tmp_path, monkeypatch) -> None:
    forward = Model.forward
    calls: list[str] = []

    def exploding(self: Model, batch) -> Loss:
        loss = forward(self, batch)
        calls.append(batch.task)
        is_bad = batch.task == "exemplar" and calls.count("exemplar") == 4
        return replace(loss, total=loss.total * float("nan")) if is_bad else loss

    monkeypatch.setattr(Model, "forward", exploding)
    config = config_of(shards, tasks={"exemplar": {}}, log_every_steps=5)
    # The calls include the one that counts FLOPs.
    with pytest.raises(FourfoldError, match="exemplar: the loss is not a finite number at step 2"):
        pretrain(config, tmp_path, device="cpu")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2


def test_diagnostics_leave_weights_that_are_not_finite_to_the_loss(shards, tmp_path) -> None:
    # The first step's loss is finite, the weights after it are not; diagnostics of the second meet them first.
    given = {"optimizer": {"lr": 1e30}, "diagnostics": {"every": 2}}
    with pytest.raises(FourfoldError, match="exemplar: the loss is not a finite number at step 1"):
        pretrain(config_of(shards, tasks={"exemplar": {}}, **given), tmp_path, device="cpu")


def test_no_tasks_is_a_random_trunk_for_nothing(shards, tmp_path) -> None:
    summary = pretrain(config_of(shards, tasks={}, budget=None), tmp_path, device="cpu")
    assert (summary.num_steps, summary.compute_tflop, summary.losses) == (0, 0.0, {})
    assert load_trunk(tmp_path).config.depth == 10


def test_compute_is_shared_by_the_tasks(shards, tmp_path) -> None:
    """Two like tasks get about half the steps of one from the same budget."""
    steps = {}
    for tasks in (["exemplar"], ["exemplar", "relative_position"]):
        budget = {"compute_tflop": 0.0005}
        options = {task: {"form": "pairs"} if task == "relative_position" else {} for task in tasks}
        config = config_of(shards, tasks=options, budget=budget)
        summary = pretrain(config, tmp_path / str(len(tasks)), device="cpu")
        assert summary.compute_tflop >= 0.0005
        steps[len(tasks)] = summary.num_steps
    assert steps[2] == pytest.approx(steps[1] / 2, rel=0.15)


def test_a_step_limit_by_samples(shards, tmp_path) -> None:
    config = config_of(shards, tasks={"exemplar": {}, "relative_position": {}}, budget={"samples": 17})
    summary = pretrain(config, tmp_path, device="cpu")
    # 2 tasks x 4 images per step: 8, 16, 24.
    assert (summary.num_steps, sum(summary.samples_seen.values())) == (3, 24)


def test_the_labelled_baseline_runs_too(shards, tmp_path) -> None:
    summary = pretrain(config_of(shards, tasks={"supervised": {}}), tmp_path, device="cpu")
    assert set(summary.metrics["supervised"]) == {"accuracy"}


@pytest.mark.gpu_only
@pytest.mark.cuda
def test_a_run_on_a_gpu(shards, tmp_path) -> None:
    summary = pretrain(config_of(shards, precision="bf16"), tmp_path, device="cuda")
    assert summary.device == "cuda:0"
    assert all(np.isfinite(loss) for loss in summary.losses.values())


def test_half_a_checkpoint_is_one_message_that_names_the_older_one(shards, tmp_path, monkeypatch) -> None:
    config = config_of(shards, checkpoint={"every_steps": 2, "keep_last": 2}, tasks={"exemplar": {}})
    with monkeypatch.context() as patch:
        stop_at(5, patch, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(config, tmp_path, device="cpu")
    whole = tmp_path / "checkpoint.pt"
    content = whole.read_bytes()
    # Written anew: the newest one with a step in its name is another name of the same file.
    whole.unlink()
    message = r"checkpoint\.pt: cannot read it .*Copy .*checkpoint-00000002\.pt over it"
    for share in (0.0, 0.001, 0.3, 0.9, 0.999):
        whole.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=message):
            load_checkpoint(tmp_path)
    with pytest.raises(DataError, match=message):
        pretrain(config, tmp_path, device="cpu")
    (tmp_path / "checkpoint-00000002.pt").replace(whole)
    assert pretrain(config, tmp_path, device="cpu").num_steps == NUM_STEPS


def test_a_disk_that_fills_up_is_one_message_and_costs_the_steps_since_the_last_checkpoint(
    unbroken, shards, tmp_path, monkeypatch
) -> None:
    config, save, saved = config_of(shards), save_checkpoint, []

    def filling(checkpoint, run_dir: Path) -> Path:
        if checkpoint.step == 4 and not saved:
            saved.append(4)
            # As torch does: its zip writer raises an error of its own, with the disk's as its context.
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError:
                raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904
        return save(checkpoint, run_dir)

    monkeypatch.setattr("training.weights.writer.save_checkpoint", filling)
    with pytest.raises(FourfoldError, match=r"cannot write a checkpoint \(No space left on device\)\. Free some space"):
        pretrain(config, tmp_path, device="cpu")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    pretrain(config, tmp_path, device="cpu")
    assert torch.equal(weights_of(unbroken), weights_of(tmp_path))
