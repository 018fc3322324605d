"""Finished stages: a record that marks one, and the files that other stages read. Light to import."""

import shutil
from pathlib import Path

from benchmarks.results.record import Record, read_record
from benchmarks.suite.stages import Stage

__all__ = ["clear_without_kept_trunks", "finished_record", "trunk_folder"]

KEPT_NAME = "kept"
"""Folder of kept trunks in a run's folder: training/weights/writer.py, which loads torch."""
TRUNK_NAME = "trunk.pt"


def finished_record(stage: Stage, out: Path) -> Record | None:
    """Return the record of a finished stage; None where a trunk that a learning curve needs was not kept."""
    record = read_record(stage.folder(out), stage.key)
    return None if record is None or _lacks_kept_trunks(stage, out) else record


def trunk_folder(stage: Stage, out: Path) -> Path:
    """Return the folder of the trunk that an evaluation reads: a run's, or that of a trunk kept at a part of it."""
    folder, fraction = stage.needs[0].folder(out), stage.config.get("trunk_at")
    return folder if fraction is None else folder / KEPT_NAME / f"{fraction:g}"


def clear_without_kept_trunks(stage: Stage, out: Path) -> bool:
    """Delete a finished pretraining that did not keep the trunks that are needed now; return whether there was one.

    What it kept nothing of cannot be made from its end: it has to run again, to the same weights.
    """
    folder = stage.folder(out)
    is_done = (folder / TRUNK_NAME).is_file()
    if is_done and _lacks_kept_trunks(stage, out):
        shutil.rmtree(folder)
        return True
    return False


def _lacks_kept_trunks(stage: Stage, out: Path) -> bool:
    fractions = stage.config.get("checkpoint", {}).get("keep_at", []) if stage.kind == "pretrain" else []
    folder = stage.folder(out) / KEPT_NAME
    return any(not (folder / f"{one:g}" / TRUNK_NAME).is_file() for one in fractions)
