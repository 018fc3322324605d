"""Run a suite: stages in, one record each out. OUT/stages/<kind>-<key>/record.json alone marks a stage as finished.

A finished stage is never run again. A killed one resumes from its own checkpoint. A failed one leaves `error.json`; the
others still run, and the next run tries it again.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.base import Context
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.results.record import RECORD_NAME, Record, environment, now_utc, write_json, write_record
from benchmarks.suite.code.other_code import begin_stage, settle_old_code, write_modules
from benchmarks.suite.costs.calibration import read_calibration
from benchmarks.suite.deadline import time_limit
from benchmarks.suite.executors import Executor, RunStage, StageEvent
from benchmarks.suite.executors.local import LocalExecutor
from benchmarks.suite.executors.processes import ProcessExecutor
from benchmarks.suite.executors.ray import RayExecutor
from benchmarks.suite.executors.slots import choose_jobs, visible_gpus
from benchmarks.suite.finished import clear_without_kept_trunks, trunk_folder
from benchmarks.suite.graph import expand
from benchmarks.suite.plan_file import suite_folder, write_plan
from benchmarks.suite.preflight import check_data
from benchmarks.suite.progress import Progress
from benchmarks.suite.run_options import RunOptions, chosen_stages, keys_that_fit
from benchmarks.suite.stages import Graph, Stage
from benchmarks.suite.status import ERROR_NAME, SuiteStatus, duration, records_of, status_of
from benchmarks.suite.store.stage_lock import run_once
from benchmarks.suite.suite_config import Suite
from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from training.config import PretrainConfig
from training.loop import pretrain
from training.run_folder import CONFIG_NAME
from training.weights.checkpoint import keep_model_only

__all__ = ["plain_values", "run_stage", "run_suite", "suite_status"]

DEFAULTS = RunOptions()
SPLITS = ("train_split", "test_split")


def run_suite(
    suite: Suite,
    out: Path,
    options: RunOptions = DEFAULTS,
    *,
    runner: RunStage | None = None,
    say: Callable[[str], None] | None = None,
) -> SuiteStatus:
    """Run what is not finished; the caller exits with 1 if `num_failed` is not 0.

    Several runs and several suites may work in one `out` at a time: a lock per stage sees to it that each stage runs
    once. `say` gets one line per event (stderr by default). Raises UsageError for options that fit nothing.
    """
    say = say or _say_to_stderr
    # 1. All data, before anything is written: where some is missing, nothing must be left. The evaluations first: they
    # say what to download, the graph only which folder is missing.
    check_data(suite)
    graph = expand(suite)
    executor = _executor(options)
    wanted = keys_that_fit(graph, options.only)
    records = settle_old_code(graph, records_of(graph, out), out, options.old_code, wanted)
    chosen = chosen_stages(graph, records, out, options)
    # 2. What this run is, for people and for `status`, `plan` and `gc` from other terminals.
    _begin(out, suite, graph)
    say(_opening(suite, graph, records, chosen))
    progress = Progress(graph.stages, records, chosen, executor.num_jobs, read_calibration(graph.stages, out))
    # On other machines the current directory may be another one.
    place = out.absolute() if options.executor == "ray" else out
    run_stage_once = partial(run_once, out=place, run_stage=runner or partial(run_stage, out=place))
    # 3. The events are closed on the way out, also by Ctrl-C and at the time limit: stages at work save and end.
    with time_limit(options.time_limit_s) as limit, closing(executor.run(chosen, run_stage_once)) as events:
        for event in events:
            _note(event, out)
            if (line := progress.line(event)) is not None:
                say(line)
            if event.state == "failed" and options.fail_fast:
                say("stopped at the first failure (--fail-fast); run again to resume")
                break
    if limit.is_over:
        say(f"stopped after {duration(options.time_limit_s or 0)} (--time-limit); run again to resume")
    return status_of(suite.config.name, graph, out)


def _executor(options: RunOptions) -> Executor:
    if options.executor == "ray":
        return RayExecutor(
            options.address,
            num_jobs=options.num_jobs,
            num_cpus=options.num_cpus,
            num_gpus=options.num_gpus,
            memory_gib=options.memory_gib,
        )
    gpus = visible_gpus()
    num_jobs = options.num_jobs or choose_jobs(gpus)
    return LocalExecutor() if num_jobs == 1 else ProcessExecutor(num_jobs, gpus)


def _begin(out: Path, suite: Suite, graph: Graph) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(suite_folder(out, suite.config.name) / "suite.json", suite.config.model_dump(mode="json"))
    except OSError as error:
        raise UsageError(f"{out}: cannot write there ({error.strerror}). Give another --out.") from error
    write_plan(out, suite.settings, graph)
    write_modules(graph.modules, out)


def _opening(suite: Suite, graph: Graph, records: Mapping[str, Record | None], chosen: Sequence[Stage]) -> str:
    num_finished = sum(record is not None for record in records.values())
    num_left_out = len(graph.stages) - num_finished - len(chosen)
    left_out = f", {num_left_out} left out of this run" if num_left_out else ""
    return f"{suite.config.name}: {len(graph.stages)} stages, {num_finished} finished before{left_out}"


def run_stage(stage: Stage, *, out: Path) -> Record:
    """Run one stage to the end and publish its record. Raises whatever the stage raises."""
    folder = stage.folder(out)
    clear_without_kept_trunks(stage, out)
    folder.mkdir(parents=True, exist_ok=True)
    code = begin_stage(stage, out)
    start_s = time.monotonic()
    if stage.kind == "pretrain":
        config = validate(PretrainConfig, stage.config, source=stage.label)
        # The key vouches that a run which began here gives the same result. Its recorded configuration may name another
        # folder of the same data, or another number of threads, and would be refused.
        (folder / CONFIG_NAME).unlink(missing_ok=True)
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
        # After the record: until then the run may have to resume. `fourfold shortcuts` reads the model's weights.
        keep_model_only(folder)
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
    if event.record is not None and not (path.parent / RECORD_NAME).is_file():
        # Made on another machine, and not to be seen here yet.
        write_record(path.parent, event.record)


def plain_values(value: Any) -> Any:
    """Return results as JSON can hold them; NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(name): plain_values(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _say_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
