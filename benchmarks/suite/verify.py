"""Re-run one cell of recorded results, and check that its numbers lie in the interval that a re-run may differ by.

The interval is around the recorded number: what two runs that differ by nothing but their seed differ by, 95 % of the
time. Its spread is that over seeds, pooled over all task sets and depths, with the cell itself left out: a wrong number
must not widen the interval that it is judged by. Where nothing else has two seeds, it is the test set's sampling error.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.content import split_content
from benchmarks.results.record import Record
from benchmarks.results.records.load import load_records
from benchmarks.results.statistics import half_width_of_test_set
from benchmarks.suite.run_suite import run_stage
from benchmarks.suite.stages import Stage
from pipelines.base.errors import DataError, FourfoldError, UsageError
from pipelines.shards.format.manifest import Kind

__all__ = ["Verified", "allowed_difference", "cells_of", "verify_cell"]

LEVEL = 0.975
MAX_SHOWN = 6
Runner = Callable[[Stage, Path], Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One number again. `allowed`: the difference that seeds make; `reason`: where it comes from."""

    evaluation: str
    metric: str
    recorded: float
    rerun: float
    allowed: float
    reason: str

    @property
    def difference(self) -> float:
        return self.rerun - self.recorded

    @property
    def is_inside(self) -> bool:
        return abs(self.difference) <= self.allowed


def cells_of(records: Iterable[Record]) -> list[str]:
    """Return the labels of the cells that can be run again: those with an evaluation and its pretraining."""
    records = list(records)
    trunks = {one.key for one in records if one.kind == "pretrain"}
    return list(dict.fromkeys(one.label for one in _evaluations(records) if one.inputs.get("trunk") in trunks))


def verify_cell(
    path: Path,
    cell: str,
    out: Path,
    *,
    images: Path | None = None,
    clips: Path | None = None,
    runner: Runner | None = None,
) -> list[Verified]:
    """Run a cell's pretraining and evaluations again in `out`, and compare every main result with the recorded one.

    images, clips: where the data lies now, if not where the record says. Raises UsageError for a cell that is not
    there, DataError where the data is no longer that of the record.
    """
    records = load_records(path)
    known = cells_of(records)
    if cell not in known:
        near = difflib.get_close_matches(cell, known, n=MAX_SHOWN, cutoff=0.0)
        shown = "; ".join(near) + (f"; {len(known)} in all" if len(known) > len(near) else "")
        raise UsageError(f"--cell {cell!r}: no cell of {path} that can be run again. Nearest: {shown or 'none'}.")
    # 1. All checks of the data before the first training step.
    trunks = {one.key: one for one in records if one.kind == "pretrain"}
    chosen = [one for one in _evaluations(records) if one.label == cell and one.inputs.get("trunk") in trunks]
    trunk = _stage(trunks[chosen[0].inputs["trunk"]], images, clips)
    stages = [_stage(one, images, clips, needs=(trunk,)) for one in chosen]
    for stage in (trunk, *stages):
        _check_data(stage)
    # 2. The same stages, in a folder of their own: the recorded ones stay as they are.
    for stage in (trunk, *stages):
        # What an earlier check left would be compared with itself.
        if stage.folder(out).exists():
            raise UsageError(f"--out {out}: {stage.folder_name} is there already. Give a folder that is empty.")
    run = runner or (lambda stage, folder: run_stage(stage, out=folder))
    run(trunk, out)
    found = []
    for record, stage in zip(chosen, stages, strict=True):
        again, metric = run(stage, out), EVALUATIONS[record.kind].metric
        allowed, reason = allowed_difference(records, record, metric)
        found.append(
            Verified(
                evaluation=record.kind,
                metric=metric,
                recorded=float(record.results[metric]),
                rerun=float(again.results[metric]),
                allowed=allowed,
                reason=reason,
            )
        )
    return found


def allowed_difference(records: Sequence[Record], record: Record, metric: str) -> tuple[float, str]:
    """Return half the 95 % interval of the difference of two runs, and where its spread comes from."""
    groups: dict[str, list[float]] = {}
    for one in _evaluations(records):
        if one.kind == record.kind and one.key != record.key and isinstance(one.results.get(metric), int | float):
            name = f"{_without_seed(one)} {one.config.get('options')}"
            groups.setdefault(name, []).append(float(one.results[metric]))
    spread = [np.asarray(values) - np.mean(values) for values in groups.values() if len(values) > 1]
    degrees = sum(len(values) - 1 for values in spread)
    if degrees:
        sd = math.sqrt(sum(float((values**2).sum()) for values in spread) / degrees)
        half = float(special.stdtrit(degrees, LEVEL)) * sd * math.sqrt(2)
        return half, f"spread over seeds, {degrees} degrees of freedom"
    count = record.results.get("num_test")
    if not isinstance(count, int):
        raise UsageError(
            f"{record.label}: the record has neither a second seed of any cell nor num_test, so nothing says by how "
            "much a re-run may differ."
        )
    half = math.sqrt(2) * half_width_of_test_set(float(record.results[metric]), count)
    return half, f"sampling of {count:,} test images, as no cell has two seeds"


def _evaluations(records: Iterable[Record]) -> list[Record]:
    return [one for one in records if one.kind in EVALUATIONS and EVALUATIONS[one.kind].needs_trunk]


def _without_seed(record: Record) -> str:
    """Return the name of a cell without its seed, so that seeds of one kind form a group."""
    return ", ".join(part for part in record.label.split(", ") if not part.startswith("seed "))


def _stage(record: Record, images: Path | None, clips: Path | None, needs: tuple[Stage, ...] = ()) -> Stage:
    config: dict[str, Any] = dict(record.config)
    config.pop("shared_features", None)
    if record.kind == "pretrain":
        pipeline = dict(config.get("pipeline") or {})
        given = {"images": images, "clips": clips}
        pipeline |= {name: str(place) for name, place in given.items() if place is not None and pipeline.get(name)}
        config["pipeline"] = pipeline
    elif images is not None and "images" in config:
        config["images"] = str(images)
    return Stage(kind=record.kind, label=record.label, key=record.key, config=config, inputs=record.inputs, needs=needs)


def _check_data(stage: Stage) -> None:
    """Raise DataError where a stage's shards are missing, or are not those that the record was made from."""
    pipeline = stage.config.get("pipeline") or {}
    places: list[tuple[str, Any, Kind, str]] = [
        ("images", pipeline.get("images"), "image", pipeline.get("split", "train")),
        ("clips", pipeline.get("clips"), "clip", pipeline.get("split", "train")),
    ]
    for name in ("train_split", "test_split"):
        if (split := stage.config.get(name)) is not None:
            places.append((f"images_{split}", stage.config.get("images"), "image", split))
    for name, folder, kind, split in places:
        if folder is None or name not in stage.inputs:
            continue
        try:
            now = split_content(Path(folder), kind, split)
        except FourfoldError as error:
            raise DataError(f"{stage.label}: {error} Give --images or --clips if the shards have moved.") from error
        if now != stage.inputs[name]:
            raise DataError(
                f"{folder}: its {kind}s of split {split} are not those of the record ({now[:12]}, recorded "
                f"{stage.inputs[name][:12]}). Give the shards that {stage.label} was made from."
            )
