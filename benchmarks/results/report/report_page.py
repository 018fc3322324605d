"""The report's page: verdict first, then the table of the paper's layout, curves, cost, and what was not measured.

Here the values are computed; `report.html.j2` lays them out. Partial results are normal: a section without finished
cells says so or is left out.
"""

import base64
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.results.html_page import environment_facts, render
from benchmarks.results.record import environment, write_json, write_text
from benchmarks.results.report import charts
from benchmarks.results.report.collect import (
    Metric,
    depths_of,
    floor_of,
    metrics_of,
    references_of,
    summary_at,
    task_sets_of,
    test_set_note,
    values_of,
)
from benchmarks.results.report.comparisons import compare, headline, resolution
from benchmarks.results.report.diagnostics_table import PAIR_COLUMNS, TASK_COLUMNS, pair_rows, task_rows
from benchmarks.results.report.equal_compute import COMPUTE_COLUMNS, compute_rows
from benchmarks.results.report.paper import PAPER_ROWS
from benchmarks.results.statistics import Summary
from benchmarks.suite.run_suite import suite_status
from benchmarks.suite.status import SuiteStatus, duration
from benchmarks.suite.suite_config import Suite
from training.journal import LOG_NAME, read_log

__all__ = ["write_report"]

REPORT_NAME, PREVIEW_NAME, RESULTS_NAME = "report.html", "preview.png", "results.json"
MAX_CURVE_POINTS = 400
TEMPLATE = Path(__file__).resolve().parent / "report.html.j2"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One task set: per depth its summary (None: not finished) and whether it is the best; the paper's numbers."""

    name: str
    role: str
    cells: list[tuple[Summary | None, bool]]
    paper: list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyTable:
    """One metric. `floor_pct`: the pixel floor, None where it was not measured; `references`: rows without a seed."""

    title: str
    has_paper: bool
    rows: list[TableRow]
    floor_pct: float | None
    note: str
    references: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Contact sheet of the tasks, or the reason why there is none; both empty where there are no shards to show."""

    picture_base64: str = ""
    problem: str = ""


def write_report(suite: Suite, out: Path) -> Path:
    """Write OUT/report.html, and OUT/results.json with the same numbers, from what is finished so far.

    Raises UsageError or DataError where the suite's shards are missing.
    """
    # 1. The status first: where shards are missing, nothing is written.
    status = suite_status(suite, out)
    out.mkdir(parents=True, exist_ok=True)
    metrics = metrics_of(status)
    page = render(
        TEMPLATE,
        name=suite.config.name,
        status=status,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        plotly_script=Markup(charts.plotly_script()),
        headline=headline(status, metrics[0]) if metrics else [],
        resolution=resolution(status, metrics[0]) if metrics else [],
        depths=depths_of(status),
        tables=_tables(status, metrics),
        depth_charts=_depth_charts(status, metrics),
        comparisons=_comparisons(status, metrics),
        total_duration=duration(status.spent_s),
        costs=_costs(status),
        compute=compute_rows(status, metrics[0]) if metrics else [],
        compute_columns=COMPUTE_COLUMNS,
        losses=_losses(status, out),
        learned=_learned(status),
        warnings=_warnings(status),
        diagnosed=task_rows(status, out),
        diagnosed_pairs=pair_rows(status, out),
        diagnosed_columns=(TASK_COLUMNS, PAIR_COLUMNS),
        lasso=_lasso(status, out),
        preview=_preview(suite, out),
        limits=_limits(suite),
        command=_command(suite, status),
        places=_places(status),
    )
    # 2. Both files once the page is complete: what fails in it leaves the last report as it was.
    path = out / REPORT_NAME
    write_text(path, page)
    write_json(out / RESULTS_NAME, _results(status, metrics))
    return path


def _tables(status: SuiteStatus, metrics: list[Metric]) -> list[AccuracyTable]:
    shown = [metric for metric in metrics if not metric.name.startswith("top5") or metric.name == "top5_pct"]
    return [_table(status, metric) for metric in shown]


def _table(status: SuiteStatus, metric: Metric) -> AccuracyTable:
    depths, values = depths_of(status), values_of(status, metric)
    has_paper = not metric.name.endswith("_labels_pct")
    best = {depth: _best(values, depth) for depth in depths}
    rows = []
    for name, task_set in task_sets_of(status).items():
        summaries = {depth: summary_at(values[name], depth) for depth in depths}
        cells = [(found, found is not None and found.mean == best[depth]) for depth, found in summaries.items()]
        paper = _paper_numbers(frozenset(task_set.tasks)) if has_paper else []
        rows.append(TableRow(name=name, role=task_set.role, cells=cells, paper=paper))
    return AccuracyTable(
        title=metric.title,
        has_paper=has_paper,
        rows=rows,
        floor_pct=floor_of(status, metric),
        note=test_set_note(status, metric),
        references=references_of(status, metric),
    )


def _paper_numbers(tasks: frozenset[str]) -> list[float | None]:
    row = PAPER_ROWS.get(tasks)
    return [None, None] if row is None else [row.top5_pct, row.top1_pct]


def _best(values: Mapping[str, Mapping[tuple[int, int], float]], depth: int) -> float | None:
    """Return the highest mean of the task sets, the supervised baseline left out."""
    # Supervised has seen labels: marked as the best, it would hide which of the others is.
    means = [found.mean for name, row in values.items() if name != "supervised" and (found := summary_at(row, depth))]
    return max(means, default=None)


def _depth_charts(status: SuiteStatus, metrics: list[Metric]) -> list[Markup]:
    roles = {name: task_set.role for name, task_set in task_sets_of(status).items()}
    fragments = []
    for metric in [one for one in metrics if one.name.startswith("top1")]:
        values = {name: row for name, row in values_of(status, metric).items() if row}
        if not values:
            continue
        summaries = {
            name: {depth: found for depth in depths_of(status) if (found := summary_at(row, depth))}
            for name, row in values.items()
        }
        title = f"{metric.title}: mean, 95 % interval over seeds, and every seed"
        chart = charts.accuracy_by_depth(values, summaries, roles, title, floor_of(status, metric))
        fragments.append(Markup(chart))
    return fragments


def _comparisons(status: SuiteStatus, metrics: list[Metric]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return by metric: depth, what is compared with, verdict."""
    found = []
    for metric in [one for one in metrics if one.name.startswith("top1")]:
        rows = [
            ("all" if one.depth is None else str(one.depth), one.role, one.sentence) for one in compare(status, metric)
        ]
        if rows:
            found.append((metric.title, rows))
    return found


