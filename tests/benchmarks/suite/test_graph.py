import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite import stage_key
from benchmarks.suite.graph import expand
from benchmarks.suite.stages import Stage
from pipelines.base.errors import DataError, UsageError
from pipelines.targets.color.color_prior import PRIOR_NAME
from tests.made.made_suites import made_suite


def keys(tmp_path: Path, **changes: Any) -> dict[str, str]:
    """Key by kind and label."""
    return {f"{stage.kind} {stage.label}": stage.key for stage in expand(made_suite(tmp_path, **changes)).stages}


def pretrain(**changes: Any) -> dict[str, Any]:
    return {"trunk": {"width": 0.25}, "budget": {"steps": 2}, "pipeline": {"canvas_px": 64}} | changes


def test_grid_has_every_cell_once(tmp_path: Path) -> None:
    cells = expand(made_suite(tmp_path)).cells
    assert len(cells) == 1 + 4 * 2 * 3
    assert len({cell.label for cell in cells}) == len(cells)
    assert cells[0].label == "pixel floor"


def test_first_seed_runs_before_the_second(tmp_path: Path) -> None:
    seeds = [cell.seed for cell in expand(made_suite(tmp_path)).cells[1:]]
    assert seeds == sorted(seeds)  # type: ignore[type-var]


def test_every_stage_comes_after_what_it_needs(tmp_path: Path) -> None:
    before: set[str] = set()
    for stage in expand(made_suite(tmp_path)).stages:
        assert {need.key for need in stage.needs} <= before
        assert stage.key not in before
        before.add(stage.key)


def test_one_pretraining_feeds_all_evaluations(tmp_path: Path) -> None:
    cell = expand(made_suite(tmp_path)).cells[-1]
    assert [stage.needs for stage in cell.evaluations.values()] == [(cell.pretrain,)]


def test_keys_are_the_same_every_time(tmp_path: Path) -> None:
    assert keys(tmp_path) == keys(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"trunk": {"width": 0.5}},
        {"budget": {"steps": 3}},
        {"pipeline": {"canvas_px": 64, "batch_size": 16}},
        {"pipeline": {"canvas_px": 64, "tasks": {"exemplar": {"task_weight": 0.5}}}},
        {"optimizer": {"lr": 0.5}},
    ],
)
def test_changed_pretraining_changes_its_key_and_its_probes(tmp_path: Path, change: dict[str, Any]) -> None:
    before, after = keys(tmp_path), keys(tmp_path, pretrain=pretrain(**change))
    for kind in ("pretrain", "linear_probe"):
        name = f"{kind} exemplar, depth 10, seed 0"
        assert before[name] != after[name]


def test_option_of_one_task_leaves_the_others_alone(tmp_path: Path) -> None:
    change = pretrain(pipeline={"canvas_px": 64, "tasks": {"exemplar": {"task_weight": 0.5}}})
    before, after = keys(tmp_path), keys(tmp_path, pretrain=change)
    changed = {name for name in before if before[name] != after[name]}
    assert all("exemplar" in name or "Ex" in name for name in changed)


def test_starting_weights_count_by_their_content_and_not_by_their_place(tmp_path: Path) -> None:
    def with_weights(content: str, name: str) -> dict[str, str]:
        (tmp_path / name).write_text(content)
        return keys(tmp_path, pretrain=pretrain(trunk={"width": 0.25, "weights": str(tmp_path / name)}))

    before = keys(tmp_path)
    first, moved, other = with_weights("a", "a.pth"), with_weights("a", "b.pth"), with_weights("c", "a.pth")
    assert first == moved
    name, random = "pretrain exemplar, depth 10, seed 0", "pretrain random init, depth 10, seed 0"
    assert len({before[name], first[name], other[name]}) == 3
    assert before[random] == first[random]


def test_missing_starting_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pretrain\.trunk\.weights = nowhere\.pth: no such file"):
        keys(tmp_path, pretrain=pretrain(trunk={"weights": "nowhere.pth"}))


