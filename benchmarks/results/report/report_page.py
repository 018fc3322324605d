"""The report's page: what was compared, verdicts, charts and tables, cost, every cell, and what was not measured.

Here the values are computed; `report.html.j2` lays them out. Partial results are normal: a section without finished
cells says so or is left out.
"""

import base64
import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.results.charts.shown import ShownChart, shown
from benchmarks.results.html_page import environment_facts, render
from benchmarks.results.record import environment, write_json, write_text
from benchmarks.results.report.accuracy_tables import accuracy_table, shown_metrics
from benchmarks.results.report.cells import COST_COLUMNS, cell_entries, cost_rows
from benchmarks.results.report.collect import Metric, depths_of, floor_of, metrics_of
from benchmarks.results.report.comparisons import compare, headline, resolution
from benchmarks.results.report.diagnostics_table import PAIR_COLUMNS, TASK_COLUMNS, pair_rows, task_rows
from benchmarks.results.report.equal_compute import COMPUTE_COLUMNS, compute_rows
from benchmarks.results.report.exports import export, formats_of
from benchmarks.results.report.learning import (
    LEARNED_COLUMNS,
    SHORTCUT_COLUMNS,
    RunLogs,
    lasso_rows,
    learned_rows,
    shortcut_rows,
)
from benchmarks.results.report.negative import failures_of, not_above_random, warnings_of
from benchmarks.results.report.page_charts import (
    charted_metrics,
    compute_chart,
    depth_chart,
    equal_compute_tflop,
    learning_curve,
    loss_charts,
    set_chart,
)
from benchmarks.results.report.paper_tables import shown_tables
from benchmarks.results.report.setting import chance_pct, facts_of, opening
from benchmarks.results.report.trunk_similarity import similarities_of, similarity_chart
from benchmarks.results.report.view import at_full_budget, full_view
from benchmarks.suite.plan_file import suite_folder
from benchmarks.suite.run_suite import suite_status
from benchmarks.suite.status import SuiteStatus, duration
from benchmarks.suite.suite_config import Suite

__all__ = ["export_report", "page_of", "report_folder", "write_report"]

REPORT_NAME, PREVIEW_NAME, RESULTS_NAME = "report.html", "preview.png", "results.json"
EXPORT_NAME = "export"
TEMPLATE = Path(__file__).resolve().parent / "report.html.j2"
PREVIEW_PX = 1200
PREVIEW_QUALITY = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Sheet of inputs and targets, or the reason why there is none; both empty where there are no shards to show."""

    picture: str = ""
    """A `data:` address."""
    problem: str = ""


def write_report(suite: Suite, out: Path) -> Path:
    """Write report.html, and results.json with the same numbers, into `report_folder`, from what is finished so far.

    Raises UsageError or DataError where the suite's shards are missing.
    """
    # 1. The status first: where shards are missing, nothing is written.
    status = suite_status(suite, out)
    out.mkdir(parents=True, exist_ok=True)
    page = page_of(suite, status)
    # 2. Both files once the page is complete: what fails in it leaves the last report as it was.
    folder = report_folder(out, suite.config.name)
    write_text(folder / REPORT_NAME, page)
    write_json(folder / RESULTS_NAME, _results(status))
    if folder != out:
        _delete_own_report(out, suite.config.name)
    return folder / REPORT_NAME


def report_folder(out: Path, name: str) -> Path:
    """Return where a suite's report goes: OUT, or OUT/suites/NAME where other suites share OUT."""
    own = suite_folder(out, name)
    is_shared = any(path != own and path.is_dir() for path in own.parent.glob("*"))
    return own if is_shared else out


def _delete_own_report(out: Path, name: str) -> None:
    """Delete the report that a suite left in OUT before it shared OUT: it would grow old there. Others' stay."""
    try:
        is_own = json.loads((out / RESULTS_NAME).read_text(encoding="utf-8"))["suite"] == name
    except (OSError, ValueError, LookupError, TypeError):
        return
    if is_own:
        for file in (REPORT_NAME, RESULTS_NAME, PREVIEW_NAME):
            (out / file).unlink(missing_ok=True)


def export_report(suite: Suite, out: Path, formats: str) -> list[Path]:
    """Write tables and charts into export/ beside the report and return the paths. formats: such as "csv,latex".

    Raises UsageError.
    """
    chosen = formats_of(formats)
    return export(suite_status(suite, out), report_folder(out, suite.config.name) / EXPORT_NAME, chosen)


