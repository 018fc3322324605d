"""`fourfold bench run|plan|status|report`: a suite of pretrainings and evaluations from one YAML file."""

from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchmarks.cli.bench_store import gc, measure, print_forecast, watch
from benchmarks.recipe_files import completing, find_recipe
from benchmarks.results.output import AsJson, Overrides, plain, print_json, print_table, say
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress

if TYPE_CHECKING:
    from benchmarks.suite.code.other_code import OldCode
    from benchmarks.suite.stages import Graph
    from benchmarks.suite.status import CellStatus, SuiteStatus
    from benchmarks.suite.suite_config import Suite

__all__ = ["app"]

app = typer.Typer(help="Run suites of pretrainings and evaluations, and report them.")
SuiteFile = typer.Argument(
    metavar="SUITE.yaml",
    help="A suite file, or the name of a packaged one, such as demo.",
    autocompletion=completing("suites"),
)
Jobs = typer.Option(0, "--jobs", min=0, help="Stages that run at a time. 0: one per GPU, without GPUs one per core.")
KeepOld = typer.Option(False, "--keep-old", help="Count finished stages that other code made, as they are.")
RedoChanged = typer.Option(False, "--redo-changed", help="Run stages that other code made again. Deletes their files.")
Only = typer.Option(
    None,
    "--only",
    metavar="PATTERN",
    help="Run cells whose name has this in it, or fits it (* and ?), such as 'exemplar, depth 10*'; or one evaluation "
    "of cells, such as 'knn: *'. Can be given several times.",
)


class Retry(StrEnum):
    all = "all"
    failed = "failed"
    none = "none"


RetryOption = typer.Option(
    Retry.all, "--retry", help="Stages that failed before: run them again, run nothing else (failed), or leave them."
)
TimeLimitOption = typer.Option(
    None,
    "--time-limit",
    metavar="TIME",
    help="Stop after this time, such as 30m or 8h: stages at work save a checkpoint, and the next run resumes.",
)


Calibrate = typer.Option(
    False,
    "--calibrate",
    help="Measure a few steps of every task and a small run of every evaluation first, on this machine. Takes a minute "
    "or two for small trunks on a CPU; the plan, the run and its status go by it until stages have finished.",
)
Price = typer.Option(None, "--price", min=0.0, metavar="PER_HOUR", help="Price of this machine for an hour: adds cost.")


class ExecutorName(StrEnum):
    local = "local"
    ray = "ray"


ExecutorOption = typer.Option(
    ExecutorName.local, "--executor", help="Where stages run: on this machine, or on a Ray cluster that is there."
)
Address = typer.Option("auto", "--address", metavar="HOST:PORT", help="Ray cluster; auto: RAY_ADDRESS, or one here.")
CpusPerStage = typer.Option(1.0, "--cpus-per-stage", min=0.01, help="CPU cores that a stage asks of the Ray cluster.")
GpusPerStage = typer.Option(
    None, "--gpus-per-stage", min=0.0, help="GPUs of a stage. Default: 1 if the cluster has any."
)
MemoryPerStage = typer.Option(0.0, "--memory-per-stage", min=0.0, help="GiB of memory that a stage asks for.")
FailFast = typer.Option(False, "--fail-fast", help="Stop at the first stage that fails.")
Out = typer.Option(None, "--out", metavar="DIR", help="Folder for results. Default: runs/NAME of the suite.")


