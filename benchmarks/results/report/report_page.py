"""The report's page: verdict first, then the table of the paper's layout, curves, cost, and what was not measured.

Partial results are normal: a section without finished cells says so.
"""

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.results.record import environment, write_json, write_text
from benchmarks.results.report import charts
from benchmarks.results.report.collect import (
    Metric,
    compare,
    depths_of,
    floor_of,
    headline,
    metrics_of,
    summary_at,
    task_sets_of,
    values_of,
)
from benchmarks.results.report.paper import PAPER_ROWS
from benchmarks.results.statistics import Summary
from benchmarks.suite.run_suite import suite_status
from benchmarks.suite.status import SuiteStatus, duration
from benchmarks.suite.suite_config import Suite
from training.journal import LOG_NAME, read_log

__all__ = ["write_report"]

REPORT_NAME, PREVIEW_NAME, RESULTS_NAME = "report.html", "preview.png", "results.json"
MAX_CURVE_POINTS = 400


def write_report(suite: Suite, out: Path) -> Path:
    """Write OUT/report.html, and OUT/results.json with the same numbers, from what is finished so far.

    Raises UsageError or DataError where the suite's shards are missing.
    """
    status = suite_status(suite, out)
    out.mkdir(parents=True, exist_ok=True)
    metrics = metrics_of(status)
    sections = [
        _section("Verdict", _verdict(status, metrics)),
        _section("Accuracy", _tables(status, metrics)),
        _section("Accuracy by depth", _depth_charts(status, metrics)),
        _section("Comparisons", _comparisons(status, metrics)),
        _section("Compute", _compute(status)),
        _section("Training losses", _losses(status, out)),
        _section("Lasso weights", _lasso(status, out)),
        _section("What the tasks see", _preview(suite, out)),
        _section("What is not measured", _limits(suite)),
        _section("Environment and reproduction", _environment(suite, status)),
    ]
    path = out / REPORT_NAME
    write_text(path, _page(suite, status, "\n".join(section for section in sections if section)))
    write_json(out / RESULTS_NAME, _results(status, metrics))
    return path