def page_of(suite: Suite, status: SuiteStatus) -> str:
    """Return the whole document."""
    every = full_view(status)
    status = at_full_budget(every)
    metrics, out, logs = metrics_of(status), status.out, RunLogs(out=status.out)
    main, found = metrics[0] if metrics else None, shortcut_rows(status, out)
    return render(
        TEMPLATE,
        name=suite.config.name,
        status=status,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        opening=opening(suite, status),
        setting=facts_of(suite, status),
        chance_pct=chance_pct(suite),
        main=main,
        headline=headline(status, main) if main else [],
        floor_pct=floor_of(status, main) if main else None,
        resolution=resolution(status, main) if main else [],
        not_above_random=not_above_random(status, main) if main else [],
        failures=failures_of(status),
        warnings=warnings_of(status),
        depths=depths_of(status),
        tables=[accuracy_table(status, one) for one in shown_metrics(metrics)],
        **_charts(status, every, metrics, logs),
        equal_compute_tflop=equal_compute_tflop(status),
        paper=shown_tables(status, depths_of(status)),
        comparisons=_comparisons(status, metrics),
        total_duration=duration(status.spent_s),
        costs=(COST_COLUMNS, cost_rows(status)),
        compute=(COMPUTE_COLUMNS, compute_rows(status, main) if main else []),
        learned=(LEARNED_COLUMNS, learned_rows(status)),
        shortcuts=(SHORTCUT_COLUMNS, found),
        diagnosed=((TASK_COLUMNS, task_rows(status, out)), (PAIR_COLUMNS, pair_rows(status, out))),
        lasso=lasso_rows(status, logs),
        alike=[(one, shown(similarity_chart(one), has_numbers=False)) for one in similarities_of(status)],
        preview=_preview(suite, out),
        cells=cell_entries(every, logs, found),
        limits=_limits(suite),
        command=_command(suite, status),
        places=_places(status),
    )


def _charts(
    status: SuiteStatus, every: SuiteStatus, metrics: list[Metric], logs: RunLogs
) -> dict[str, list[ShownChart]]:
    """Return the charts by section. `every`: also the cells on the way of learning curves."""
    charted = charted_metrics(status, metrics)
    main, others = charted[:1], charted[1:]
    drawn = [
        *(set_chart(status, one) for one in main),
        *(depth_chart(status, one) for one in main),
        *(compute_chart(status, one) for one in main),
        *(learning_curve(every, one) for one in main),
        *(depth_chart(status, one) or set_chart(status, one) for one in others),
    ]
    return {
        "accuracy_charts": [shown(chart) for chart in drawn if chart is not None],
        # Their numbers stand in the table of held-out metrics.
        "loss_charts": [shown(chart, has_numbers=False) for chart in loss_charts(status, logs)],
    }


def _comparisons(status: SuiteStatus, metrics: list[Metric]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return by metric: depth, what is compared with, verdict; only pairs that have finished."""
    found = []
    for metric in charted_metrics(status, metrics):
        rows = [
            ("all" if one.depth is None else str(one.depth), one.role, one.sentence)
            for one in compare(status, metric)
            if one.difference is not None
        ]
        if rows:
            found.append((metric.title, rows))
    return found


def _preview(suite: Suite, out: Path) -> Preview:
    """Make the sheet of inputs and targets, once per report's folder. A fault of it must not cost the report."""
    path = report_folder(out, suite.config.name) / PREVIEW_NAME
    folder = suite.config.images or suite.config.clips
    try:
        if not path.is_file() and folder is not None:
            from pipelines.preview.task_sheet import write_sheet

            write_sheet(folder, path, clips=suite.config.clips)
        return Preview(picture=_small(path)) if path.is_file() else Preview()
    except Exception as error:
        return Preview(problem=f"{type(error).__name__}: {error}")


def _small(path: Path) -> str:
    """Return the sheet as the address of a JPEG: as a PNG it would be most of the page's bytes."""
    from PIL import Image

    with Image.open(path) as picture:
        scale = min(1.0, PREVIEW_PX / picture.width)
        size = round(picture.width * scale), round(picture.height * scale)
        buffer = io.BytesIO()
        picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _limits(suite: Suite) -> list[str]:
    items = [
        "Scale: the data set, the trunk and the budget are many times smaller than the paper's. An order of tasks "
        "found here need not hold there.",
        "Other data: the intervals are over seeds on one train and test split, and do not cover other images.",
        "Tuning: one optimizer setting serves all task sets and depths; each might do better with its own.",
        "Equal time: task sets are compared at an equal budget as configured, not at equal seconds.",
    ]
    if not {"detection", "depth", "fine_tune"} & set(suite.kinds.values()):
        items.insert(
            0,
            "Transfer with fine-tuning: frozen trunks are evaluated, not detection or depth, the paper's other two.",
        )
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


def _results(status: SuiteStatus) -> dict[str, Any]:
    """Return the numbers of the page for other programs, and for committing."""
    every = status
    status = at_full_budget(status)
    metrics = metrics_of(status)
    cells: list[Mapping[str, Any]] = [
        {
            "task_set": cell.cell.task_set.name,
            "tasks": list(cell.cell.task_set.tasks),
            "depth": cell.cell.depth,
            "seed": cell.cell.seed,
            "variant": cell.cell.variant,
            "percent": cell.cell.percent,
            "axes": dict(cell.cell.axes),
            "state": cell.state,
            "seconds": round(cell.spent_s, 1),
            "results": {kind: record.results for kind, record in cell.records.items()},
        }
        for cell in every.cells
    ]
    verdicts = {f"{one.evaluation}.{one.name}": [item.sentence for item in compare(status, one)] for one in metrics}
    return {"suite": status.name, "num_finished": status.num_finished, "num_stages": status.num_stages} | {
        "verdicts": verdicts,
        "cells": cells,
    }
