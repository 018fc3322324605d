"""Rows of a suite beside those of the paper: which are the same row, and which must not become one number."""

from pathlib import Path
from typing import Any

from benchmarks.results.record import Record, environment
from benchmarks.results.report.paper_tables import ALL, ShownTable, shown_tables
from benchmarks.suite.stages import Cell, Stage, TaskSet
from benchmarks.suite.status import CellStatus, SuiteStatus

ENVIRONMENT = environment()


def made_cell(tasks: tuple[str, ...], seed: int, results: dict[str, float], **changes: Any) -> CellStatus:
    """One finished cell at depth 10, judged by a linear probe (`kind`: another evaluation)."""
    kind, lasso = changes.pop("kind", "linear_probe"), changes.pop("lasso", False)
    config = {"pipeline": {"harmonize": changes.pop("harmonize", "off")}, "lasso": changes.pop("pretrain_lasso", None)}
    task_set = TaskSet(name=" + ".join(tasks) or "random weights", tasks=tasks, role="single")
    pretrain, judged = (Stage(kind=one, label="", key=one, config=config, inputs={}) for one in ("pretrain", kind))
    record = Record(
        kind=kind,
        key=kind,
        label="made",
        date="2026-01-02T03:04:05Z",
        seconds=1.0,
        environment=ENVIRONMENT,
        config={"options": {"lasso": lasso}},
        inputs={"trunk": "made"},
        results=results,
    )
    cell = Cell(task_set=task_set, depth=10, seed=seed, pretrain=pretrain, evaluations={kind: judged}, **changes)
    return CellStatus(cell=cell, state="finished", records={kind: record}, error="", left_s=0.0)


def tables_of(cells: list[CellStatus]) -> dict[int, ShownTable]:
    status = SuiteStatus(
        name="made-up",
        out=Path(),
        cells=tuple(cells),
        num_stages=1,
        num_finished=1,
        num_failed=0,
        spent_s=0.0,
        left_s=0.0,
        metrics={},
    )
    return {table.number: table for table in shown_tables(status, [10])}


def told(table: ShownTable, column: int = 0) -> dict[str, tuple[float, int]]:
    """Return mean and number of seeds by row, of those that have some."""
    summaries = {row.name: row.ours[column][0] for row in table.rows}
    return {name: (one.mean, one.num_seeds) for name, one in summaries.items() if one is not None}


def test_cells_of_two_widths_stay_apart() -> None:
    """The order of rows is the paper's at one width and the reverse at the other; random weights have no width."""
    means = {("relative_position", 0.25): 20.0, ("colorization", 0.25): 30.0}
    means |= {("relative_position", 0.5): 60.0, ("colorization", 0.5): 50.0}
    cells = [
        made_cell((task,), seed, {"top1_pct": mean + seed}, axes={"pretrain.trunk.width": width})
        for (task, width), mean in means.items()
        for seed in (0, 1, 2)
    ]
    table = tables_of([*cells, made_cell((), 0, {"top1_pct": 10.0})])[1]
    assert told(table) == {
        "random weights": (10.0, 1),
        "relative position (width 0.25)": (21.0, 3),
        "relative position (width 0.5)": (61.0, 3),
        "colorization (width 0.25)": (31.0, 3),
        "colorization (width 0.5)": (51.0, 3),
    }
    # The paper has no top-1 of random weights, so that each width has one pair.
    assert table.agreement[0] == "1 of 2"


def test_harmonized_rows_are_apart_by_themselves() -> None:
    cells = [
        made_cell((task,), 0, {"top5_pct": mean}, axes={"pretrain.pipeline.harmonize": on}, harmonize=on)
        for task, on, mean in (("relative_position", "off", 20.0), ("relative_position", "paper", 30.0))
    ]
    table = tables_of(cells)[3]
    assert told(table) == {"relative position": (20.0, 1), "relative position, harmonized": (30.0, 1)}
    assert table.agreement[0] == "1 of 1"


def test_a_seed_counts_once_in_variants_that_share_a_pretraining() -> None:
    cells = [made_cell(ALL, seed, {"top5_pct": 40.0 + seed}, variant="plain") for seed in (0, 1)]
    both = {"top5_pct": 40.5, "top5_lasso_pct": 45.0}
    cells += [made_cell(ALL, seed, both, variant="mixed", lasso=True) for seed in (0, 1)]
    assert told(tables_of(cells)[4]) == {"no lasso": (40.5, 2), "lasso in evaluation": (45.0, 2)}
    # Without the plain variant, the plain probe that stands beside the lasso is the row without a lasso.
    assert told(tables_of(cells[2:])[4]) == {"no lasso": (40.5, 2), "lasso in evaluation": (45.0, 2)}


def test_a_detector_with_a_lasso_is_never_the_row_without() -> None:
    found = {"ap50_11_point_pct": 12.0}
    cells = [made_cell(ALL, 0, found, kind="detection", lasso=True)]
    cells += [made_cell(ALL, 0, found, kind="detection", lasso=True, pretrain_lasso={"l1": 1.0})]
    assert told(tables_of(cells)[4], column=1) == {"lasso in evaluation": (12.0, 1), "lasso in both": (12.0, 1)}
