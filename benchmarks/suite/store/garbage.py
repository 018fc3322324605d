"""Garbage of a store: stages that no suite in OUT refers to, checkpoints of finished stages, features that no stage
waits for. Found first, with their bytes; deleted only when told to.

What refers to a stage is the last plan of each suite, `OUT/suites/NAME/plan.json`. A run writes it when it begins.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.results.record import RECORD_NAME
from benchmarks.suite.executors import StageBusy
from benchmarks.suite.store.stage_lock import LOCK_FOLDER, stage_lock
from pipelines.base.errors import DataError

__all__ = ["Garbage", "delete_garbage", "find_garbage"]

CHECKPOINTS = "checkpoint*"
FEATURES = "features"
NO_STAGES = {LOCK_FOLDER, FEATURES, "code"}
"""Folders of OUT/stages that are no stages."""

Reason = Literal["no suite refers to it", "checkpoint of a finished stage", "every stage that reads them has finished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A folder or file that can go, `num_bytes` large. stage: the folder whose lock is held while it is deleted."""

    path: Path
    stage: Path
    reason: Reason
    num_bytes: int


def find_garbage(out: Path) -> list[Garbage]:
    """Return what can be deleted from OUT, by name. Writes nothing.

    Raises DataError where there is no plan, or a damaged one: then nobody knows what suites refer to.
    """
    wanted, found = _wanted(out), list[Garbage]()
    for folder in _stage_folders(out):
        if folder.name not in wanted:
            found.append(_garbage(folder, folder, "no suite refers to it"))
        elif (folder / RECORD_NAME).is_file():
            found += [
                _garbage(path, folder, "checkpoint of a finished stage") for path in sorted(folder.glob(CHECKPOINTS))
            ]
    features = out / "stages" / FEATURES
    # Features have no name of their trunk, so they go together; a stage that misses some makes them again.
    if features.is_dir() and all((out / "stages" / name / RECORD_NAME).is_file() for name in wanted):
        found.append(_garbage(features, features, "every stage that reads them has finished"))
    return found


def delete_garbage(found: list[Garbage]) -> int:
    """Delete it and return the bytes that are free now. What a run is at work on stays."""
    num_bytes = 0
    for one in found:
        try:
            with stage_lock(one.stage):
                if one.path.is_dir():
                    shutil.rmtree(one.path)
                else:
                    one.path.unlink(missing_ok=True)
                num_bytes += one.num_bytes
        except StageBusy:
            continue
    return num_bytes


def _wanted(out: Path) -> set[str]:
    """Return the names of stage folders that the plans of all suites in OUT name."""
    wanted: set[str] = set()
    plans = sorted((out / "suites").glob("*/plan.json"))
    if not plans:
        raise DataError(f"{out}: no suite has run here (no suites/NAME/plan.json). Give the --out of a run.")
    for path in plans:
        try:
            stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
            wanted |= {f"{stage['kind']}-{stage['key'][:12]}" for stage in stages}
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Without this plan its stages would look like garbage.
            raise DataError(f"{path}: damaged. Run that suite again, or delete {path.parent} if it can go.") from error
    return wanted


def _stage_folders(out: Path) -> Iterator[Path]:
    for path in sorted((out / "stages").iterdir()) if (out / "stages").is_dir() else ():
        if path.is_dir() and path.name not in NO_STAGES:
            yield path


def _garbage(path: Path, stage: Path, reason: Reason) -> Garbage:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return Garbage(path=path, stage=stage, reason=reason, num_bytes=sum(one.stat().st_size for one in files))
