"""What the pretext tasks learned: loss curves, held-out metrics beside blind predictions, lasso weights, shortcuts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results.charts.curves import Curve
from benchmarks.suite.stages import Stage
from benchmarks.suite.status import CellStatus, SuiteStatus
from training.journal import LOG_NAME, read_log

__all__ = [
    "LEARNED_COLUMNS",
    "SHORTCUTS_NAME",
    "SHORTCUT_COLUMNS",
    "RunLogs",
    "lasso_rows",
    "learned_rows",
    "shortcut_rows",
]

SHORTCUTS_NAME = "shortcuts.json"
"""File in the folder of a run that `fourfold shortcuts RUN` writes."""
LEARNED_COLUMNS = ["cell", "task", "metric", "passes", "training", "held-out", "constant", "place only"]
SHORTCUT_COLUMNS = ["cell", "task", "sees", "metric", "chance", "value", "95 % interval", "kept", "verdict"]


@dataclass(slots=True, kw_only=True)
class RunLogs:
    """Logs of the pretrainings of a suite folder, each read once."""

    out: Path
    _read: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def of(self, stage: Stage | None) -> list[dict[str, Any]]:
        """Return the lines of a run's log; [] without one."""
        if stage is None:
            return []
        if stage.key not in self._read:
            self._read[stage.key] = read_log(stage.folder(self.out) / LOG_NAME)
        return self._read[stage.key]

    def curves(self, cell: CellStatus) -> dict[str, Curve]:
        """Return the losses of a cell by task."""
        lines = self.of(cell.cell.pretrain)
        found: dict[str, Curve] = {}
        for task in dict.fromkeys(task for line in lines for task in line.get("losses", {})):
            trained = [(line["step"], line["losses"][task]) for line in lines if task in line.get("losses", {})]
            held = [
                (line["step"], line["held_out"][task]["model"]["loss"])
                for line in lines
                if task in line.get("held_out", {})
            ]
            found[task] = Curve(
                cell=cell.cell.label,
                group=cell.cell.row,
                steps=tuple(step for step, _ in trained),
                losses=tuple(loss for _, loss in trained),
                held_out_steps=tuple(step for step, _ in held),
                held_out=tuple(loss for _, loss in held),
            )
        return found


def learned_rows(status: SuiteStatus) -> list[tuple[str, ...]]:
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


def lasso_rows(status: SuiteStatus, logs: RunLogs) -> list[tuple[str, str, list[float]]]:
    """Return cell, what mixes the units (a task's head, or an evaluation), and its weight of each unit of stage 3."""
    rows = []
    for cell in status.cells:
        lines = logs.of(cell.cell.pretrain)
        for task, weights in ((lines[-1].get("lasso") or {}) if lines else {}).items():
            rows.append((cell.cell.label, task.replace("_", " "), list(weights)))
        for name, record in cell.records.items():
            if mix := record.results.get("lasso_mix"):
                rows.append((cell.cell.label, name.replace("_", " "), list(mix)))
    return rows


def shortcut_rows(status: SuiteStatus, out: Path) -> list[tuple[str, ...]]:
    """Return the shortcuts measured on the trained models of this suite, where their runs have a file of them."""
    rows: list[tuple[str, ...]] = []
    for cell in status.cells:
        path = cell.cell.pretrain.folder(out) / SHORTCUTS_NAME if cell.cell.pretrain else None
        if path is None or not path.is_file():
            continue
        for one in _findings(path):
            rows.append(
                (
                    cell.cell.label,
                    one["task"].replace("_", " "),
                    one["sees"],
                    one["metric"].replace("_", " "),
                    f"{one['chance']:.3f}",
                    f"{one['value']:.3f}",
                    f"{one['ci95_low']:.3f} to {one['ci95_high']:.3f}",
                    "" if one.get("kept") is None else f"{100 * one['kept']:.0f} %",
                    one["verdict"],
                )
            )
    return rows


def _findings(path: Path) -> list[dict[str, Any]]:
    """Return what a file of shortcuts holds; [] of a damaged one, which must not cost the report."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["findings"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []
