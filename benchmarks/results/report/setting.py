"""What a suite compares: task sets, depths, seeds, data, budget and test images, in the words of a reader."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.evaluations import EVALUATIONS
from benchmarks.results.report.collect import depths_of, task_sets_of
from benchmarks.results.report.view import evaluation_title
from benchmarks.suite.status import SuiteStatus
from benchmarks.suite.suite_config import Suite
from pipelines.base.errors import FourfoldError
from pipelines.shards.format.manifest import Kind, load_manifest

__all__ = ["budget_text", "chance_pct", "facts_of", "opening"]


def opening(suite: Suite, status: SuiteStatus) -> str:
    """Return one sentence: how many ways of pretraining, over what, and what they are compared by."""
    sets, depths, seeds = task_sets_of(status), depths_of(status), suite.config.seeds
    return (
        f"{_count(len(sets), 'way')} to pretrain a trunk, at {_count(len(depths), 'depth')} and with "
        f"{_count(len(seeds), 'seed')} each: {len(status.cells)} cells, compared by how well the trunk serves "
        "other tasks afterwards."
    )


def facts_of(suite: Suite, status: SuiteStatus) -> list[tuple[str, str]]:
    """Return names and values for the top of the page."""
    roles = {"single": "one task", "combined": "several tasks", "baseline": "baselines"}
    rows = []
    for role, title in roles.items():
        names = [name for name, one in task_sets_of(status).items() if one.role == role]
        names += [cell.cell.row for cell in status.cells if cell.cell.depth is None and role == "baseline"]
        if names:
            rows.append((title, "; ".join(dict.fromkeys(names))))
    rows.append(("trunk depths", f"{_listed(depths_of(status))}{_width(suite)}"))
    rows.append(("seeds", _listed(suite.config.seeds)))
    rows += _data(suite)
    rows.append(("budget of each cell", budget_text(status)))
    for name, kind in suite.kinds.items():
        if EVALUATIONS[kind].needs_trunk:
            rows.append((f"scored by {evaluation_title(name)}", _scored(status, name, kind)))
    return rows


def budget_text(status: SuiteStatus) -> str:
    """Return the budget of a pretraining with tasks, as configured."""
    found = {_budget(stage.config["budget"]): None for stage in _trained(status) if stage.config.get("budget")}
    return "; or ".join(found) or "none: nothing is trained"


def chance_pct(suite: Suite) -> float | None:
    """Return the accuracy of guessing, if every class were as frequent; None without labelled images."""
    if suite.config.images is None:
        return None
    try:
        labels = load_manifest(suite.config.images).labels
    except FourfoldError:
        return None
    return 100 / len(labels) if len(labels) > 1 else None


def _trained(status: SuiteStatus) -> Iterator[Any]:
    for cell in status.cells:
        if cell.cell.pretrain is not None and cell.cell.task_set.tasks:
            yield cell.cell.pretrain


def _budget(budget: Mapping[str, Any]) -> str:
    if budget.get("compute_tflop"):
        # 10^12 operations: a unit of work, and not of speed.
        return f"{budget['compute_tflop']:,g} TFLOP of forward and backward passes, summed over the tasks of a cell"
    if budget.get("samples"):
        return f"{budget['samples']:,} samples"
    return f"{budget.get('steps'):,} steps"


def _data(suite: Suite) -> Iterator[tuple[str, str]]:
    config = suite.config
    places: list[tuple[Kind, Path | None]] = [("image", config.images), ("clip", config.clips)]
    for kind, folder in places:
        if folder is not None:
            yield f"{kind}s", _folder(folder, kind, config.train_split)


def _folder(folder: Path, kind: Kind, train_split: str) -> str:
    try:
        manifest = load_manifest(folder)
    except FourfoldError as error:
        return f"{folder.name} ({error})"
    counts: dict[str, int] = {}
    for shard in manifest.shards:
        if shard.kind == kind:
            counts[shard.split] = counts.get(shard.split, 0) + shard.num_samples
    told = ", ".join(f"{count:,} in split {split}" for split, count in counts.items()) or f"no {kind}s"
    classes = f", {len(manifest.labels)} classes" if kind == "image" and len(manifest.labels) > 1 else ""
    return f"{folder.name}: {told}{classes}. Pretraining reads split {train_split}"


def _scored(status: SuiteStatus, name: str, kind: str) -> str:
    records = [record for cell in status.cells if (record := cell.records.get(name))]
    if not records:
        return "nothing finished yet"
    results = records[0].results
    counts = [
        (results.get("num_train"), "labelled images for fitting"),
        (results.get("num_test"), "test images"),
        (results.get("num_images"), "test images, without their labels"),
    ]
    return ", ".join(f"{count:,} {what}" for count, what in counts if isinstance(count, int)) or kind.replace("_", " ")


def _width(suite: Suite) -> str:
    width = (suite.config.pretrain.get("trunk") or {}).get("width")
    return f", width × {width:g}" if isinstance(width, int | float) and width != 1 else ""


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
