"""Lock of one stage: at most one run is at work on it, and a second one takes its record instead of running it again.

The kernel releases the lock (flock) when its process dies, however it dies, so that no lock is ever left over. Between
machines that holds where the file system passes flock on: NFS does since Linux 2.6.12, unless mounted with `nolock`
or `local_lock`. Without such a lock a stage may run twice, which costs time but changes no number.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.results.record import Record, now_utc, write_json
from benchmarks.suite.executors import RunStage, StageBusy
from benchmarks.suite.finished import finished_record
from benchmarks.suite.stages import Stage
from pipelines.base.errors import DataError

__all__ = ["Owner", "owner_of", "run_once", "stage_lock"]

LOCK_FOLDER = "locks"
"""Beside the stages and not in their folders: a stage that starts anew deletes its folder, but must keep its lock."""
GRACE_S = 0.5
"""`owner_of` holds a lock for an instant to see whether it is free; a run waits for that instead of calling it busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process at work on a stage: host, process id, and since when (UTC)."""

    host: str
    pid: int
    since: str


def run_once(stage: Stage, *, out: Path, run_stage: RunStage) -> Record:
    """Run a stage under its lock; return the record of another run where that has finished the stage meanwhile.

    Raises StageBusy where another run is at work on it, and whatever the stage raises.
    """
    with stage_lock(stage.folder(out)):
        # Under the lock: between the plan of this run and now, another suite may have finished the stage.
        if (record := finished_record(stage, out)) is not None:
            return record
        return run_stage(stage)


@contextmanager
def stage_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a stage's folder, and say in a file beside it who holds it. Raises StageBusy, DataError."""
    lock, owner = _lock_of(folder), _owner_file(folder)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock).acquire(timeout=GRACE_S)
    except Timeout as error:
        raise StageBusy(str(folder)) from error
    except OSError as error:
        raise DataError(f"{folder}: cannot lock it ({error.strerror}). Give another --out.") from error
    with held:
        write_json(owner, asdict(Owner(host=socket.gethostname(), pid=os.getpid(), since=now_utc())))
        try:
            yield
        finally:
            owner.unlink(missing_ok=True)


def owner_of(folder: Path) -> Owner | None:
    """Return the process at work on a stage; None where there is none, also if the last one was killed."""
    try:
        owner = Owner(**json.loads(_owner_file(folder).read_text(encoding="utf-8")))
        with FileLock(_lock_of(folder)).acquire(blocking=False):
            return None
    except Timeout:
        return owner
    except (OSError, ValueError, TypeError):
        return None


def _lock_of(folder: Path) -> Path:
    return folder.parent / LOCK_FOLDER / f"{folder.name}.lock"


def _owner_file(folder: Path) -> Path:
    return folder.parent / LOCK_FOLDER / f"{folder.name}.json"
