"""Run a suite, plan it, and tell where it stands. OUT/stages/<kind>-<key>/record.json is the only mark of being done.

A finished stage is never run again; a killed one goes on from its own checkpoint; a failed one is noted in
`error.json`, the others go on, and the next run tries it again.
"""

import fcntl
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from benchmarks.evaluations import EVALUATIONS
from benchmarks.results.record import Record, environment, now_utc, read_record, write_json, write_record
from benchmarks.suite.executors import Executor, RunStage, StageEvent
from benchmarks.suite.executors.local import LocalExecutor
from benchmarks.suite.executors.processes import ProcessExecutor
from benchmarks.suite.graph import Cell, Graph, Stage, expand
from benchmarks.suite.suite_config import Suite
from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores
from training.config import PretrainConfig
from training.loop import pretrain

__all__ = ["CellStatus", "SuiteStatus", "choose_jobs", "plan_suite", "run_stage", "run_suite", "suite_status"]

ERROR_NAME = "error.json"
JOB_BYTES = 4 * 2**30
CellState = Literal["finished", "failed", "started", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStatus:
    """One cell: `records` of finished stages by kind; `error` of its last failure; `left_s` if it can be told."""

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
    """Where a suite stands. `left_s` is None until a stage of each kind that is still to do has finished once."""

    name: str
    out: Path
    cells: tuple[CellStatus, ...]
    num_stages: int
    num_finished: int
    num_failed: int
    spent_s: float
    left_s: float | None

    @property
    def is_finished(self) -> bool:
        return self.num_finished == self.num_stages

    @property
    def failures(self) -> dict[str, str]:
        """Error by cell label."""
        return {status.cell.label: status.error for status in self.cells if status.state == "failed"}


def run_suite(
    suite: Suite,
    out: Path,
    *,
    num_jobs: int = 1,
    runner: RunStage | None = None,
    say: Callable[[str], None] | None = None,
) -> SuiteStatus:
    """Run what is not finished; the caller exits with 1 if `num_failed` is not 0.

    num_jobs: stages at a time, each in a process of its own; 1: all in this one; 0: as many as `choose_jobs` says.
    `say` gets one line per event (stderr by default). Raises UsageError where another run holds `out`.
    """
    say = say or _say_to_stderr
    graph = expand(suite)
    executor, runner = _executor(num_jobs or choose_jobs()), runner or partial(run_stage, out=out)
    with _only_run_in(out):
        write_json(out / "suite.json", suite.config.model_dump(mode="json"))
        todo = [stage for stage in graph.stages if read_record(stage.folder(out), stage.key) is None]
        say(f"{suite.config.name}: {len(graph.stages)} stages, {len(graph.stages) - len(todo)} finished before")
        with closing(executor.run(todo, runner)) as events:
            for event in events:
                _note(event, out)
                say(_line(event, graph, out, executor.num_jobs))
    return suite_status(suite, out)


def choose_jobs() -> int:
    """Stages to run at a time: one with a GPU, which they would share; on a CPU one per core and 4 GiB of memory."""
    if torch.cuda.is_available():
        return 1
    return max(1, min(num_cores(), psutil.virtual_memory().total // JOB_BYTES))


def _executor(num_jobs: int) -> Executor:
    return LocalExecutor() if num_jobs == 1 else ProcessExecutor(num_jobs)


def run_stage(stage: Stage, *, out: Path) -> Record:
    """Run one stage to the end and publish its record. Raises whatever the stage raises."""
    folder = stage.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    start_s = time.monotonic()
    if stage.kind == "pretrain":
        config = validate(PretrainConfig, stage.config, source=stage.label)
        results = _plain(asdict(pretrain(config, folder)))
    else:
        config_class = EVALUATIONS[stage.kind].config_class
        options = validate(config_class, stage.config["options"], source=stage.label)
        run = EVALUATIONS[stage.kind].run
        results = _plain(
            run(
                stage.needs[0].folder(out) if stage.needs else None,
                options,
                Path(stage.config["images"]),
                stage.config["train_split"],
                stage.config["test_split"],
            )
        )
    # A pretraining that was killed and resumed reports the seconds of all its attempts; ours saw the last only.
    seconds = float(results.get("seconds") or time.monotonic() - start_s)
    record = Record(
        kind=stage.kind,
        key=stage.key,
        label=stage.label,
        date=now_utc(),
        seconds=seconds,
        environment=environment(),
        config=stage.config,
        inputs=stage.inputs,
        results=results,
    )
    write_record(folder, record)
    return record


def plan_suite(suite: Suite, out: Path) -> SuiteStatus:
    """What `run_suite` would do and how long, judged by stages that finished before. Runs and writes nothing."""
    return suite_status(suite, out)


def suite_status(suite: Suite, out: Path) -> SuiteStatus:
    """What is finished, failed and left. Reads the shards' manifests and the records; writes nothing."""
    graph = expand(suite)
    records = {stage.key: read_record(stage.folder(out), stage.key) for stage in graph.stages}
    cells = tuple(_cell_status(cell, graph, records, out) for cell in graph.cells)
    finished = [record for record in records.values() if record is not None]
    todo = [stage for stage in graph.stages if records[stage.key] is None]
    return SuiteStatus(
        name=suite.config.name,
        out=out,
        cells=cells,
        num_stages=len(graph.stages),
        num_finished=len(finished),
        num_failed=sum(bool(_error_of(stage, out)) for stage in todo),
        spent_s=sum(record.seconds for record in finished),
        left_s=_left_s(todo, graph, records),
    )


def _cell_status(cell: Cell, graph: Graph, records: dict[str, Record | None], out: Path) -> CellStatus:
    todo = [stage for stage in cell.stages if records[stage.key] is None]
    error = next((text for stage in todo if (text := _error_of(stage, out))), "")
    is_started = any(stage.folder(out).is_dir() for stage in cell.stages)
    state: CellState = "finished" if not todo else "failed" if error else "started" if is_started else "waiting"
    found = {stage.kind: record for stage in cell.stages if (record := records[stage.key]) is not None}
    return CellStatus(cell=cell, state=state, records=found, error=error, left_s=_left_s(todo, graph, records))


def _left_s(todo: Sequence[Stage], graph: Graph, records: dict[str, Record | None]) -> float | None:
    """Sum over `todo` of the mean seconds of finished stages alike, at the same depth if there are any."""
    total_s = 0.0
    for stage in todo:
        alike = [other for other in graph.stages if _sort(other)[0] == _sort(stage)[0]]
        same_depth = [other for other in alike if _sort(other) == _sort(stage)]
        for group in (same_depth, alike):
            seconds = [record.seconds for other in group if (record := records[other.key]) is not None]
            if seconds:
                total_s += sum(seconds) / len(seconds)
                break
        else:
            return None
    return total_s


def _sort(stage: Stage) -> tuple[str, Any]:
    """What makes two stages cost alike: kind (initialising is not training) and depth."""
    pretrain_stage = stage.needs[0] if stage.needs else stage
    depth = pretrain_stage.config.get("trunk", {}).get("depth")
    is_initialisation = stage.kind == "pretrain" and not stage.config["pipeline"]["tasks"]
    return ("initialise" if is_initialisation else stage.kind, depth)


def _note(event: StageEvent, out: Path) -> None:
    path = event.stage.folder(out) / ERROR_NAME
    if event.state == "failed":
        write_json(path, {"date": now_utc(), "error": event.error, "trace": event.trace})
    else:
        path.unlink(missing_ok=True)


def _error_of(stage: Stage, out: Path) -> str:
    try:
        return str(json.loads((stage.folder(out) / ERROR_NAME).read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _line(event: StageEvent, graph: Graph, out: Path, num_jobs: int) -> str:
    number = 1 + [stage.key for stage in graph.stages].index(event.stage.key)
    head = f"[{number}/{len(graph.stages)}] {event.stage.kind.replace('_', ' ')}: {event.stage.label}"
    if event.state == "failed":
        return f"{head}: failed: {event.error}"
    if event.record is not None:
        return f"{head}: {_shown(event.record)} in {duration(event.record.seconds)}"
    records = {stage.key: read_record(stage.folder(out), stage.key) for stage in graph.stages}
    left_s = _left_s([stage for stage in graph.stages if records[stage.key] is None], graph, records)
    return f"{head} ({'time left not known yet' if left_s is None else f'about {duration(left_s)} left'})"


def _shown(record: Record) -> str:
    evaluation = EVALUATIONS.get(record.kind)
    value = record.results.get(evaluation.metric) if evaluation else None
    return "done" if evaluation is None or value is None else f"{evaluation.metric} {value:.1f}"


def duration(seconds: float) -> str:
    """Seconds for people: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _plain(value: Any) -> Any:
    """Results as JSON can hold them; a number that is none (NaN) becomes null."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def _only_run_in(out: Path) -> Iterator[None]:
    """Hold OUT for this run. The kernel lets go of the lock when the process dies, however it dies."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w")
    except OSError as error:
        raise UsageError(f"{out}: cannot write there ({error.strerror}). Give another --out.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"{out}: another run works there. Wait for it, or give another --out.") from error
        yield


def _say_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