@app.command()
def run(
    suite: Path = SuiteFile,
    out: Path | None = Out,
    overrides: list[str] | None = Overrides,
    jobs: int = Jobs,
    keep_old: bool = KeepOld,
    redo_changed: bool = RedoChanged,
    only: list[str] | None = Only,
    retry: Retry = RetryOption,
    time_limit: str | None = TimeLimitOption,
    fail_fast: bool = FailFast,
    executor: ExecutorName = ExecutorOption,
    address: str = Address,
    cpus: float = CpusPerStage,
    gpus: float | None = GpusPerStage,
    memory: float = MemoryPerStage,
    as_json: bool = AsJson,
) -> None:
    """Run what is not finished yet. After being killed, the same command resumes. Exit code 1 if a stage failed.

    Refuses to run where other code has made a part of the stages, unless --keep-old or --redo-changed is given.
    Suites with the same --out share their stages, also while both run.

    Example: fourfold bench run demo --set images=shards --set clips=shards --set seeds=[0,1,2]
    """
    from benchmarks.suite.run_options import RunOptions, parse_duration
    from benchmarks.suite.run_suite import run_suite

    if keep_old and redo_changed:
        raise UsageError("--keep-old and --redo-changed exclude each other. Give one of them.")
    old_code: OldCode = "keep" if keep_old else "redo" if redo_changed else "refuse"
    loaded, folder = _load(suite, out, overrides)
    options = RunOptions(
        num_jobs=jobs,
        old_code=old_code,
        only=tuple(only or ()),
        retry=retry.value,
        time_limit_s=None if time_limit is None else parse_duration(time_limit),
        fail_fast=fail_fast,
        executor=executor.value,
        address=address,
        num_cpus=cpus,
        num_gpus=gpus,
        memory_gib=memory,
    )
    with quiet_progress() if as_json else nullcontext():
        status = run_suite(loaded, folder, options)
    _print(status, as_json)
    if status.num_failed:
        raise typer.Exit(1)
    if status.num_finished:
        say(f"next: fourfold bench report {suite}{f' --out {out}' if out else ''}")


@app.command()
def plan(
    suite: Path = SuiteFile,
    out: Path | None = Out,
    overrides: list[str] | None = Overrides,
    jobs: int = Jobs,
    is_calibrated: bool = Calibrate,
    price: float | None = Price,
    as_json: bool = AsJson,
) -> None:
    """Show what `run` would do, how long it would take and what it would cost; check the data of all evaluations.

    How long is known once stages of each kind have finished, or from --calibrate. Without that option nothing is
    written. Exit code 2 where data is missing, as `run` has it.

    Example: fourfold bench plan demo --jobs 4 --calibrate
    """
    from benchmarks.suite.costs.calibration import read_calibration
    from benchmarks.suite.costs.forecast import forecast
    from benchmarks.suite.executors.slots import choose_jobs, visible_gpus
    from benchmarks.suite.status import records_of, status_of

    graph, name, folder = _graph(suite, out, overrides, is_checked=True)
    if is_calibrated:
        measure(graph, folder, as_json)
    costs, num_jobs = read_calibration(graph.stages, folder), jobs or choose_jobs(visible_gpus())
    found = forecast(graph, records_of(graph, folder), num_jobs, costs)
    status = status_of(name, graph, folder)
    if as_json:
        more = {"slot_hours": found.slot_hours, "cost": None if price is None else price * found.wall_s / 3600}
        print_json(_summary(status) | {"forecast": plain(found) | more})
    else:
        _print(status, as_json)
        print_forecast(found, price)
        if found.unknown and not is_calibrated:
            say(f"measure it in a minute or two: fourfold bench plan {suite} --calibrate, and the same options")


@app.command()
def status(
    suite: Path = SuiteFile,
    out: Path | None = Out,
    overrides: list[str] | None = Overrides,
    is_watched: bool = typer.Option(False, "--watch", help="Live table of what is at work, until all is finished."),
    as_json: bool = AsJson,
) -> None:
    """Show what is finished, failed and left, also while a run is at work elsewhere.

    Example: fourfold bench status demo --json
    """
    if is_watched:
        watch(*_graph(suite, out, overrides))
    _print(_status(suite, out, overrides), as_json)


app.command()(gc)


@app.command()
def report(
    suite: Path = SuiteFile,
    out: Path | None = Out,
    overrides: list[str] | None = Overrides,
    export: str = typer.Option(
        "", "--export", metavar="FORMAT,FORMAT", help="Also write OUT/export: csv, latex, markdown, svg, png, pdf."
    ),
) -> None:
    """Write the report of what is finished so far, one HTML file that needs no other file, and print its path.

    With --export also tables and charts as files, whose paths follow.

    Example: fourfold bench report demo --export csv,latex,png
    """
    from benchmarks.results.report import export_report, write_report
    from benchmarks.results.report.exports import formats_of

    # Before seconds of reading and drawing.
    if export:
        formats_of(export)
    loaded, folder = _load(suite, out, overrides)
    print(write_report(loaded, folder))
    for path in export_report(loaded, folder, export) if export else ():
        print(path)


