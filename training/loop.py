"""Pretraining, from a configuration to a trunk on disk.

A run is a folder: config.yaml, backend.json, checkpoint.pt, log.jsonl, tensorboard/, and when finished trunk.pt and
summary.json.
Calling `pretrain` again resumes from the checkpoint, or returns at once if the run is finished.
"""

from contextlib import closing, nullcontext
from pathlib import Path

import torch

from pipelines.base.progress import ProgressBar, print_line, progress_bar, quiet_progress
from pipelines.build import build_pipeline
from training.config import PretrainConfig
from training.journal import LOG_NAME, Journal, read_log
from training.model import build_trunk
from training.parallel import cpu_threads, joined_ranks
from training.ranks.division import divided_ranks
from training.ranks.stop_vote import RankVotes
from training.run_folder import RunSummary, claim, read_summary, settle_backends, write_summary
from training.session import Session
from training.speed.gpu_kernels import gpu_kernels
from training.stop import StopRequest
from training.trunk import Trunk, save_trunk
from training.weights.checkpoint import CheckpointClock, disk_errors_told
from training.weights.writer import CheckpointWriter, fractions_too_late

__all__ = ["RunSummary", "pretrain"]


def pretrain(config: PretrainConfig, out_dir: Path, *, device: str = "auto") -> RunSummary:
    """Train a trunk into `out_dir`.

    device: "auto", "cpu", "cuda". Under torchrun every process calls this, with the same folder on a disk they share.
    Raises UsageError, DataError, FourfoldError (a loss that is not finite); KeyboardInterrupt, once a checkpoint is
    saved, after Ctrl-C or SIGTERM.
    """
    with cpu_threads(config.cpu_threads), joined_ranks(device) as (ranks, torch_device):
        # 1. Claim the folder before anything else: two runs of different configurations must not share it.
        if ranks.is_first:
            claim(out_dir, config)
        ranks.wait()
        finished = read_summary(out_dir)
        if finished is not None:
            _tell_too_late(config, finished.num_steps, finished.num_steps, out_dir)
            return finished
        if not config.pipeline.tasks:
            return _save_random(config, out_dir)
        # 2. The first rank chooses the backends and writes them down; the others read the same choice.
        if ranks.is_first:
            settle_backends(out_dir, config.pipeline, torch_device)
        ranks.wait()
        settled = settle_backends(out_dir, config.pipeline, torch_device)
        # 3. Divide the ranks, check the whole chain and train.
        division = divided_ranks(config, ranks)
        pipeline = build_pipeline(
            settled,
            seed=config.seed,
            device=torch_device,
            rank=division.ranks.rank,
            world_size=division.ranks.world_size,
            only=division.tasks,
        )
        with pipeline:
            session = Session(config, pipeline, ranks, torch_device, division)
            with closing(session), gpu_kernels(config.speed, torch_device):
                session.restore(out_dir)
                if ranks.is_first:
                    _tell_too_late(config, session.num_steps, session.step, out_dir)
                train(session, out_dir)
        # 4. The pipeline is closed: its worker processes count now. The summary is written last: it marks the run as
        # finished.
        cpu_s = torch.tensor([session.meter.cpu_seconds], device=torch_device)
        ranks.add_up(cpu_s)
        if ranks.is_first:
            _finish(session, out_dir, cpu_s.item())
        ranks.wait()
        return read_summary(out_dir) or _summarise(session, out_dir, cpu_s.item())


def train(session: Session, out_dir: Path) -> None:
    """Take all steps that are left; log, measure and save on the way."""
    clock = CheckpointClock(session.config.checkpoint)
    votes = RankVotes(session.ranks, 3)
    warned: set[str] = set()
    _warn(session, warned)
    if session.diagnosis is not None:
        print_line(session.diagnosis.cost_line)
    with (
        Journal(out_dir, session.step, is_on=session.ranks.is_first) as journal,
        StopRequest() as stop,
        nullcontext() if session.ranks.is_first else quiet_progress(),
        _bar(session) as bar,
        CheckpointWriter(session.config.checkpoint, out_dir) as writer,
    ):
        for step in session.steps():
            session.learn(step)
            if session.is_log_due:
                line = session.log_line()
                _warn(session, warned)
                if session.is_held_out_due:
                    line |= session.held_out_line(line)
                    _warn(session, warned)
                journal.log(line)
                _show(bar, line["losses"], line["samples_per_s"])
            bar.advance()
            writer.check()
            # Before the checkpoint of the same step: what a run resumes behind must be there.
            session.keep_trunk(writer)
            # All ranks vote, so that they stop, save and check losses after the same step: each has its own clock, and
            # waits for the others. The checkpoint comes before the interrupt, and new votes after what was voted for.
            is_stopping, is_save_due, is_check_due = votes.read(_votes(session, stop, clock))
            is_last = session.step == session.num_steps
            if is_check_due:
                session.averages.check()
            is_save_due |= any(clock.is_step_due(step) for step in session.steps_since_whole)
            if session.is_trunk_whole and (is_stopping or is_save_due or is_last):
                session.save(writer)
                clock.restart()
            if is_stopping and session.is_trunk_whole:
                raise KeyboardInterrupt
            if not is_last:
                votes.cast(_votes(session, stop, clock))


