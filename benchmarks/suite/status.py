"""Status of a suite: its graph and the records on disk come in, states, results and times go out.

Light to import: `bench status` and `bench plan` must answer without loading torch.
"""

import json
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.results.record import Record
from benchmarks.suite.code.other_code import made_by_other_code, told
from benchmarks.suite.costs.calibration import calibrated_seconds, read_calibration
from benchmarks.suite.costs.time_left import TimeLeft
from benchmarks.suite.finished import finished_record
from benchmarks.suite.stages import Cell, Graph, Stage

__all__ = [
    "ERROR_NAME",
    "CellStatus",
    "SuiteStatus",
    "duration",
    "error_of",
    "records_of",
    "stage_folders",
    "status_of",
]

ERROR_NAME = "error.json"
CellState = Literal["finished", "failed", "started", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStatus:
    """One cell: `records` of finished stages by name ("pretrain", or an evaluation's); `error` of its last failure;
    `left_s` if it can be estimated.
    """

    cell: Cell
    state: CellState
    records: dict[str, Record]
    error: str
    left_s: float | None

    @property
    def spent_s(self) -> float:
        """Seconds of its stages; a stage shared by cells counts in each."""
        return sum(record.seconds for record in self.records.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteStatus:
    """Status of a suite. `left_s` is None until a stage of each kind that is still to do has finished, or was
    calibrated.

    `metrics`: the result of each evaluation that tables show.
    """

    name: str
    out: Path
    cells: tuple[CellStatus, ...]
    num_stages: int
    num_finished: int
    num_failed: int
    spent_s: float
    left_s: float | None
    metrics: dict[str, str]
    other_code: str = ""
    """A sentence that names stages made by other code than today's; empty where there are none."""

    @property
    def is_finished(self) -> bool:
        return self.num_finished == self.num_stages

    @property
    def failures(self) -> dict[str, str]:
        """Error by cell label."""
        return {status.cell.label: status.error for status in self.cells if status.state == "failed"}


def records_of(graph: Graph, out: Path) -> dict[str, Record | None]:
    """Return the record of every stage by key; None where it has not finished."""
    there = stage_folders(out)
    return {stage.key: finished_record(stage, out) if stage.folder_name in there else None for stage in graph.stages}


def stage_folders(out: Path) -> set[str]:
    """Return the names of all stage folders: one look at the disk instead of one per stage."""
    try:
        return {entry.name for entry in os.scandir(out / "stages")}
    except OSError:
        return set()


def status_of(name: str, graph: Graph, out: Path) -> SuiteStatus:
    """Return what is finished, failed and left in OUT, judged by its records. Writes nothing. Linear in stages."""
    there, records = stage_folders(out), records_of(graph, out)
    todo = [stage for stage in graph.stages if records[stage.key] is None]
    errors = {stage.key: error for stage in todo if stage.folder_name in there and (error := error_of(stage, out))}
    changed = made_by_other_code(graph, records, out)
    costs = read_calibration(graph.stages, out)
    left = TimeLeft(graph.stages, records, calibrated_seconds(graph.stages, costs, num_jobs=1))
    return SuiteStatus(
        name=name,
        out=out,
        cells=tuple(_cell_status(cell, records, errors, there, left) for cell in graph.cells),
        num_stages=len(graph.stages),
        num_finished=len(graph.stages) - len(todo),
        num_failed=len(errors),
        spent_s=sum(record.seconds for record in records.values() if record is not None),
        left_s=left.total_s(),
        metrics=graph.metrics,
        other_code=told(changed, graph, records, out) if changed else "",
    )


def _cell_status(
    cell: Cell, records: Mapping[str, Record | None], errors: Mapping[str, str], there: Set[str], left: TimeLeft
) -> CellStatus:
    todo = [stage for stage in cell.stages if records[stage.key] is None]
    error = next((errors[stage.key] for stage in todo if stage.key in errors), "")
    # A folder without a record: at work now, or killed before. `bench status --watch` tells which of the two.
    is_started = any(stage.folder_name in there for stage in cell.stages)
    state: CellState = "finished" if not todo else "failed" if error else "started" if is_started else "waiting"
    named = ({} if cell.pretrain is None else {"pretrain": cell.pretrain}) | dict(cell.evaluations)
    found = {name: record for name, stage in named.items() if (record := records[stage.key]) is not None}
    seconds = [left.of(stage) for stage in todo]
    known_s = [one for one in seconds if one is not None]
    left_s = sum(known_s) if len(known_s) == len(seconds) else None
    return CellStatus(cell=cell, state=state, records=found, error=error, left_s=left_s)


def error_of(stage: Stage, out: Path) -> str:
    """Return the last error of a stage; empty if there is none."""
    try:
        return str(json.loads((stage.folder(out) / ERROR_NAME).read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def duration(seconds: float) -> str:
    """Return seconds for people: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