def _status(path: Path, out: Path | None, overrides: list[str] | None) -> "SuiteStatus":
    from benchmarks.suite.status import status_of

    graph, name, folder = _graph(path, out, overrides)
    return status_of(name, graph, folder)


def _graph(
    path: Path, out: Path | None, overrides: list[str] | None, *, is_checked: bool = False
) -> "tuple[Graph, str, Path]":
    """Return the graph that the last run recorded if it still holds, else a new one, which loads torch.

    is_checked: check the data of the evaluations of a new one. That of a recorded one was checked, and is the same.
    """
    from benchmarks.suite.plan_file import read_plan
    from pipelines.base.config import apply_overrides, read_yaml

    # From the YAML alone: to check it against the config classes would load torch.
    settings = apply_overrides(read_yaml(find_recipe(path, "suites"))[0], overrides or [])
    name = str(settings.get("name"))
    folder = out or Path("runs") / name
    if (graph := read_plan(folder, settings)) is not None:
        return graph, name, folder

    # Loads torch, which takes seconds: only where no recorded graph holds.
    from benchmarks.suite.graph import expand
    from benchmarks.suite.preflight import check_data

    loaded, folder = _load(path, out, overrides)
    if is_checked:
        check_data(loaded)
    return expand(loaded), loaded.config.name, folder


def _load(path: Path, out: Path | None, overrides: list[str] | None) -> "tuple[Suite, Path]":
    from benchmarks.suite.suite_config import load_suite

    suite = load_suite(path, overrides or [])
    return suite, out or Path("runs") / suite.config.name


def _print(status: "SuiteStatus", as_json: bool) -> None:
    if as_json:
        print_json(_summary(status))
        return
    from benchmarks.suite.stages import WHOLE_PCT
    from benchmarks.suite.status import duration

    rows = [
        (
            cell.cell.row if cell.cell.percent == WHOLE_PCT else f"{cell.cell.row}, at {cell.cell.percent:g} %",
            cell.cell.depth,
            cell.cell.seed,
            cell.state,
            "  ".join(f"{name} {value:.1f}" for name, value in _metrics(cell, status.metrics).items()) or None,
            duration(cell.spent_s) if cell.records else None,
            None if cell.left_s is None or cell.state == "finished" else duration(cell.left_s),
        )
        for cell in status.cells
    ]
    columns = ["task set", "depth", "seed", "state", "results", "spent", "left"]
    print_table(f"{status.name} in {status.out}", columns, rows)
    left = "not known before a stage of each kind has finished" if status.left_s is None else duration(status.left_s)
    print(f"\n{status.num_finished} of {status.num_stages} stages finished in {duration(status.spent_s)}")
    print(f"left, one after the other: {left}")
    if status.other_code:
        print(f"{status.other_code} `run` needs --keep-old or --redo-changed.")
    for label, error in status.failures.items():
        say(f"failed: {label}: {error}")


def _metrics(cell: "CellStatus", metrics: dict[str, str]) -> dict[str, float]:
    """Return the main result of each finished evaluation, by its name."""
    found = {kind: record.results.get(metrics[kind]) for kind, record in cell.records.items() if kind in metrics}
    return {name: value for name, value in found.items() if value is not None}


def _summary(status: "SuiteStatus") -> dict[str, Any]:
    cells = [
        {
            "task_set": cell.cell.task_set.name,
            "tasks": cell.cell.task_set.tasks,
            "coordinates": cell.cell.coordinates,
            "depth": cell.cell.depth,
            "seed": cell.cell.seed,
            "state": cell.state,
            "error": cell.error or None,
            "results": {kind: record.results for kind, record in cell.records.items()},
            "spent_s": cell.spent_s,
            "left_s": cell.left_s,
        }
        for cell in status.cells
    ]
    names = ("name", "out", "num_stages", "num_finished", "num_failed", "spent_s", "left_s", "other_code")
    return {name: getattr(status, name) for name in names} | {"cells": cells}