def _votes(session: Session, stop: StopRequest, clock: CheckpointClock) -> list[bool]:
    return [stop.is_made, clock.is_time_due, session.averages.is_check_due]


def _tell_too_late(config: PretrainConfig, num_steps: int, step: int, out_dir: Path) -> None:
    late = fractions_too_late(config.checkpoint.keep_at, num_steps, step, out_dir)
    if late:
        print_line(
            f"{out_dir}: checkpoint.keep_at {', '.join(f'{one:g}' for one in late)} will not be kept: the run is at "
            f"step {step} of {num_steps} already. Train into another folder to have them."
        )


def _bar(session: Session) -> ProgressBar:
    done = f" from step {session.step}" if session.step else ""
    return progress_bar(f"pretrain{done}", total=session.num_steps - session.step, unit="steps")


def _show(bar: ProgressBar, losses: dict[str, float], samples_per_s: dict[str, float]) -> None:
    bar.show(**{task: f"{loss:.3f} ({samples_per_s[task]:.0f}/s)" for task, loss in losses.items()})


def _warn(session: Session, warned: set[str]) -> None:
    """Print each task's first warning once, on stderr; the log and the summary have them all."""
    for warning in session.warnings:
        task = warning.split(":")[0]
        if task not in warned:
            warned.add(task)
            print_line(f"step {session.step}: {warning}")


def _finish(session: Session, out_dir: Path, cpu_seconds: float) -> None:
    with disk_errors_told(out_dir, "the trunk"):
        # The trunk first: a run with a summary counts as finished, and later stages read its trunk.
        save_trunk(session.trunk, out_dir)
        write_summary(out_dir, _summarise(session, out_dir, cpu_seconds))


def _summarise(session: Session, out_dir: Path, cpu_seconds: float) -> RunSummary:
    last = read_log(out_dir / LOG_NAME)[-1]
    counts, sources = session.updater.counts, session.source_samples
    num_samples = {str(kind): plan.num_samples for kind, plan in session.pipeline.plans.items()}
    return RunSummary(
        num_steps=session.step,
        seconds=round(session.meter.seconds, 3),
        compute_tflop=session.compute_tflop,
        num_trunk_parameters=_num_parameters(session.model.trunk),
        device=str(session.device),
        samples_seen=session.samples_seen,
        losses=last["losses"],
        metrics=last["metrics"],
        passes=session.passes,
        held_out=last.get("held_out", {}),
        warnings=session.warnings,
        source_samples=sources,
        source_passes={kind: round(count / num_samples[kind], 3) for kind, count in sources.items()},
        trunk_updates=counts.trunk,
        head_updates=counts.heads,
        decay=counts.decay,
        cpu_seconds=round(cpu_seconds, 3),
        gpu_seconds=round(session.meter.seconds * session.ranks.world_size, 3)
        if session.device.type == "cuda"
        else 0.0,
    )


def _save_random(config: PretrainConfig, out_dir: Path) -> RunSummary:
    trunk = build_trunk(config.trunk, (), config.seed)
    save_trunk(trunk, out_dir)
    nothing = RunSummary(
        num_steps=0,
        seconds=0.0,
        compute_tflop=0.0,
        num_trunk_parameters=_num_parameters(trunk),
        device="cpu",
        samples_seen={},
        losses={},
        metrics={},
    )
    return write_summary(out_dir, nothing)


def _num_parameters(trunk: Trunk) -> int:
    return sum(parameter.numel() for parameter in trunk.parameters())
