"""Kill a pretraining run with SIGKILL at random steps, resume it each time, and compare with an unbroken run.

    python -m benchmarks.studies.trainer.kills --kills 20 --ranks 1

A tiny network, three tasks, made images. A rank kills itself at a random moment within a random step: in a forward
pass, in an update, while a checkpoint is written. The end must be the same to the bit: trunk, optimizers, losses of
every step, counts of the summary. Exit code 1 if anything differs, or if another rank of a killed one does not end by
itself.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from benchmarks.harness.study import Study
from benchmarks.harness.temporary import temporary_folder
from benchmarks.studies.shards.build_kill import write_small_images
from pipelines.base.errors import FourfoldError
from pipelines.base.progress import quiet_progress
from pipelines.shards.build import BuildConfig, build_shards
from training.config import PretrainConfig
from training.journal import LOG_NAME, read_log
from training.loop import pretrain
from training.run_folder import SUMMARY_NAME
from training.session import Session
from training.weights.checkpoint import CHECKPOINT_NAME, load_checkpoint

__all__ = ["STUDY", "Kill", "KillOptions", "measure", "train"]

EVERY_STEPS = 3
"""Steps between two checkpoints."""
LONGEST_DELAY_S = 0.06
"""A step takes 0.02 to 0.05 s here: kills hit any part of a step, or of the next."""
MOST_LATE_STEPS, LEFT_STEPS = 4, 6
"""Steps after which a kill comes at the latest, and steps at the end in which none begins, so that it always comes."""
PRELOADED = ["benchmarks.studies.shards.build_kill", "numba", "training.loop", "torch.utils.tensorboard"]
END_S = 60.0
MOST_SHOWN = 20
"""Differences that a record lists."""
TIMES = ("seconds", "cpu_seconds", "gpu_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class KillOptions:
    num_kills: Annotated[int, "kills of the run"] = 20
    num_steps: Annotated[int, "steps of the run"] = 80
    num_ranks: Annotated[int, "processes that train as one run"] = 1
    seed: Annotated[int, "of the moments"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """step: last logged one before the kill. checkpoint_step: where the run resumed. others_end_s: seconds until the
    other ranks had ended by themselves; 0 where there are none."""

    rank: int
    step: int
    checkpoint_step: int
    others_end_s: float


def config_of(shards: Path, num_steps: int) -> dict[str, Any]:
    """Return a small run with every kind of state: gradients that wait, averages, momentum, a task that rests."""
    tasks = {"relative_position": {"every": 2}, "colorization": {"accumulate": 2}, "exemplar": {"batch_size": 4}}
    return {
        "pipeline": {"images": str(shards), "canvas_px": 64, "batch_size": 8, "num_threads": 1, "tasks": tasks},
        "trunk": {"depth": 10, "width": 0.125},
        "heads": {"preset": "small"},
        "optimizer": {"lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-4},
        "ema": {"decay": 0.9},
        "budget": {"steps": num_steps},
        "checkpoint": {"every_steps": EVERY_STEPS, "keep_last": 2, "keep_at": [0.5]},
        "held_out": None,
        "log_every_steps": 1,
        "cpu_threads": 1,
    }


def train(config: Mapping[str, Any], run_dir: str, environment: Mapping[str, str], die: tuple[int, float]) -> None:
    """Train in this process, whose standard error goes to a file. die: step at which it kills itself, -1 for none, and
    seconds after the step begins."""
    os.environ.update(environment)
    rank = environment.get("RANK", "0")
    file = os.open(Path(run_dir).with_name(f"rank{rank}.txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 2)
    learn = Session.learn

    def dying(self: Session, step: Any) -> None:
        if self.step >= die[0] >= 0 and not any(one.name == "killer" for one in threading.enumerate()):
            killer = threading.Timer(die[1], os.kill, (os.getpid(), signal.SIGKILL))
            killer.name, killer.daemon = "killer", True
            killer.start()
        elif self.step > die[0] + MOST_LATE_STEPS > MOST_LATE_STEPS:
            os.kill(os.getpid(), signal.SIGKILL)  # a busy machine lets a timer wait
        learn(self, step)

    Session.learn = dying  # type: ignore[method-assign]
    try:
        with quiet_progress():
            pretrain(PretrainConfig.model_validate(config), Path(run_dir), device="cpu")
    except FourfoldError as error:
        os.write(2, f"{error}\n".encode())
        os._exit(error.exit_code)


class Runs:
    """Starts ranks of a run as processes that begin with everything imported."""

    def __init__(self, num_ranks: int) -> None:
        self._num_ranks = num_ranks
        # Forked from a server that has imported all, and has no threads: starting Python takes longer than training.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def run(self, config: Mapping[str, Any], run_dir: Path, die: tuple[int, int, float] | None = None) -> float:
        """Run all ranks to their end. die: rank, step, delay. Returns seconds from the first end to the last.

        Raises FourfoldError if a rank does not end by itself, or fails without a kill.
        """
        environments = [self._environment(rank, port) for port in [_free_port()] for rank in range(self._num_ranks)]
        processes = [
            self._context.Process(
                target=train,
                args=(config, str(run_dir), environment, die[1:] if die and die[0] == rank else (-1, 0.0)),
            )
            for rank, environment in enumerate(environments)
        ]
        for process in processes:
            process.start()
        ends = self._ends(processes)
        codes = [process.exitcode for process in processes]
        if die is None and any(codes):
            words = [run_dir.with_name(f"rank{rank}.txt").read_text() for rank in range(self._num_ranks)]
            raise FourfoldError(f"a run that was not killed ended with {codes}: {words}")
        return max(ends) - min(ends)

    def _ends(self, processes: list[Any]) -> list[float]:
        """Return when each process ended. Raises FourfoldError for one that has not, END_S after the first."""
        ends: dict[int, float] = {}
        while len(ends) < len(processes):
            now_s = time.monotonic()
            ends |= {one.pid: now_s for one in processes if one.pid not in ends and not one.is_alive()}
            if ends and now_s > min(ends.values()) + END_S:
                for one in processes:
                    one.kill()
                raise FourfoldError(f"a rank has not ended {END_S:.0f} s after another one")
            time.sleep(0.01)
        return list(ends.values())

    def _environment(self, rank: int, port: int) -> dict[str, str]:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self._num_ranks, "MASTER_PORT": port}
        return {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def measure(options: KillOptions) -> dict[str, Any]:
    """Train unbroken, then with kills, and compare."""
    rng, runs = random.Random(options.seed), Runs(options.num_ranks)
    with temporary_folder() as folder:
        # 1. Data, and the unbroken run, in a folder with the same name: it is part of nothing, but of messages.
        write_small_images(folder / "images", 60, num_classes=2)
        with quiet_progress():
            build_shards(BuildConfig(sources=[str(folder / "images")], out=folder / "shards", num_workers=1))
        config = config_of(folder / "shards", options.num_steps)
        whole, broken = folder / "whole" / "run", folder / "broken" / "run"
        for run in (whole, broken):
            run.parent.mkdir()
        runs.run(config, whole)
        # 2. Kills at steps in ascending order, so that each hits a part of the run that is still to come.
        steps = sorted(rng.sample(range(1, options.num_steps - LEFT_STEPS), options.num_kills))
        kills = []
        for step in steps:
            rank = rng.randrange(options.num_ranks)
            others_end_s = runs.run(config, broken, (rank, step, rng.uniform(0, LONGEST_DELAY_S)))
            kills.append(_after_kill(broken, rank, others_end_s))
        # 3. To the end, and nothing may differ.
        runs.run(config, broken)
        problems = _differences(whole, broken)
        return {
            "kills": [asdict(kill) for kill in kills],
            "most_steps_lost": max((kill.step - kill.checkpoint_step for kill in kills), default=0),
            "slowest_end_of_others_s": max((kill.others_end_s for kill in kills), default=0.0),
            "num_problems": len(problems),
            "problems": problems[:MOST_SHOWN],
        }


def _after_kill(run: Path, rank: int, others_end_s: float) -> Kill:
    """Return what a kill left behind. Raises DataError if the checkpoint is not whole."""
    assert not (run / SUMMARY_NAME).exists()
    checkpoint, lines = load_checkpoint(run), read_log(run / LOG_NAME)
    step = lines[-1]["step"] if lines else 0
    saved = checkpoint.step if checkpoint else 0
    return Kill(rank=rank, step=max(step, saved), checkpoint_step=saved, others_end_s=round(others_end_s, 3))


def _differences(whole: Path, broken: Path) -> list[str]:
    """Return what differs between two finished runs, beside times."""
    found = []
    for name in ("trunk.pt", "kept/0.5/trunk.pt", CHECKPOINT_NAME):
        one, other = (torch.load(run / name, weights_only=True) for run in (whole, broken))
        for times in TIMES:
            one.pop(times, None), other.pop(times, None)
        found += [f"{name}: {place}" for place in _unequal(one, other)]
    lines = [[(line["step"], line["losses"]) for line in read_log(run / LOG_NAME)] for run in (whole, broken)]
    if lines[0] != lines[1]:
        found.append(f"{LOG_NAME}: losses")
    summaries = [json.loads((run / SUMMARY_NAME).read_text()) for run in (whole, broken)]
    found += [f"{SUMMARY_NAME}: {key}" for key in summaries[0] if key not in TIMES and _differ(summaries, key)]
    return found


def _differ(summaries: list[dict[str, Any]], key: str) -> bool:
    return bool(summaries[0][key] != summaries[1].get(key))


def _unequal(one: Any, other: Any, place: str = "") -> list[str]:
    """Return the places at which two nested values differ in a bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [place]
    if isinstance(one, Mapping):
        if one.keys() != other.keys():
            return [f"{place}: keys"]
        return [found for key in one for found in _unequal(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{place}: length"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for index, pair in pairs for found in _unequal(*pair, f"{place}.{index}")]
    return [] if one == other else [place]


def _lines(results: dict[str, Any]) -> list[str]:
    kills = results["kills"]
    return [
        f"{len(kills)} kills at steps {', '.join(str(kill['step']) for kill in kills)}",
        f"at most {results['most_steps_lost']} steps lost, checkpoints every {EVERY_STEPS}",
        f"other ranks ended by themselves within {results['slowest_end_of_others_s']:.1f} s",
        *(results["problems"] or ["trunk, optimizers, losses and counts are those of the unbroken run, to the bit"]),
    ]


STUDY = Study(
    module="benchmarks.studies.trainer.kills",
    kind="trainer_kills",
    label="a run killed at random steps beside an unbroken one",
    description=__doc__,
    options=KillOptions,
    measure=measure,
    lines=_lines,
    is_failed=lambda results: bool(results["problems"]),
    constants={"checkpoint_every_steps": EVERY_STEPS},
    packages=("torch", "timm"),
)

if __name__ == "__main__":
    STUDY.main()
