"""Parts of `fourfold bench` about a suite's folder: garbage, what is at work there, what the rest would take."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchmarks.results.output import AsJson, print_json, print_table, say, size_text

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.suite.costs.forecast import Forecast
    from benchmarks.suite.stages import Graph
    from benchmarks.suite.store.running import RunningStage

__all__ = ["gc", "measure", "print_forecast", "watch"]

REFRESH_S = 2.0
MAX_SHOWN = 40


def gc(
    out: Path = typer.Argument(..., metavar="DIR", help="Folder of results, the --out of one or several suites."),
    delete: bool = typer.Option(False, "--delete", help="Delete what is listed. Without it nothing is changed."),
    as_json: bool = AsJson,
) -> None:
    """List what no suite needs any more, with its bytes; --delete deletes it. What a run is at work on stays.

    That is: stages that no suite's last run in DIR refers to, checkpoints of finished stages, and kept features once
    every stage has finished.

    Example: fourfold bench gc runs/demo
    """
    from benchmarks.suite.store.garbage import delete_garbage, find_garbage

    found = find_garbage(out)
    num_bytes = sum(one.num_bytes for one in found)
    num_freed = delete_garbage(found) if delete else 0
    if as_json:
        print_json({"found": found, "num_bytes": num_bytes, "num_bytes_deleted": num_freed})
        return
    rows = [(str(one.path.relative_to(out)), one.reason, size_text(one.num_bytes)) for one in found[:MAX_SHOWN]]
    if found:
        print_table(f"not needed in {out}", ["what", "why", "size"], rows)
    if len(found) > MAX_SHOWN:
        print(f"and {len(found) - MAX_SHOWN} more")
    print(f"{size_text(num_freed)} deleted" if delete else f"{len(found)} to delete, {size_text(num_bytes)}")
    if found and not delete:
        say(f"nothing was deleted; do it with: fourfold bench gc {out} --delete")


def measure(graph: "Graph", out: Path, as_json: bool) -> None:
    """Calibrate the stages of a suite on this machine, and say what was measured."""
    from benchmarks.suite.costs.calibrate.run_calibration import calibrate
    from benchmarks.suite.costs.calibration import CALIBRATION_NAME
    from benchmarks.suite.status import duration
    from pipelines.base.progress import quiet_progress

    with quiet_progress() if as_json else nullcontext():
        done = calibrate(graph, out)
    say(f"{done.num_measurements} measurements in {duration(done.spent.wall_s)}, kept in {out / CALIBRATION_NAME}")
    if done.is_busy:
        say(
            f"warning: other processes took {100 * done.busy_share:.0f} % of the cores meanwhile, so that only CPU "
            "times count; those may be off by a third. Calibrate on an idle machine for better ones."
        )
    if done.not_measured:
        say(f"not measured: {', '.join(done.not_measured)}; known once a stage of each has finished")


def print_forecast(found: "Forecast", price: float | None) -> None:
    """Print the wall time of what is left, what it takes of the machine, and what that costs. price: of an hour."""
    from benchmarks.suite.status import duration

    if not found.wall_s:
        return
    without = f", without {', '.join(found.unknown)}" if found.unknown else ""
    cpu = "" if found.cpu_hours is None else f"; {duration(3600 * found.cpu_hours)} of CPU"
    print(
        f"left, {found.num_jobs} at a time: {duration(found.wall_s)}{without}; "
        f"{duration(3600 * found.slot_hours)} of cores or GPUs, one for each stage at a time{cpu}"
    )
    known = [(kind, work_s) for kind, work_s in found.work_s_by_kind.items() if kind not in found.unknown]
    kinds = sorted(known, key=lambda one: -one[1])
    print("by kind: " + ", ".join(f"{kind.replace('_', ' ')} {duration(work_s)}" for kind, work_s in kinds))
    if price is not None:
        print(f"cost: {price * found.wall_s / 3600:.2f}{without}, at {price:g} an hour")


def watch(graph: "Graph", name: str, out: Path) -> None:
    """Show a live table of running stages until all are finished, or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from benchmarks.suite.status import status_of
    from benchmarks.suite.store.running import running_stages

    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            status = status_of(name, graph, out)
            live.update(_table(running_stages(graph, out), name, status), refresh=True)
            if status.is_finished:
                return
            time.sleep(REFRESH_S)


def _table(running: "list[RunningStage]", name: str, status: Any) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    from benchmarks.suite.status import duration

    left = "" if status.left_s is None else f", about {duration(status.left_s)} of work left"
    failed = f", {status.num_failed} failed" if status.num_failed else ""
    title = f"{name}: {status.num_finished} of {status.num_stages} stages finished{failed}{left}"
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "where", "for", "step", "budget", "loss", "left"):
        table.add_column(column, overflow="fold")
    for one in running:
        losses = "  ".join(f"{task} {loss:.3f}" for task, loss in one.losses.items())
        table.add_row(
            escape(f"{one.stage.kind.replace('_', ' ')}: {one.stage.label}"),
            escape(f"{one.owner.host} {one.owner.pid}"),
            duration(one.seconds),
            "" if one.step is None else str(one.step),
            "" if one.share is None else f"{100 * one.share:.0f} %",
            losses,
            "" if one.left_s is None else duration(one.left_s),
        )
    if not running:
        table.add_row("nothing is at work")
    return table
