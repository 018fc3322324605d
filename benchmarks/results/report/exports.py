"""A suite's results for other programs and for papers: CSV, LaTeX, Markdown, and the charts as SVG, PNG or PDF."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.results.charts.figure import Chart
from benchmarks.results.record import write_text
from benchmarks.results.report.accuracy_tables import AccuracyTable, accuracy_table, shown_metrics
from benchmarks.results.report.collect import Metric, depths_of, metrics_of
from benchmarks.results.report.learning import RunLogs
from benchmarks.results.report.page_charts import (
    charted_metrics,
    compute_chart,
    depth_chart,
    learning_curve,
    loss_charts,
    set_chart,
)
from benchmarks.results.report.trunk_similarity import similarities_of, similarity_chart
from benchmarks.results.report.view import at_full_budget, full_view
from benchmarks.results.statistics import Summary
from benchmarks.suite.status import SuiteStatus
from pipelines.base.errors import UsageError

__all__ = ["FORMATS", "export", "formats_of"]

CHART_FORMATS = ("svg", "png", "pdf")
PLACE_COLUMNS = ("row", "task_set", "tasks", "depth", "seed", "variant", "axes", "percent", "state")
CSV_COLUMNS = (*PLACE_COLUMNS, "evaluation", "result", "value")
MEANING = (
    "Mean over seeds, ± half of the two-sided 95 % interval (Student's t); in brackets the number of seeds. "
    "SE of the test set: standard error in points over draws of the test images, the largest over the depths."
)
TEST_ERROR = "SE of the test set"
ESCAPED = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def formats_of(text: str) -> list[str]:
    """Return the formats of a list such as "csv,latex". Raises UsageError for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        given = ", ".join(unknown) or "nothing"
        allowed = ", ".join(FORMATS)
        raise UsageError(f"--export {text!r}: {given} is no format. Allowed, separated by commas: {allowed}.")
    return names


def export(status: SuiteStatus, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write each format into a folder and return the paths of the files."""
    every = full_view(status)
    return [path for name in formats for path in FORMATS[name](every, folder)]


def _csv(every: SuiteStatus, folder: Path) -> list[Path]:
    """Write a line per cell, evaluation and number: the form that pandas and R read."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(CSV_COLUMNS)
    for one in every.cells:
        cell = one.cell
        place = [cell.row, cell.task_set.name, " ".join(cell.task_set.tasks), cell.depth, cell.seed, cell.variant]
        place += [" ".join(f"{key}={value}" for key, value in cell.axes.items()), f"{cell.percent:g}", one.state]
        numbers = [
            (name, key, repr(value))
            for name, record in one.records.items()
            for key, value in record.results.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        # A cell without a result stands there too: what is missing must not look as if it had never been planned.
        for number in numbers or [("", "", "")]:
            lines.writerow(["" if value is None else value for value in (*place, *number)])
    return [_written(folder / "results.csv", text.getvalue())]


def _latex(every: SuiteStatus, folder: Path) -> list[Path]:
    status = at_full_budget(every)
    depths = depths_of(status)
    num_columns = max(1, len(depths))
    parts = [f"% {MEANING} Needs the package booktabs."]
    for table in _tables(status):
        head = " & ".join(["pretraining", *(f"depth {depth}" for depth in depths), *_last(table, TEST_ERROR)])
        rows = [
            [_for_latex(row.name), *(_latex_number(*one) for one in row.cells), *_last(table, _points(row.test_error))]
            for row in table.rows
        ]
        rows += [
            [
                _for_latex(name),
                rf"\multicolumn{{{num_columns}}}{{r}}{{{value:.1f}}}",
                *_last(table, _points(test_error)),
            ]
            for name, (value, test_error) in table.references.items()
        ]
        parts += [
            f"% {table.title}",
            rf"\begin{{tabular}}{{l{'r' * num_columns}{''.join(_last(table, 'r'))}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *(" & ".join(row).replace("–", "--") + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    return [_written(folder / "tables.tex", "\n".join(parts) + "\n")]


def _markdown(every: SuiteStatus, folder: Path) -> list[Path]:
    status = at_full_budget(every)
    depths, parts = depths_of(status), []
    for table in _tables(status):
        parts += [f"**{table.title}, %**", ""]
        rows = [["pretraining", *(f"depth {depth}" for depth in depths), *_last(table, TEST_ERROR)]]
        rows += [["---", *["---:"] * (len(rows[0]) - 1)]]
        for row in table.rows:
            numbers = [f"**{_number(one)}**" if is_best else _number(one) for one, is_best in row.cells]
            rows.append([_for_markdown(row.name), *numbers, *_last(table, _points(row.test_error))])
        for name, (value, test_error) in table.references.items():
            numbers = [f"{value:.1f}"] * max(1, len(depths))
            rows.append([_for_markdown(name), *numbers, *_last(table, _points(test_error))])
        parts += [f"| {' | '.join(row)} |" for row in rows]
        parts.append("")
    return [_written(folder / "tables.md", "\n".join([*parts, MEANING, ""]))]


def _charts(form: str) -> Callable[[SuiteStatus, Path], list[Path]]:
    def write(every: SuiteStatus, folder: Path) -> list[Path]:
        paths = []
        for chart in _all_charts(every):
            paths.append(folder / f"{chart.slug}.{form}")
            chart.write(paths[-1])
        return paths

    return write


def _all_charts(every: SuiteStatus) -> list[Chart]:
    status = at_full_budget(every)
    found: list[Chart | None] = []
    for metric in charted_metrics(status, metrics_of(status)):
        found += [chart(status, metric) for chart in (set_chart, depth_chart, compute_chart)]
        found.append(learning_curve(every, metric))
    found += [similarity_chart(one) for one in similarities_of(status)]
    return [chart for chart in (*found, *loss_charts(status, RunLogs(out=status.out))) if chart is not None]


def _tables(status: SuiteStatus) -> list[AccuracyTable]:
    metrics: list[Metric] = shown_metrics(metrics_of(status))
    return [accuracy_table(status, metric) for metric in metrics]


def _number(one: Summary | None) -> str:
    if one is None:
        return "–"
    return f"{one.mean:.1f}{f' ± {one.half_width:.1f}' if one.has_interval else ''} ({one.num_seeds})"


def _last(table: AccuracyTable, text: str) -> list[str]:
    """Return the last column of an accuracy; other measures have none."""
    return [] if table.num_test is None else [text]


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _latex_number(one: Summary | None, is_best: bool) -> str:
    text = _number(one).replace(" ± ", r" $\pm$ ")
    return rf"\textbf{{{text}}}" if is_best else text


def _for_latex(text: str) -> str:
    return "".join(ESCAPED.get(letter, letter) for letter in text)


def _for_markdown(text: str) -> str:
    # A name must not become a column, or markup where the table is shown.
    for letter in "\\|<*_`[":
        text = text.replace(letter, f"\\{letter}")
    return text


def _written(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


FORMATS: dict[str, Callable[[SuiteStatus, Path], list[Path]]] = {
    "csv": _csv,
    "latex": _latex,
    "markdown": _markdown,
    **{form: _charts(form) for form in CHART_FORMATS},
}
"""Names for `--export`, and what writes each."""
