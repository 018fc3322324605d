"""One entry per cell: state, results, configuration, records and small curves. What a table of means cannot show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from benchmarks.results.charts.accuracy import tflop_text
from benchmarks.results.charts.curves import Curve, thinned
from benchmarks.results.report.learning import RunLogs
from benchmarks.results.report.view import evaluation_title
from benchmarks.suite.stages import Stage
from benchmarks.suite.status import CellStatus, SuiteStatus, duration

__all__ = ["COST_COLUMNS", "CellEntry", "Spark", "cell_entries", "cost_rows"]

COST_COLUMNS = ["cell", "state", "TFLOP", "steps", "samples", "pretraining", "evaluation", "trunk, million weights"]
SPARK_POINTS = 60
WIDTH, HEIGHT = 160, 40
# PyYAML in C is ten times as fast, and a hundred cells have a hundred configurations.
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spark:
    """A loss curve of one task without axes: `points` of an SVG polyline in a box of `WIDTH` x `HEIGHT`."""

    task: str
    points: str
    first: float
    last: float
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEntry:
    """One cell. `stages`: name, folder, date, duration and commit of each; `results`: name and value, as text."""

    label: str
    anchor: str
    state: str
    error: str
    main: str
    results: list[tuple[str, str]]
    stages: list[tuple[str, ...]]
    sparks: list[Spark]
    shortcuts: list[tuple[str, ...]]
    config: str


def cell_entries(status: SuiteStatus, logs: RunLogs, shortcuts: Sequence[tuple[str, ...]]) -> list[CellEntry]:
    """Return the entries in the order of the suite. shortcuts: rows of all cells, the cell first."""
    by_cell: dict[str, list[tuple[str, ...]]] = {}
    for label, *row in shortcuts:
        by_cell.setdefault(label, []).append(tuple(row))
    return [_entry(status, cell, index, logs, by_cell) for index, cell in enumerate(status.cells)]


def cost_rows(status: SuiteStatus) -> list[tuple[str, ...]]:
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
                tflop_text(results["compute_tflop"]) if "compute_tflop" in results else "",
                f"{results['num_steps']:,}" if "num_steps" in results else "",
                f"{samples:,}" if pretrain else "",
                duration(pretrain.seconds) if pretrain else "",
                duration(evaluation_s) if cell.records else "",
                f"{results['num_trunk_parameters'] / 1e6:.2f}" if "num_trunk_parameters" in results else "",
            )
        )
    return rows


def _entry(
    status: SuiteStatus,
    cell: CellStatus,
    index: int,
    logs: RunLogs,
    shortcuts: Mapping[str, list[tuple[str, ...]]],
) -> CellEntry:
    results = [
        (f"{evaluation_title(name)}: {key.replace('_', ' ')}", _text(value))
        for name, record in cell.records.items()
        if name != "pretrain"
        for key, value in record.results.items()
        if isinstance(value, int | float | str)
    ]
    known = [
        (name, cell.records[name].results.get(metric))
        for name, metric in status.metrics.items()
        if name in cell.records
    ]
    main = [f"{evaluation_title(name)} {value:.1f} %" for name, value in known if isinstance(value, float)]
    sparks = [spark for task, curve in logs.curves(cell).items() if (spark := _spark(task, curve))]
    return CellEntry(
        label=cell.cell.label,
        anchor=f"cell-{index}",
        state=cell.state,
        error=cell.error,
        main=", ".join(main),
        results=results,
        stages=[_stage(name, stage, cell, status) for name, stage in _named(cell).items()],
        sparks=sparks,
        shortcuts=shortcuts.get(cell.cell.label, []),
        config=_config(cell),
    )


def _named(cell: CellStatus) -> dict[str, Stage]:
    first = {} if cell.cell.pretrain is None else {"pretrain": cell.cell.pretrain}
    return first | dict(cell.cell.evaluations)


def _stage(name: str, stage: Stage, cell: CellStatus, status: SuiteStatus) -> tuple[str, ...]:
    folder = f"stages/{stage.folder_name}"
    record = cell.records.get(name)
    if record is None:
        return (evaluation_title(name), folder, "not finished", "", "")
    place = record.environment
    commit = f"{place.commit[:12]}{' and changes' if place.is_dirty else ''}"
    return (evaluation_title(name), folder, record.date, duration(record.seconds), commit)


def _config(cell: CellStatus) -> str:
    """Return the configuration of all stages as YAML, without the shared features: no result depends on them."""
    whole = {
        name: {key: value for key, value in stage.config.items() if key != "shared_features"}
        for name, stage in _named(cell).items()
    }
    text: str = yaml.dump(whole, Dumper=Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    return text


def _spark(task: str, curve: Curve) -> Spark | None:
    steps, losses = thinned(curve.steps, curve.losses, SPARK_POINTS)
    if len(steps) < 2:
        return None
    low, high = min(losses), max(losses)
    across, up = steps[-1] - steps[0] or 1, high - low or 1.0
    points = " ".join(
        f"{WIDTH * (step - steps[0]) / across:.0f},{2 + (HEIGHT - 4) * (high - loss) / up:.1f}"
        for step, loss in zip(steps, losses, strict=True)
    )
    return Spark(
        task=task.replace("_", " "), points=points, first=curve.losses[0], last=curve.losses[-1], num_steps=steps[-1]
    )


def _text(value: float | str) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
