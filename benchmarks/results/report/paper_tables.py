"""The paper's Tables 1 to 4 beside a suite: its numbers as data, and ours where a suite has the same row.

ResNet-101, single runs. ImageNet: recall of a linear layer on frozen features, in per cent. PASCAL: mAP in per cent.
NYU: per cent of pixels within 1.25 of the true depth. A row of ours has the same tasks, harmonization and lasso.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from benchmarks.results.record import Record
from benchmarks.results.report.view import point_of
from benchmarks.results.statistics import Summary, summarize
from benchmarks.suite.stages import label_of
from benchmarks.suite.status import CellStatus, SuiteStatus

__all__ = ["COLUMNS", "PAPER_TABLES", "PaperRow", "PaperTable", "ShownRow", "ShownTable", "shown_tables"]

RP, COL, EX, MS = "relative_position", "colorization", "exemplar", "motion_segmentation"
ALL = (RP, COL, EX, MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """One row of the paper. `values`: by column; None where the paper gives none.

    `eval_lasso`: the evaluation mixes the units of stage 3 by learned weights; `pretrain_lasso`: the heads do.
    """

    name: str
    tasks: tuple[str, ...]
    values: Mapping[str, float | None]
    harmonize: bool = False
    pretrain_lasso: bool = False
    eval_lasso: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """One table of the paper, its columns in the paper's order."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]


COLUMNS = {
    "ImageNet top-1": ("linear_probe", "top1_pct"),
    "ImageNet top-5": ("linear_probe", "top5_pct"),
    "PASCAL mAP": ("detection", "ap50_11_point_pct"),
    "NYU within 1.25": ("depth", "under_1.25_pct"),
}
"""Kind of evaluation and result of ours that measures what a column of the paper measures, on other data."""
PAPER_AXES = ("harmonize", "lasso")
"""Ends of the keys in which rows of one table of the paper differ."""
THREE = ("ImageNet top-5", "PASCAL mAP", "NYU within 1.25")


def _row(
    name: str, tasks: tuple[str, ...], *values: float | None, columns: tuple[str, ...] = THREE, **how: bool
) -> PaperRow:
    return PaperRow(name=name, tasks=tasks, values=dict(zip(columns, values, strict=True)), **how)


