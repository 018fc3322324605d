"""The same weights after 20 steps on 1, 2 and 4 ranks that share the same batches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from pipelines.base.config import validate
from pipelines.pipeline_config import PipelineConfig
from pipelines.tasks.base import TaskBatch
from tests.made.rank_processes import play
from tests.made.task_batches import MAKERS
from training.heads import HeadInput, HeadsConfig
from training.lasso import LassoConfig
from training.model import Model, build_model, build_trunk
from training.norms import sync_norms
from training.parallel import Ranks
from training.ranks.running_statistics import average_running_statistics
from training.ranks.task_groups import TaskGroup
from training.ranks.task_parallel import TaskParallel
from training.trunk import TrunkConfig
from training.updates.loss_averages import LossAverages
from training.updates.optimizer import OptimizerConfig
from training.updates.step import Updater, Way

NUM_STEPS = 20
LR = 3e-4
ROWS = 4
TASKS = ("colorization", "exemplar", "motion_segmentation", "relative_position")
WORLD_SIZES = (1, 2, 4)
RUNS: dict[str, dict[str, Any]] = {
    "group, per task": {"norm": "group", "way": "per_task", "negatives": "all", "foreground": "balanced"},
    "group, summed": {"norm": "group", "way": "summed", "lasso": True, "accumulate": 2},
    "group, summed, divided": {"norm": "group", "way": "summed", "lasso": True, "accumulate": 2, "is_divided": True},
    # Every layer sends two messages, so two ranks are enough. Without relative position, whose head normalises single
    # numbers: of few rows, that makes a rounding large (gradients of 200 differ by 12). In float64, with more rows,
    # test_equal_in_float64.py has all tasks and ways.
    "synced, per task": {
        "norm": "synced",
        "way": "per_task",
        "tasks": ("colorization", "exemplar", "motion_segmentation"),
    },
}
GROUPS: dict[int, list[tuple[tuple[str, ...], int]]] = {
    1: [(TASKS, 1)],
    2: [(TASKS[:1], 1), (TASKS[1:], 1)],
    4: [(TASKS[:2], 2), (TASKS[2:3], 1), (TASKS[3:], 1)],
}
"""Division of ranks among tasks, by the number of ranks: tasks, and how many ranks train them."""
CASES = [(name, size) for name in RUNS for size in WORLD_SIZES[1:] if size == 2 or "synced" not in name]


def batch_of(task: str, step: int, rows: int) -> TaskBatch:
    """A batch for all ranks whose weights differ from rank to rank, as unknown cells and failed samples make them."""
    sizes = {"colorization": {"canvas_px": 16}, "motion_segmentation": {"height_px": 16, "width_px": 24}}
    batch = MAKERS[task](rows=rows, seed=step, **sizes.get(task, {"patch_px": 16}))
    rng = torch.Generator().manual_seed(100 + step)
    weight = torch.rand(batch.weight.shape, generator=rng) * (torch.rand(batch.weight.shape, generator=rng) < 0.7)
    # Once no rank has any weight, and once all of it is on the last.
    weight[: {3: rows, 5: rows - 1}.get(step, 0)] = 0
    # One image twice, on two of two and on two of four ranks: it is no negative of itself.
    keys = ("a", "b", "c", "a") if step % 2 else ("a", "a", "b", "c")
    return replace(batch, weight=weight, keys=keys * (rows // len(keys)))


def part_of(batch: TaskBatch, ranks: Ranks) -> TaskBatch:
    """The rows of one rank, with the negatives that the task would choose of them."""
    num_rows = len(batch.keys) // ranks.world_size
    rows = slice(ranks.rank * num_rows, (ranks.rank + 1) * num_rows)
    target = {name: value[rows] for name, value in batch.target.items()}
    keys = batch.keys[rows]
    if "negative" in target:
        target["negative"] = torch.tensor([chosen(keys, row) for row in range(len(keys))])
    return replace(batch, inputs=batch.inputs[rows], target=target, weight=batch.weight[rows], keys=keys)


def chosen(keys: tuple[str, ...], row: int) -> int:
    following = ((row + step) % len(keys) for step in range(len(keys)))
    return next((other for other in following if keys[other] != keys[row]), row)


def model_of(norm: str, lasso: bool, options: dict[str, Any]) -> Model:
    trunk = build_trunk(TrunkConfig.model_validate({"depth": 10, "width": 0.125, "norm": norm}), (), 0)
    shapes = {task: HeadInput(num_channels=32, height=2, width=2) for task in TASKS}
    heads = HeadsConfig(preset="small", options=options)
    return build_model(trunk, heads, shapes, seed=0, lasso=LassoConfig() if lasso else None)


def trained(
    ranks: Ranks,
    *,
    norm: str,
    way: Way,
    lasso: bool = False,
    accumulate: int = 1,
    negatives: str = "one",
    foreground: str = "as_is",
    tasks: tuple[str, ...] = TASKS,
    is_divided: bool = False,
    rows: int = ROWS,
) -> dict[str, Any]:
    options = {"exemplar": {"negatives": negatives}, "motion_segmentation": {"foreground": foreground}}
    model = model_of(norm, lasso, options)
    if norm == "synced":
        sync_norms(model)
    each = {task: {"accumulate": accumulate} for task in TASKS}
    config = validate(PipelineConfig, {"images": "-", "clips": "-", "tasks": each}, source="test")
    # A large eps and a small lr: RMSProp divides by the gradient's size, and makes full steps of gradients that are
    # rounding; large steps at a loss of any sharpness double a difference each time.
    optimizer = OptimizerConfig(lr=LR, eps=1e-2, weight_decay=0.01)
    division = divided(ranks) if is_divided else TaskParallel.undivided(tasks, ranks)
    exchange = division.exchange(model)
    updater = Updater(model, config.tasks, optimizer=optimizer, way=way, ranks=division.ranks, exchange=exchange)
    averages = LossAverages(division.ranks, division.merged)
    for step in range(NUM_STEPS):
        for task in division.tasks:
            part = part_of(batch_of(task, step, rows), division.ranks)
            averages.add(task, step, updater.take(part, LR), part.weight)
        updater.finish(step, LR)
        average_running_statistics(model, model.trunk, division.ranks)
    division.collect(model, updater)
    return {"weights": model.state_dict(), "trunk": model.trunk.state_dict(), "means": dict(averages.take())}


def divided(ranks: Ranks) -> TaskParallel:
    groups, first = [], 0
    for tasks, num_ranks in GROUPS[ranks.world_size]:
        groups.append(TaskGroup(tasks=tasks, first_rank=first, num_ranks=num_ranks))
        first += num_ranks
    return TaskParallel(groups, ranks)


def all_runs(rank: int, folder: Path) -> None:
    # All groups first: torch numbers groups, and all ranks must count alike.
    groups = {world_size: distributed.new_group(list(range(world_size))) for world_size in WORLD_SIZES}
    for world_size in WORLD_SIZES:
        if rank >= world_size:
            continue
        ranks = Ranks(rank=rank, world_size=world_size, group=groups[world_size])  # type: ignore[arg-type]
        for name in [name for name in RUNS if world_size == 1 or (name, world_size) in CASES]:
            if world_size == 2 and "divided" in name:
                continue
            torch.save(trained(ranks, **RUNS[name]), folder / f"{name}-{world_size}-{rank}.pt")


def divided_run(rank: int, folder: Path) -> None:
    """Two ranks alone: those that are divided make groups, in which all processes take part."""
    found = trained(Ranks(rank=rank, world_size=2), **RUNS["group, summed, divided"])
    torch.save(found, folder / f"group, summed, divided-2-{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    play(all_runs, max(WORLD_SIZES), folder)
    (folder / "store").unlink()
    play(divided_run, 2, folder)
    return folder


def result(folder: Path, name: str, world_size: int, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"{name}-{world_size}-{rank}.pt", weights_only=True)
    return found


@pytest.mark.parametrize(("name", "world_size"), CASES)
def test_the_weights_are_those_of_one_rank(folder: Path, name: str, world_size: int) -> None:
    alone, together = (result(folder, name, size)["weights"] for size in (1, world_size))
    tolerance = 1e-5 if name.startswith("group") else 1e-4
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=0, atol=tolerance, msg=lambda text, key=key: key + text)


@pytest.mark.parametrize(("name", "world_size"), CASES)
def test_all_ranks_have_the_same_weights_to_the_bit(folder: Path, name: str, world_size: int) -> None:
    # Ranks that are divided among tasks have heads of their own tasks; the first has all.
    part = "trunk" if "divided" in name else "weights"
    first = result(folder, name, world_size)[part]
    for rank in range(1, world_size):
        other = result(folder, name, world_size, rank)[part]
        assert all(torch.equal(value, other[key]) for key, value in first.items())


@pytest.mark.parametrize(("name", "world_size"), CASES)
def test_the_log_is_that_of_one_rank(folder: Path, name: str, world_size: int) -> None:
    alone, together = (result(folder, name, size)["means"] for size in (1, world_size))
    for task, values in alone.items():
        assert together[task] == pytest.approx(values, rel=1e-3, abs=1e-4)


def test_the_weights_have_moved_far(folder: Path) -> None:
    start = model_of("group", False, {}).state_dict()
    end = result(folder, "group, per task", 1)["weights"]
    assert max((end[key] - value).abs().max() for key, value in start.items() if value.is_floating_point()) > 1e-2