def test_random_initialisation_has_no_budget(tmp_path: Path) -> None:
    before, after = keys(tmp_path), keys(tmp_path, pretrain=pretrain(budget={"steps": 3}))
    assert {name for name in before if before[name] == after[name]} == {
        name for name in before if "random init" in name or "pixel floor" in name
    }


def test_changed_probe_keeps_the_pretraining(tmp_path: Path) -> None:
    before, after = keys(tmp_path), keys(tmp_path, evaluations={"linear_probe": {"pool": 2}})
    assert all((before[name] == after[name]) == (not name.startswith("linear_probe")) for name in before)


def test_how_often_a_run_saves_is_not_part_of_its_key(tmp_path: Path) -> None:
    assert keys(tmp_path) == keys(tmp_path, pretrain=pretrain(checkpoint={"every_s": 7}))


@pytest.mark.parametrize("option", ["num_threads", "num_workers", "prefetch_batches"])
def test_who_makes_the_batches_is_not_part_of_a_key(tmp_path: Path, option: str) -> None:
    change = pretrain()
    change["pipeline"] = {**change.get("pipeline", {}), option: 3}
    assert keys(tmp_path) == keys(tmp_path, pretrain=change)


def test_moved_shards_keep_the_keys_and_changed_shards_do_not(tmp_path: Path) -> None:
    before = keys(tmp_path)
    shutil.move(tmp_path / "shards", tmp_path / "elsewhere")
    assert keys(tmp_path, images=str(tmp_path / "elsewhere")) == before
    manifest = tmp_path / "elsewhere" / "manifest.json"
    content = json.loads(manifest.read_text())
    train = next(shard for shard in content["shards"] if shard["split"] == "train")
    train["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    after = keys(tmp_path, images=str(tmp_path / "elsewhere"))
    same = {name for name in before if before[name] == after[name]}
    assert same == {name for name in before if name.startswith("pretrain random init")}


def test_colour_statistics_are_an_input_of_colorization_alone(tmp_path: Path) -> None:
    before = keys(tmp_path)
    (tmp_path / "shards" / PRIOR_NAME).write_text("{}")
    after = keys(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if "colorization" in name or "Col" in name}


def test_version_of_a_kind_is_part_of_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(tmp_path)
    monkeypatch.setitem(stage_key.STAGE_VERSIONS, "linear_probe", 99)
    after = keys(tmp_path)
    assert all((before[name] == after[name]) == (not name.startswith("linear_probe")) for name in before)


def test_folder_is_named_by_kind_and_key(tmp_path: Path) -> None:
    stage = Stage(kind="pretrain", label="x", key="ab" * 32, config={}, inputs={})
    assert stage.folder(tmp_path) == tmp_path / "stages" / "pretrain-abababababab"


def test_missing_and_damaged_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        expand(made_suite(tmp_path, images=str(tmp_path / "nowhere")))
    with pytest.raises(UsageError, match="no images in split test"):
        expand(made_suite(tmp_path, test_split="test"))
    (tmp_path / "shards" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        expand(made_suite(tmp_path))


def test_foreign_trunks_are_cells_of_their_own_and_follow_the_content_of_the_file(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    changes: dict[str, Any] = {"trunks": {"theirs": {"timm": "resnet50", "weights": str(weights)}}, "task_sets": []}
    graph = expand(made_suite(tmp_path, **changes))
    cell = next(cell for cell in graph.cells if cell.task_set.name == "theirs")
    assert (cell.pretrain, cell.depth, list(cell.evaluations)) == (None, None, ["linear_probe"])
    key = cell.evaluations["linear_probe"].key
    assert weights in graph.files
    moved = weights.rename(tmp_path / "other.pth")
    changes["trunks"]["theirs"]["weights"] = str(moved)
    again = next(cell for cell in expand(made_suite(tmp_path, **changes)).cells if cell.task_set.name == "theirs")
    assert again.evaluations["linear_probe"].key == key
    moved.write_bytes(b"other")
    again = next(cell for cell in expand(made_suite(tmp_path, **changes)).cells if cell.task_set.name == "theirs")
    assert again.evaluations["linear_probe"].key != key