_SINGLES = ("ImageNet top-1", *THREE)
PAPER_TABLES = (
    PaperTable(
        number=1,
        title="single tasks",
        columns=_SINGLES,
        rows=(
            _row("random weights", (), None, 10.5, 41.58, 61.00, columns=_SINGLES),
            _row("relative position", (RP,), 36.21, 59.21, 66.75, 80.54, columns=_SINGLES),
            _row("colorization", (COL,), 39.62, 62.48, 65.47, 76.79, columns=_SINGLES),
            _row("exemplar", (EX,), 31.51, 53.08, 60.94, 69.57, columns=_SINGLES),
            _row("motion segmentation", (MS,), 27.62, 48.29, 61.13, 74.24, columns=_SINGLES),
            _row("ImageNet labels", ("supervised",), 66.82, 85.10, 74.17, 80.06, columns=_SINGLES),
        ),
    ),
    PaperTable(
        number=2,
        title="combinations of tasks, at equal compute",
        columns=THREE,
        rows=(
            _row("relative position", (RP,), 59.21, 66.75, 80.54),
            _row("relative position + colorization", (RP, COL), 66.64, 68.75, 79.87),
            _row("relative position + exemplar", (RP, EX), 65.24, 69.44, 78.70),
            _row("relative position + motion segmentation", (RP, MS), 63.73, 68.81, 78.72),
            _row("relative position + colorization + exemplar", (RP, COL, EX), 68.65, 69.48, 80.17),
            _row("all four tasks", ALL, 69.30, 70.53, 79.25),
            _row("ImageNet labels", ("supervised",), 85.10, 74.17, 80.06),
        ),
    ),
    PaperTable(
        number=3,
        title="harmonization: relative position sees colorization's gray input",
        columns=THREE,
        rows=(
            _row("relative position", (RP,), 59.21, 66.75, 80.23),
            _row("relative position, harmonized", (RP,), 62.33, 66.15, 80.39, harmonize=True),
            _row("relative position + colorization", (RP, COL), 66.64, 68.75, 79.87),
            _row("relative position + colorization, harmonized", (RP, COL), 68.08, 68.26, 79.69, harmonize=True),
        ),
    ),
    PaperTable(
        number=4,
        title="lasso over the units of stage 3, all four tasks",
        columns=THREE,
        rows=(
            _row("no lasso", ALL, 69.30, 70.53, 79.25),
            _row("lasso in evaluation", ALL, 70.18, 68.86, 79.41, eval_lasso=True),
            _row("lasso in pretraining", ALL, 68.09, 68.49, 78.96, pretrain_lasso=True),
            _row("lasso in both", ALL, 69.44, 68.98, 79.45, pretrain_lasso=True, eval_lasso=True),
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """One row, by column: the paper's number, and ours at each depth (None where there is none).

    `point`: variant and axes of ours, without those that the paper's rows differ in; rows are comparable within one.
    """

    name: str
    paper: list[float | None]
    ours: list[list[Summary | None]]
    point: str = ""

    @property
    def is_known(self) -> bool:
        return any(one is not None for cells in self.ours for one in cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTable:
    """One table of the paper beside ours. `agreement`: by column, how often two rows are in the same order in both."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: list[ShownRow]
    agreement: list[str]


def shown_tables(status: SuiteStatus, depths: list[int]) -> list[ShownTable]:
    """Return the tables of which this suite has at least two rows, so that there is an order to compare.

    Where several rows of the suite are the same row of the paper, as at two widths, each stands there by itself.
    """
    found = []
    for table in PAPER_TABLES:
        by_row = [_shown_rows(status, row, table.columns, depths) for row in table.rows]
        if sum(any(one.is_known for one in rows) for rows in by_row) >= 2:
            agreement = [_agreement(by_row, index) for index in range(len(table.columns))]
            rows = [one for rows in by_row for one in rows]
            found.append(
                ShownTable(
                    number=table.number, title=table.title, columns=table.columns, rows=rows, agreement=agreement
                )
            )
    return found


def _shown_rows(status: SuiteStatus, row: PaperRow, columns: tuple[str, ...], depths: list[int]) -> list[ShownRow]:
    """Return a row for each of ours that is this one of the paper; one without numbers where there is none."""
    paper = [row.values[column] for column in columns]
    ours: dict[str, list[CellStatus]] = {}
    for cell in _cells_of(status, row, columns):
        ours.setdefault(cell.cell.row, []).append(cell)
    if not ours:
        return [ShownRow(name=row.name, paper=paper, ours=[[None] * len(depths) for _ in columns])]
    return [
        ShownRow(
            name=row.name if len(ours) == 1 else f"{row.name} ({_told(cells[0])})",
            paper=paper,
            ours=[[_ours(cells, row, column, depth) for depth in depths] for column in columns],
            point=_point(cells[0], has_variant=len(ours) > 1),
        )
        for cells in ours.values()
    ]


def _cells_of(status: SuiteStatus, row: PaperRow, columns: tuple[str, ...]) -> list[CellStatus]:
    """Return the cells with a number for a row of the paper.

    The plain result that stands beside that of a lasso counts only where no evaluation without a lasso has one:
    variants that differ in it share a pretraining, and a seed must not count twice.
    """
    known = [
        cell
        for cell in status.cells
        if _is_same(cell, row) and any(_value(cell, row, column) is not None for column in columns)
    ]
    kinds = {COLUMNS[column][0] for column in columns}
    exact = [
        cell
        for cell in known
        if all(_has_lasso(record) == row.eval_lasso for record in cell.records.values() if record.kind in kinds)
    ]
    return exact or known


def _told(cell: CellStatus) -> str:
    """Return what tells a row of ours from others of the same tasks: its name where it has options, variant, axes."""
    name = cell.cell.task_set.name if cell.cell.task_set.options else ""
    return ", ".join(part for part in (name, point_of(cell)) if part) or cell.cell.row


def _point(cell: CellStatus, *, has_variant: bool) -> str:
    axes = {key: value for key, value in cell.cell.axes.items() if not key.endswith(PAPER_AXES)}
    return label_of({"variant": cell.cell.variant if has_variant else "", **axes})


def _ours(cells: list[CellStatus], row: PaperRow, column: str, depth: int) -> Summary | None:
    values = [value for cell in cells if cell.cell.depth == depth and (value := _value(cell, row, column)) is not None]
    return summarize(values) if values else None


def _is_same(cell: CellStatus, row: PaperRow) -> bool:
    stage = cell.cell.pretrain
    if stage is None or frozenset(cell.cell.task_set.tasks) != frozenset(row.tasks):
        return False
    harmonize = stage.config.get("pipeline", {}).get("harmonize", "off")
    # Without tasks there is no input to harmonize and no head to give a lasso.
    is_harmonized = harmonize == "paper" and bool(row.tasks)
    return is_harmonized == row.harmonize and bool(stage.config.get("lasso")) == row.pretrain_lasso


def _value(cell: CellStatus, row: PaperRow, column: str) -> float | None:
    """Return our number, of the first evaluation of the column's kind that has one."""
    kind, plain = COLUMNS[column]
    for record in cell.records.values():
        if record.kind != kind:
            continue
        # The linear probe reports both, the plain one under the plain name; others with a lasso report nothing else.
        of_lasso = plain.replace("_pct", "_lasso_pct")
        has_both = of_lasso in record.results
        name = of_lasso if row.eval_lasso and has_both else plain
        value = record.results.get(name)
        if isinstance(value, float) and (has_both or _has_lasso(record) == row.eval_lasso):
            return value
    return None


def _has_lasso(record: Record) -> bool:
    options: Mapping[str, Any] = record.config.get("options") or {}
    return bool(options.get("lasso"))


def _agreement(by_row: list[list[ShownRow]], index: int) -> str:
    """Return "8 of 10": pairs of rows in the same order in the paper and in our mean over depths.

    Rows of ours are paired at one point: the same width, for example.
    """
    known = [
        [(one.point, paper, mean) for one in rows if (mean := _mean(one.ours[index])) is not None]
        for rows in by_row
        if (paper := rows[0].paper[index]) is not None
    ]
    pairs = [
        (paper > other_paper) == (mean > other_mean)
        for rows, others in combinations(known, 2)
        for point, paper, mean in rows
        for other_point, other_paper, other_mean in others
        if point == other_point or not (point and other_point)
    ]
    return f"{sum(pairs)} of {len(pairs)}" if pairs else ""


def _mean(ours: list[Summary | None]) -> float | None:
    means = [one.mean for one in ours if one is not None]
    return sum(means) / len(means) if means else None
