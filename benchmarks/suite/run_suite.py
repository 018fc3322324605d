"""Run a suite: stages in, one record each out. OUT/stages/<kind>-<key>/record.json alone marks a stage as finished.

A finished stage is never run again. A killed one resumes from its own checkpoint. A failed one leaves `error.json`; the
others still run, and the next run tries it again.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock, Timeout

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.base import Context
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.results.record import Record, environment, now_utc, write_json, write_record
from benchmarks.suite.code.other_code import OldCode, begin_stage, settle_old_code, write_modules
from benchmarks.suite.executors import Executor, RunStage, StageEvent
from benchmarks.suite.executors.local import LocalExecutor
from benchmarks.suite.executors.processes import ProcessExecutor
from benchmarks.suite.finished import clear_without_kept_trunks, finished_record, trunk_folder
from benchmarks.suite.graph import context_of, expand
from benchmarks.suite.plan_file import write_plan
from benchmarks.suite.stages import Graph, Stage
from benchmarks.suite.status import ERROR_NAME, SuiteStatus, duration, left_s, status_of
from benchmarks.suite.suite_config import Suite
from pipelines.base.config import validate
from pipelines.base.errors import DataError, UsageError
from pipelines.base.machine import num_cores
from training.config import PretrainConfig
from training.loop import pretrain
from training.weights.checkpoint import delete_checkpoints

__all__ = ["choose_jobs", "plain_values", "run_stage", "run_suite", "suite_status"]

JOB_BYTES = 4 * 2**30
SPLITS = ("train_split", "test_split")


def run_suite(
    suite: Suite,
    out: Path,
    *,
    num_jobs: int = 1,
    old_code: OldCode = "refuse",
    runner: RunStage | None = None,
    say: Callable[[str], None] | None = None,
) -> SuiteStatus:
    """Run what is not finished; the caller exits with 1 if `num_failed` is not 0.

    num_jobs: stages at a time, each in a process of its own; 1: all in this one; 0: as many as `choose_jobs` says.
    old_code: what becomes of stages that other code made: "refuse" to mix them with new ones, "keep" or "redo" them.
    `say` gets one line per event (stderr by default). Raises UsageError where another run holds `out`.
    """
    say = say or _say_to_stderr
    # 1. All data, before anything is written: where some is missing, nothing must be left. The evaluations first: they
    # say what to download, the graph only which folder is missing.
    _check_evaluations(suite)
    graph = expand(suite)
    executor, runner = _executor(num_jobs or choose_jobs()), runner or partial(run_stage, out=out)
    with _only_run_in(out):
        records = {stage.key: finished_record(stage, out) for stage in graph.stages}
        records = settle_old_code(graph, records, out, old_code)
        # 2. What this run is, for people (suite.json) and for `status` and `plan` from other terminals (plan.json).
        write_json(out / "suite.json", suite.config.model_dump(mode="json"))
        write_plan(out, suite.settings, graph)
        write_modules(graph.modules, out)
        # 3. Under the lock, so that no other run can finish a stage between this look and its start.
        todo = [stage for stage in graph.stages if records[stage.key] is None]
        say(f"{suite.config.name}: {len(graph.stages)} stages, {len(graph.stages) - len(todo)} finished before")
        # 4. Closed on the way out, also by Ctrl-C: then the executor ends what still runs.
        with closing(executor.run(todo, runner)) as events:
            for event in events:
                _note(event, out)
                say(_line(event, graph, out, executor.num_jobs))
    return suite_status(suite, out)


def choose_jobs() -> int:
    """Return how many stages to run at a time: one with a GPU; on a CPU one per core, if each has 4 GiB of memory."""
    if torch.cuda.is_available():
        return 1
    return max(1, min(num_cores(), psutil.virtual_memory().total // JOB_BYTES))


def _executor(num_jobs: int) -> Executor:
    return LocalExecutor() if num_jobs == 1 else ProcessExecutor(num_jobs)


def run_stage(stage: Stage, *, out: Path) -> Record:
    """Run one stage to the end and publish its record. Raises whatever the stage raises."""
    folder = stage.folder(out)
    clear_without_kept_trunks(stage, out)
    folder.mkdir(parents=True, exist_ok=True)
    code = begin_stage(stage, out)
    start_s = time.monotonic()
    if stage.kind == "pretrain":
        config = validate(PretrainConfig, stage.config, source=stage.label)
        results = plain_values(asdict(pretrain(config, folder)))
    else:
        evaluation = EVALUATIONS[stage.kind]
        options = validate(evaluation.config_class, stage.config["options"], source=stage.label)
        results = plain_values(evaluation.run(_context(stage, out), options))
    # A resumed pretraining reports the seconds of all its attempts; the clock here has seen the last one only.
    seconds = float(results.get("seconds") or time.monotonic() - start_s)
    # The record last: it alone marks the stage as finished.
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
        coordinates=stage.coordinates,
        code=code,
    )
    write_record(folder, record)
    if stage.kind == "pretrain":
        # After the record: until then the run may have to resume. Evaluations read the trunk alone.
        delete_checkpoints(folder)
    return record


def _context(stage: Stage, out: Path) -> Context:
    config = stage.config
    images, splits = config.get("images"), {name: config[name] for name in SPLITS if name in config}
    trunk = TrunkSource(run=trunk_folder(stage, out)) if stage.needs else None
    if (foreign := config.get("trunk")) is not None:
        trunk = TrunkSource(architecture=foreign["architecture"], weights=Path(foreign["weights"]))
    return Context(
        trunk=trunk,
        images=None if images is None else Path(images),
        store=out / "stages" / "features",
        others={
            name: TrunkSource(run=other.folder(out))
            for name, other in zip(config.get("others", []), stage.needs[1:], strict=True)
        },
        wanted=tuple(FeatureRequest(**one) for one in config.get("shared_features", [])),
        **splits,
    )


def _check_evaluations(suite: Suite) -> None:
    """Check the data of every evaluation: a night's pretraining must not end at a folder that is missing."""
    checked = []
    for point in suite.points:
        for name, kind in point.kinds.items():
            # Points mostly differ in the pretraining; the same options on the same data are checked once.
            this = (kind, point.evaluations[name], context_of(point))
            if this in checked:
                continue
            checked.append(this)
            try:
                EVALUATIONS[kind].check(this[2], this[1])
            except (UsageError, DataError) as error:
                raise type(error)(f"{point.source.at('evaluations', name)}: evaluations.{name}: {error}") from error
    for name, given in suite.config.trunks.items():
        try:
            given.source.load(torch.device("cpu"))
        except (UsageError, DataError) as error:
            raise type(error)(f"{suite.source}: trunks.{name}: {error}") from error


