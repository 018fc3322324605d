"""How much of the label follows from a patch's place: closed forms, the known fault of pairs, every packaged recipe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.base.batch_rng import BatchRng
from pipelines.targets.views.pair_geometry import place_leak
from pipelines.targets.views.patch_grid import PatchGrid, neighbour_pairs
from pipelines.tasks.base import CanvasSpec
from pipelines.tasks.relative_position import RelativePosition, RelativePositionConfig

RECIPES = Path(__file__).resolve().parents[4] / "yaml"


def grid_pairs(rows: int, cols: int, *, jitter_px: int = 0, room_px: int = 0, count: int = 2000) -> Any:
    grid = PatchGrid(rows=rows, cols=cols, patch_px=20, gap_px=10, jitter_px=jitter_px)
    corner_xy = grid.draw(np.random.default_rng(0), grid.needed_px + room_px, count)
    pairs = neighbour_pairs(rows, cols)
    return corner_xy[:, pairs.first].reshape(-1, 2), np.tile(pairs.position, count)


@pytest.mark.parametrize(("rows", "cols"), [(2, 2), (3, 3), (3, 4), (4, 4)])
@pytest.mark.parametrize("jitter_px", [0, 4])
def test_in_a_grid_whose_place_is_known_it_is_patches_per_pair(rows: int, cols: int, jitter_px: int) -> None:
    # Of the n neighbours of a cell one guess is right, so of all pairs as many as there are cells.
    leak = place_leak(*grid_pairs(rows, cols, jitter_px=jitter_px))
    assert leak.accuracy == pytest.approx(rows * cols / len(neighbour_pairs(rows, cols).first), abs=1e-9)


def test_the_place_of_a_grid_that_roams_far_tells_less() -> None:
    known, roaming = (place_leak(*grid_pairs(3, 3, room_px=room_px)).accuracy for room_px in (0, 300))
    # The best constant is 6 of 40: right, left, above and below have six pairs each.
    assert 0.15 <= roaming < 0.18 < known == pytest.approx(9 / 40)


def test_labels_that_have_nothing_to_do_with_the_place_are_guessed_by_chance() -> None:
    rng = np.random.default_rng(0)
    leak = place_leak(rng.integers(0, 160, (200_000, 2)), rng.integers(0, 8, 200_000))
    assert leak.accuracy == pytest.approx(1 / 8, abs=0.005)
    assert leak.best_constant == pytest.approx(1 / 8, abs=0.003)


def test_labels_that_are_the_place_are_always_guessed() -> None:
    place_xy = np.random.default_rng(0).integers(0, 80, (50_000, 2))
    assert place_leak(place_xy, place_xy[:, 0] // 10).accuracy == 1


@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (4, 2)])
def test_what_cannot_be_judged_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="need"):
        place_leak(np.zeros(shape, np.int64), np.zeros(1 if shape[0] == 1 else 5, np.int64))


def leak_of(pipeline_px: int, num_samples: int, **options: Any) -> float:
    task = RelativePosition(RelativePositionConfig(**options), CanvasSpec(canvas_px=pipeline_px))
    geometry = task.draw(BatchRng(0, [0] * num_samples, [str(key) for key in range(num_samples)], task.name))
    return place_leak(*task.places(geometry)).accuracy


def test_pairs_on_a_canvas_that_hardly_holds_them_give_the_answer_away() -> None:
    # 92.5 % of 512,000 pairs simulated apart from this code; fewer here, and coarser cells.
    assert leak_of(256, 60_000, form="pairs") > 0.9
    assert leak_of(256, 60_000, form="pairs", canvas_px=512) < 0.32


def pipelines_of(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """(canvas_px, options of relative position) of every pipeline in a recipe."""
    if isinstance(value, dict):
        tasks = value.get("tasks") or {}
        names = [name for one in value.get("task_sets", []) for name in (one if isinstance(one, list) else [one])]
        inner = value.get("pretrain", {}).get("pipeline", {})
        if "relative_position" in tasks:
            yield value.get("canvas_px", 256), tasks["relative_position"] or {}
        elif {"relative_position", "all"} & set(names):
            yield inner.get("canvas_px", 256), inner.get("tasks", {}).get("relative_position", {})
        if "task_sets" not in value:
            for one in value.values():
                yield from pipelines_of(one)


FOUND = [
    pytest.param(*found, id=f"{path.parent.name}/{path.name}")
    for path in sorted(RECIPES.rglob("*.yaml"))
    for found in pipelines_of(yaml.safe_load(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("canvas_px", "options"), FOUND)
def test_every_packaged_recipe_keeps_the_place_quiet(canvas_px: int, options: dict[str, Any]) -> None:
    assert leak_of(canvas_px, 1500, **options) <= 0.25


def test_all_recipes_with_the_task_were_found() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in RECIPES.rglob("*.yaml")}
    assert len(FOUND) == sum("relative_position" in text or "task_sets" in text for text in texts.values()) >= 9


@pytest.mark.parametrize("canvas_px", [64, 96, 128, 256])
def test_defaults_keep_the_place_quiet_on_every_canvas(canvas_px: int) -> None:
    assert leak_of(canvas_px, 1500) <= 0.25
    assert leak_of(canvas_px, 1500, canvas_px=canvas_px) <= 0.25