def _costs(status: SuiteStatus) -> list[tuple[str, ...]]:
    """Return one row a cell; empty text where a number is not known."""
    rows: list[tuple[str, ...]] = []
    for cell in status.cells:
        pretrain = cell.records.get("pretrain")
        results: Mapping[str, Any] = pretrain.results if pretrain else {}
        samples = sum(results.get("samples_seen", {}).values())
        evaluation_s = cell.spent_s - (pretrain.seconds if pretrain else 0.0)
        rows.append(
            (
                cell.cell.label,
                cell.state,
                f"{results['compute_tflop']:,.1f}" if "compute_tflop" in results else "",
                f"{results['num_steps']:,}" if "num_steps" in results else "",
                f"{samples:,}" if pretrain else "",
                duration(pretrain.seconds) if pretrain else "",
                duration(evaluation_s) if cell.records else "",
                f"{results['num_trunk_parameters'] / 1e6:.2f}" if "num_trunk_parameters" in results else "",
            )
        )
    return rows


def _losses(status: SuiteStatus, out: Path) -> Markup | None:
    """Draw training and held-out loss by step, a line each per cell."""
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for cell in status.cells:
        stage = cell.cell.pretrain
        lines = read_log(stage.folder(out) / LOG_NAME) if stage else []
        held_out = [line for line in lines if "held_out" in line]
        # Thinned, since a screen shows no more points. Held-out losses are few, and all of them stay.
        for line in lines[:: max(1, len(lines) // MAX_CURVE_POINTS)]:
            for task, loss in line.get("losses", {}).items():
                _add_point(curves, task, cell.cell.label, line["step"], loss)
        for line in held_out:
            for task, values in line["held_out"].items():
                _add_point(curves, task, f"{cell.cell.label}{charts.HELD_OUT}", line["step"], values["model"]["loss"])
    return Markup(charts.loss_curves(curves, "loss by step; dashed: on held-out samples")) if curves else None


def _add_point(
    curves: dict[str, dict[str, tuple[list[float], list[float]]]], task: str, name: str, step: int, loss: float
) -> None:
    steps, losses = curves.setdefault(task, {}).setdefault(name, ([], []))
    steps.append(step)
    losses.append(loss)


def _learned(status: SuiteStatus) -> list[tuple[str, ...]]:
    """Return what each task of each cell learned: passes, then its metric in training, held-out, without seeing."""
    rows: list[tuple[str, ...]] = []
    for cell in status.cells:
        pretrain = cell.records.get("pretrain")
        results: Mapping[str, Any] = pretrain.results if pretrain else {}
        for task, found in results.get("held_out", {}).items():
            for name in found["model"]:
                trained = results["losses"][task] if name == "loss" else results["metrics"][task].get(name)
                numbers = [trained, *(found.get(one, {}).get(name) for one in ("model", "constant", "place"))]
                rows.append(
                    (
                        cell.cell.label,
                        task.replace("_", " "),
                        name.replace("_", " "),
                        f"{results['passes'][task]:.1f}",
                        *("" if number is None else f"{number:.3f}" for number in numbers),
                    )
                )
    return rows


def _warnings(status: SuiteStatus) -> list[tuple[str, str]]:
    return [
        (cell.cell.label, warning)
        for cell in status.cells
        if (pretrain := cell.records.get("pretrain"))
        for warning in pretrain.results.get("warnings", [])
    ]


def _lasso(status: SuiteStatus, out: Path) -> Markup | None:
    rows: dict[str, list[float]] = {}
    for cell in status.cells:
        if cell.cell.pretrain and (lines := read_log(cell.cell.pretrain.folder(out) / LOG_NAME)):
            for task, weights in (lines[-1].get("lasso") or {}).items():
                rows[f"{cell.cell.label}: {task}"] = list(weights)
        for kind, record in cell.records.items():
            if mix := record.results.get("lasso_mix"):
                rows[f"{cell.cell.label}: {kind}"] = list(mix)
    return Markup(charts.lasso_picture(rows, "size of the lasso weights, by unit of stage 3")) if rows else None


def _preview(suite: Suite, out: Path) -> Preview:
    """Make the contact sheet, once per suite folder. Whatever is wrong with it must not cost the report."""
    path = out / PREVIEW_NAME
    folder = suite.config.images or suite.config.clips
    if not path.is_file() and folder is not None:
        try:
            from pipelines.preview.task_sheet import write_sheet

            write_sheet(folder, path, clips=suite.config.clips)
        except Exception as error:
            return Preview(problem=f"{type(error).__name__}: {error}")
    if not path.is_file():
        return Preview()
    return Preview(picture_base64=base64.b64encode(path.read_bytes()).decode())


def _limits(suite: Suite) -> list[str]:
    items = [
        "Transfer with fine-tuning: only frozen trunks are probed here, not detection or depth, the paper's other two.",
        "Scale: the data set, the trunk and the budget are many times smaller than the paper's. An order of tasks "
        "found here need not hold there.",
        "Other data: the intervals are over seeds on one train and test split, and do not cover other images.",
        "Tuning: one optimizer setting serves all task sets and depths; each might do better with its own.",
        "Equal time: task sets are compared at an equal budget as configured, not at equal seconds.",
    ]
    if suite.config.clips is not None:
        items.append(
            "Equal data: motion segmentation learns from clips, the other tasks from images; sets with it see both."
        )
    return items


def _command(suite: Suite, status: SuiteStatus) -> str:
    command = ["fourfold", "bench", "run", suite.source, "--out", str(status.out)]
    command += [part for override in suite.overrides for part in ("--set", override)]
    return shlex.join(command)


def _places(status: SuiteStatus) -> list[list[tuple[str, str]]]:
    """Return the different environments that the records come from; this one where there is no record."""
    records = [record for cell in status.cells for record in cell.records.values()]
    places = {str(record.environment): record.environment for record in records} or {"now": environment()}
    return [environment_facts(place) for place in places.values()]


def _results(status: SuiteStatus, metrics: list[Metric]) -> dict[str, Any]:
    """Return the numbers of the page for other programs, and for committing."""
    cells = [
        {
            "task_set": cell.cell.task_set.name,
            "tasks": list(cell.cell.task_set.tasks),
            "depth": cell.cell.depth,
            "seed": cell.cell.seed,
            "state": cell.state,
            "seconds": round(cell.spent_s, 1),
            "results": {kind: record.results for kind, record in cell.records.items()},
        }
        for cell in status.cells
    ]
    verdicts = {f"{one.evaluation}.{one.name}": [item.sentence for item in compare(status, one)] for one in metrics}
    return {"suite": status.name, "num_finished": status.num_finished, "num_stages": status.num_stages} | {
        "verdicts": verdicts,
        "cells": cells,
    }