def _page(suite: Suite, status: SuiteStatus, body: str) -> str:
    style = resources.files("benchmarks.results.report").joinpath("style.css").read_text(encoding="utf-8")
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    failed = f", <b>{status.num_failed} failed</b>" if status.num_failed else ""
    state = f"{status.num_finished} of {status.num_stages} stages finished{failed} · {when}"
    title = escape(suite.config.name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>fourfold: {title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style>'
        f"{charts.plotly_script()}</head><body><main><header><h1>{title}</h1><p>{state}</p></header>{body}</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _verdict(status: SuiteStatus, metrics: list[Metric]) -> str:
    if not metrics:
        return "<p>No evaluation has finished yet.</p>" + _failures(status)
    lines = [f'<p class="verdict">{escape(line)}</p>' for line in headline(status, metrics[0])]
    floor = floor_of(status, metrics[0])
    if floor is not None:
        lines.append(f"<p>Ridge regression on tiny images, with no trunk at all, reaches {floor:.1f} %.</p>")
    note = (
        f"<p class='note'>Linear probe on frozen trunks, {escape(metrics[0].title)}. ± is half a 95 % Student t "
        "interval of differences paired by seed. Over several depths every (depth, seed) counts as a pair; they are "
        "not fully independent, so that interval is somewhat too narrow. “Best single” is chosen after seeing the "
        "results, which favours the single task.</p>"
    )
    return "".join(lines or ["<p>Nothing to compare yet.</p>"]) + note + _failures(status)


def _failures(status: SuiteStatus) -> str:
    rows = [(label, error) for label, error in status.failures.items()]
    return f"<h3>Failed cells</h3>{_table(['cell', 'error'], rows)}" if rows else ""


def _tables(status: SuiteStatus, metrics: list[Metric]) -> str:
    shown = [metric for metric in metrics if not metric.name.startswith("top5") or metric.name == "top5_pct"]
    return "".join(f"<h3>{escape(metric.title)}</h3>{_metric_table(status, metric)}" for metric in shown)


def _metric_table(status: SuiteStatus, metric: Metric) -> str:
    """Rows and order of the paper's Table 2; the paper's numbers stand apart, where they measure the same."""
    depths, values = depths_of(status), values_of(status, metric)
    has_paper = not metric.name.endswith("_labels_pct")
    best = {depth: _best(values, depth) for depth in depths}
    rows = []
    for name, task_set in task_sets_of(status).items():
        cells = []
        for depth in depths:
            summary = summary_at(values[name], depth)
            is_best = summary is not None and summary.mean == best[depth]
            cells.append(f'<td class="{"best" if is_best else ""}">{_shown(summary)}</td>')
        cells += _paper_cells(frozenset(task_set.tasks)) if has_paper else []
        rows.append(f'<tr class="{task_set.role}"><th>{escape(name)}</th>{"".join(cells)}</tr>')
    floor = floor_of(status, metric)
    if floor is not None:
        empty = '<td class="paper"></td>' * (2 if has_paper else 0)
        rows.append(
            f'<tr class="baseline"><th>pixel floor</th><td colspan="{len(depths)}">{floor:.1f}</td>{empty}</tr>'
        )
    note = (
        "<p class='note'>The paper's columns are another data set (1,000 classes), network and scale: compare the "
        "order of rows, never the numbers.</p>"
    )
    head = _metric_head(depths, has_paper)
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>{note if has_paper else ''}"


def _metric_head(depths: Sequence[int], has_paper: bool) -> str:
    ours = "".join(f"<th>depth {depth}</th>" for depth in depths)
    above = '<th colspan="2" class="paper">paper: ImageNet, ResNet-101, one run</th>' if has_paper else ""
    below = '<th class="paper">top-5</th><th class="paper">top-1</th>' if has_paper else ""
    return (
        f'<tr><th rowspan="2">pretraining</th><th colspan="{len(depths)}">here, % right, mean ± sd (seeds)</th>'
        f"{above}</tr><tr>{ours}{below}</tr>"
    )


def _paper_cells(tasks: frozenset[str]) -> list[str]:
    row = PAPER_ROWS.get(tasks)
    numbers = [None, None] if row is None else [row.top5_pct, row.top1_pct]
    return [f'<td class="paper">{"–" if number is None else f"{number:.1f}"}</td>' for number in numbers]


def _best(values: Mapping[str, Mapping[tuple[int, int], float]], depth: int) -> float | None:
    """Highest mean of the task sets, the supervised baseline left out."""
    means = [found.mean for name, row in values.items() if name != "supervised" and (found := summary_at(row, depth))]
    return max(means, default=None)


def _shown(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    spread = f" ± {summary.sd:.1f}" if summary.has_interval else ""
    return f"{summary.mean:.1f}{spread} <small>({summary.num_seeds})</small>"


def _depth_charts(status: SuiteStatus, metrics: list[Metric]) -> str:
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
        title = f"{metric.title}: mean, one sd over seeds, and every seed"
        fragments.append(charts.accuracy_by_depth(values, summaries, roles, title, floor_of(status, metric)))
    return "".join(fragments)


def _comparisons(status: SuiteStatus, metrics: list[Metric]) -> str:
    parts = []
    for metric in [one for one in metrics if one.name.startswith("top1")]:
        rows = [
            ("all" if one.depth is None else str(one.depth), one.role, one.sentence) for one in compare(status, metric)
        ]
        if rows:
            table = _table(["depth", "against", "verdict"], rows)
            parts.append(
                f"<details><summary>{escape(metric.title)}: {len(rows)} comparisons</summary>{table}</details>"
            )
    return "".join(parts)


def _compute(status: SuiteStatus) -> str:
    rows = []
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
    head = ["cell", "state", "TFLOP", "steps", "samples", "pretraining", "evaluation", "trunk, M parameters"]
    total = (
        f"<p>{duration(status.spent_s)} in all. Compute is forward and backward, summed over the tasks of a cell.</p>"
    )
    return total + f"<details><summary>{len(rows)} cells</summary>{_table(head, rows)}</details>"


def _losses(status: SuiteStatus, out: Path) -> str:
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for cell in status.cells:
        stage = cell.cell.pretrain
        lines = read_log(stage.folder(out) / LOG_NAME) if stage else []
        for line in lines[:: max(1, len(lines) // MAX_CURVE_POINTS)]:
            for task, loss in line.get("losses", {}).items():
                steps, losses = curves.setdefault(task, {}).setdefault(cell.cell.label, ([], []))
                steps.append(line["step"])
                losses.append(loss)
    return charts.loss_curves(curves, "loss by step; the same task in different cells") if curves else ""


def _lasso(status: SuiteStatus, out: Path) -> str:
    rows: dict[str, list[float]] = {}
    for cell in status.cells:
        if cell.cell.pretrain and (lines := read_log(cell.cell.pretrain.folder(out) / LOG_NAME)):
            for task, weights in (lines[-1].get("lasso") or {}).items():
                rows[f"{cell.cell.label}: {task}"] = list(weights)
        for kind, record in cell.records.items():
            if mix := record.results.get("lasso_mix"):
                rows[f"{cell.cell.label}: {kind}"] = list(mix)
    return charts.lasso_picture(rows, "size of the lasso weights, by unit of stage 3") if rows else ""


def _preview(suite: Suite, out: Path) -> str:
    """The contact sheet, made once per suite folder. Whatever is wrong with it must not cost the report."""
    path = out / PREVIEW_NAME
    folder = suite.config.images or suite.config.clips
    if not path.is_file() and folder is not None:
        try:
            from pipelines.preview.task_sheet import write_sheet

            write_sheet(folder, path, clips=suite.config.clips)
        except Exception as error:
            return f"<p class='note'>No preview: {escape(f'{type(error).__name__}: {error}')}</p>"
    if not path.is_file():
        return ""
    picture = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="Inputs and targets of every task" src="data:image/png;base64,{picture}">'


def _limits(suite: Suite) -> str:
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
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _environment(suite: Suite, status: SuiteStatus) -> str:
    records = [record for cell in status.cells for record in cell.records.values()]
    places = {str(record.environment): record.environment for record in records} or {"now": environment()}
    parts = []
    for place in places.values():
        rows = [
            ("commit", f"{place.commit}{' with uncommitted changes' if place.is_dirty else ''}"),
            ("machine", f"{place.machine}; {place.cpu_name}, {place.num_cores} cores; GPU: {place.gpu_name}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in place.versions.items())),
        ]
        parts.append(_table(["", ""], rows))
    more = f"<p>The records come from {len(places)} environments.</p>" if len(places) > 1 else ""
    command = ["fourfold", "bench", "run", suite.source, "--out", str(status.out)]
    command += [part for override in suite.overrides for part in ("--set", override)]
    return f"<p>To reproduce:</p><pre>{escape(shlex.join(command))}</pre>{more}{''.join(parts)}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table class='plain'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _results(status: SuiteStatus, metrics: list[Metric]) -> dict[str, Any]:
    """The numbers of the page for other programs, and for committing."""
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
