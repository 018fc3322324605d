"""Status of a suite: its graph and the records on disk come in, states, results and times go out.

Light to import: `bench status` and `bench plan` must answer without loading torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.results.record import Record
from benchmarks.suite.code.other_code import made_by_other_code, told
from benchmarks.suite.finished import finished_record
from benchmarks.suite.stages import Cell, Graph, Stage

__all__ = ["ERROR_NAME", "CellStatus", "SuiteStatus", "duration", "error_of", "left_s", "status_of"]

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
    """Status of a suite. `left_s` is None until a stage of each kind that is still to do has finished once.

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


def status_of(name: str, graph: Graph, out: Path) -> SuiteStatus:
    """Return what is finished, failed and left in OUT, judged by its records. Writes nothing."""
    records = {stage.key: finished_record(stage, out) for stage in graph.stages}
    cells = tuple(_cell_status(cell, graph, records, out) for cell in graph.cells)
    finished = [record for record in records.values() if record is not None]
    todo = [stage for stage in graph.stages if records[stage.key] is None]
    changed = made_by_other_code(graph, records, out)
    return SuiteStatus(
        name=name,
        out=out,
        cells=cells,
        num_stages=len(graph.stages),
        num_finished=len(finished),
        num_failed=sum(bool(error_of(stage, out)) for stage in todo),
        spent_s=sum(record.seconds for record in finished),
        left_s=left_s(todo, graph, records),
        metrics=graph.metrics,
        other_code=told(changed, graph, records, out) if changed else "",
    )


def _cell_status(cell: Cell, graph: Graph, records: dict[str, Record | None], out: Path) -> CellStatus:
    todo = [stage for stage in cell.stages if records[stage.key] is None]
    error = next((text for stage in todo if (text := error_of(stage, out))), "")
    # A folder without a record: at work now, or killed before. Which of the two only its process could say.
    is_started = any(stage.folder(out).is_dir() for stage in cell.stages)
    state: CellState = "finished" if not todo else "failed" if error else "started" if is_started else "waiting"
    named = ({} if cell.pretrain is None else {"pretrain": cell.pretrain}) | dict(cell.evaluations)
    found = {name: record for name, stage in named.items() if (record := records[stage.key]) is not None}
    return CellStatus(cell=cell, state=state, records=found, error=error, left_s=left_s(todo, graph, records))


def left_s(todo: Sequence[Stage], graph: Graph, records: Mapping[str, Record | None]) -> float | None:
    """Return the sum over `todo` of the mean seconds of finished stages alike, at the same depth if there are any.

    None where a stage of `todo` has none alike.
    """
    total_s = 0.0
    for stage in todo:
        alike = [other for other in graph.stages if _cost_class(other)[0] == _cost_class(stage)[0]]
        same_depth = [other for other in alike if _cost_class(other) == _cost_class(stage)]
        # Depth decides most of the cost, but a mean over other depths is better than no estimate.
        for group in (same_depth, alike):
            seconds = [record.seconds for other in group if (record := records[other.key]) is not None]
            if seconds:
                total_s += sum(seconds) / len(seconds)
                break
        else:
            return None
    return total_s


def _cost_class(stage: Stage) -> tuple[str, Any]:
    """Return what makes two stages cost alike: kind (initialising is not training) and depth."""
    pretrain_stage = stage.needs[0] if stage.needs else stage
    depth = pretrain_stage.config.get("trunk", {}).get("depth")
    is_initialisation = stage.kind == "pretrain" and not stage.config["pipeline"]["tasks"]
    return ("initialise" if is_initialisation else stage.kind, depth)


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
