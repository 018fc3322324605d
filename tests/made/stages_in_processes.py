"""What stages do in the tests of ProcessExecutor. Here, because worker processes import it."""

import os
import signal
import time
from pathlib import Path

import torch

from benchmarks.results.record import Record, environment
from benchmarks.suite.stages import Stage
from training.stop import StopRequest

LIMIT_S = 60


def play(stage: Stage) -> Record:
    """Finish, raise or die, as the stage's kind says."""
    if stage.kind == "raise":
        return 1 / 0  # type: ignore[return-value]
    if stage.kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return _record(stage)


def meet(folder: Path, stage: Stage) -> Record:
    """Finish once another stage is at work too."""
    (folder / stage.key[0]).touch()
    end_s = time.monotonic() + LIMIT_S
    while len(list(folder.iterdir())) < 2:
        if time.monotonic() > end_s:
            raise TimeoutError("alone")
        time.sleep(0.01)
    return _record(stage)


def linger(folder: Path, stage: Stage) -> Record:
    """Train, as far as signals can tell: asked to stop, save and leave."""
    with StopRequest() as stop:
        (folder / f"{os.getpid()}.pid").touch()
        while not stop.is_made:
            time.sleep(0.01)
    (folder / f"{os.getpid()}.saved").touch()
    raise KeyboardInterrupt


def _record(stage: Stage) -> Record:
    return Record(
        kind=stage.kind,
        key=stage.key,
        label=stage.label,
        date="2026-01-02T03:04:05Z",
        seconds=1.0,
        environment=environment(),
        config={"x": 1},
        inputs={},
        results={"num_threads": torch.get_num_threads(), "omp": os.environ["OMP_NUM_THREADS"]},
    )
