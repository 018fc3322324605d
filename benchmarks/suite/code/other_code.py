"""Stages that other code made: found by the digest in their records, then kept, run again or refused.

Light to import: `bench plan` names such stages without loading torch.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from benchmarks.results.record import Record, write_json, write_text
from benchmarks.suite.executors import StageBusy
from benchmarks.suite.stages import Graph, Stage
from benchmarks.suite.store.stage_lock import stage_lock
from pipelines.base.errors import UsageError

__all__ = ["OldCode", "begin_stage", "made_by_other_code", "settle_old_code", "told", "write_modules"]

OldCode = Literal["refuse", "keep", "redo"]
CODE_NAME = "code.txt"
"""In a stage's folder from its start: the digest of the code that it began with."""
CHECKPOINT_NAME = "checkpoint.pt"
"""What a killed pretraining resumes from: training/weights/checkpoint.py, which loads torch."""
MODULES_FOLDER = "code"
"""Below `OUT/stages`: a file per digest, with the digests of its modules."""
MAX_SHOWN = 6


def made_by_other_code(graph: Graph, records: Mapping[str, Record | None], out: Path) -> list[Stage]:
    """Return finished and begun stages of which a record says that code other than today's made them.

    Records that are older than digests say nothing, and are not returned.
    """
    found = []
    for stage in graph.stages:
        record = records[stage.key]
        made_by = record.code if record is not None else _begun_by(stage, out)
        if made_by and stage.code and made_by != stage.code:
            found.append(stage)
    return found


def settle_old_code(
    graph: Graph, records: Mapping[str, Record | None], out: Path, choice: OldCode, wanted: Collection[str]
) -> dict[str, Record | None]:
    """Return the records that count for a run; with "redo", stages that other code made are deleted.

    wanted: keys of the stages that the run is about; no other is deleted. Raises UsageError with "refuse" if there are
    stages by other code, since old and new numbers would stand in one table; and where another run is at work on one.
    """
    stages = made_by_other_code(graph, records, out)
    if not stages or choice == "keep":
        return dict(records)
    if choice == "refuse":
        raise UsageError(
            f"{told(stages, graph, records, out)} Give --keep-old to count them as they are, or --redo-changed to run "
            "them again."
        )
    redone = [stage for stage in stages if stage.key in wanted]
    for stage in redone:
        _delete(stage, out)
    keys = {stage.key for stage in redone}
    return {key: None if key in keys else record for key, record in records.items()}


def _delete(stage: Stage, out: Path) -> None:
    folder = stage.folder(out)
    try:
        with stage_lock(folder):
            shutil.rmtree(folder, ignore_errors=True)
    except StageBusy as error:
        raise UsageError(
            f"{folder}: another run is at work there, with other code. Wait until it ends, or stop it."
        ) from error


def told(stages: Sequence[Stage], graph: Graph, records: Mapping[str, Record | None], out: Path) -> str:
    """Return a sentence that names stages made by other code, and the files that changed."""
    names = [f"{stage.kind.replace('_', ' ')}: {stage.label}" for stage in stages]
    text = f"{len(stages)} stage{'' if len(stages) == 1 else 's'} made by other code: {_first(names, '; ')}."
    changed: set[str] = set()
    for digest, now in {(_made_by(stage, records, out), stage.code) for stage in stages}:
        before, after = _modules(digest, out), graph.modules.get(now, {})
        # Without both lists the difference is unknown, not empty.
        if before and after:
            changed |= {name for name in (*before, *after) if before.get(name) != after.get(name)}
    files = [f"{name.replace('.', '/')}.py" for name in sorted(changed)]
    return f"{text} Changed since: {_first(files, ', ')}." if files else text


def write_modules(by_digest: Mapping[str, Mapping[str, str]], out: Path) -> None:
    """Write the digests of modules, once for each digest of a stage."""
    for digest, modules in by_digest.items():
        path = _modules_path(digest, out)
        if not path.is_file():
            write_json(path, dict(modules))


def begin_stage(stage: Stage, out: Path) -> str:
    """Note the code that a stage begins with; return that of its first start, which a resumed stage was made by."""
    if begun := _begun_by(stage, out):
        return begun
    write_text(stage.folder(out) / CODE_NAME, stage.code)
    return stage.code


def _made_by(stage: Stage, records: Mapping[str, Record | None], out: Path) -> str:
    record = records[stage.key]
    return record.code if record is not None else _begun_by(stage, out)


def _begun_by(stage: Stage, out: Path) -> str:
    """Return the code of a stage that would resume; empty for one that starts anew, as after an error in our code."""
    if not (stage.folder(out) / CHECKPOINT_NAME).is_file():
        return ""
    try:
        return (stage.folder(out) / CODE_NAME).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _modules(digest: str, out: Path) -> dict[str, str]:
    try:
        content = json.loads(_modules_path(digest, out).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _modules_path(digest: str, out: Path) -> Path:
    return out / "stages" / MODULES_FOLDER / f"{digest}.json"


def _first(names: Sequence[str], separator: str) -> str:
    more = f"{separator}and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return separator.join(names[:MAX_SHOWN]) + more