def suite_status(suite: Suite, out: Path) -> SuiteStatus:
    """Return what is finished, failed and left. Reads the shards' manifests and the records; writes nothing."""
    return status_of(suite.config.name, expand(suite), out)


def _note(event: StageEvent, out: Path) -> None:
    path = event.stage.folder(out) / ERROR_NAME
    if event.state == "failed":
        write_json(path, {"date": now_utc(), "error": event.error, "trace": event.trace})
    else:
        # The stage has started again or finished: what an earlier run recorded no longer holds.
        path.unlink(missing_ok=True)


def _line(event: StageEvent, graph: Graph, out: Path, num_jobs: int) -> str:
    number = 1 + [stage.key for stage in graph.stages].index(event.stage.key)
    head = f"[{number}/{len(graph.stages)}] {event.stage.kind.replace('_', ' ')}: {event.stage.label}"
    if event.state == "failed":
        return f"{head}: failed: {event.error}"
    if event.record is not None:
        return f"{head}: {_shown(event.record)} in {duration(event.record.seconds)}"
    records = {stage.key: finished_record(stage, out) for stage in graph.stages}
    more_s = left_s([stage for stage in graph.stages if records[stage.key] is None], graph, records)
    return f"{head} ({'time left not known yet' if more_s is None else f'about {duration(more_s)} left'})"


def _shown(record: Record) -> str:
    evaluation = EVALUATIONS.get(record.kind)
    value = record.results.get(evaluation.metric) if evaluation else None
    return "done" if evaluation is None or value is None else f"{evaluation.metric} {value:.1f}"


def plain_values(value: Any) -> Any:
    """Return results as JSON can hold them; NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(name): plain_values(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def _only_run_in(out: Path) -> Iterator[None]:
    """Hold OUT for this run. The kernel releases the lock when the process dies, however it dies."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = FileLock(out / ".lock").acquire(blocking=False)
    except Timeout as error:
        raise UsageError(f"{out}: another run works there. Wait for it, or give another --out.") from error
    except OSError as error:
        raise UsageError(f"{out}: cannot write there ({error.strerror}). Give another --out.") from error
    with held:
        yield


def _say_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
