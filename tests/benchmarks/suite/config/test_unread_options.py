"""A stage's key holds only what the stage reads: one option changes, and exactly the stages that read it run again."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluations.features import extract, store
from benchmarks.suite.graph import expand
from benchmarks.suite.run_suite import run_suite
from tests.made.made_suites import made_suite
from tests.made.pictures import stored_clips, write_folder

IMAGE_SETS = ("colorization", "exemplar", "Col + Ex")
CLIP_SETS = ("motion segmentation", "Col + MS")
TASK_SETS = ["colorization", "exemplar", "motion_segmentation", ["colorization", "exemplar"]]


def keys(tmp_path: Path, pipeline: dict[str, Any] | None = None, **pretrain: Any) -> dict[str, str]:
    """Key by kind and task set, of all task sets and random weights."""
    clips = tmp_path / "clips"
    if not clips.exists():
        write_folder(clips, stored_clips(4))
    base = {"canvas_px": 64, "clip_height_px": 48, "clip_width_px": 64, "num_frames": 6}
    given = {
        "trunk": {"width": 0.25},
        "budget": {"steps": 2},
        "pipeline": base | (pipeline or {}),
        **pretrain,
    }
    suite = made_suite(
        tmp_path,
        baselines=["random_init"],
        task_sets=[*TASK_SETS, ["colorization", "motion_segmentation"]],
        clips=str(clips),
        pretrain=given,
        evaluations={"linear_probe": {"labels_per_class": [2], "canvas_px": 64}},
        depths=[10],
        seeds=[0],
    )
    return {f"{stage.kind}: {stage.label.split(',')[0]}": stage.key for stage in expand(suite).stages}


def stages_of(*task_sets: str) -> set[str]:
    return {f"{kind}: {name}" for name in task_sets for kind in ("pretrain", "linear_probe")}


@pytest.mark.parametrize(
    ("pipeline", "changed"),
    [
        ({"tasks": {"exemplar": {"task_weight": 0.5}}}, ("exemplar", "Col + Ex")),
        ({"tasks": {"motion_segmentation": {"task_weight": 0.5}}}, CLIP_SETS),
        ({"clip_batch_size": 2}, CLIP_SETS),
        ({"clip_height_px": 40}, CLIP_SETS),
        ({"num_frames": 5}, CLIP_SETS),
        ({"batch_size": 16}, (*IMAGE_SETS, "Col + MS")),
        ({"canvas_px": 96}, (*IMAGE_SETS, "Col + MS")),
        ({"canvas_scale": [0.5, 1.0]}, (*IMAGE_SETS, "Col + MS")),
        ({"share_decode": False}, (*IMAGE_SETS, "Col + MS")),
        ({"harmonize": "paper"}, ()),
        ({"placement": {"clips": {"backend": "opencv", "num_workers": 2}}}, CLIP_SETS),
        ({"placement": {"clips": {"num_workers": 2}}}, ()),
        ({"harmonize": "all"}, (*IMAGE_SETS, *CLIP_SETS)),
        ({"flip_probability": 0.0}, (*IMAGE_SETS, *CLIP_SETS)),
    ],
)
def test_an_option_of_the_pipeline_touches_the_task_sets_that_read_it(
    tmp_path: Path, pipeline: dict[str, Any], changed: tuple[str, ...]
) -> None:
    before, after = keys(tmp_path), keys(tmp_path, pipeline)
    assert {name for name in before if before[name] != after[name]} == stages_of(*changed)


def test_an_option_of_one_head_touches_the_task_sets_with_that_head(tmp_path: Path) -> None:
    before, after = keys(tmp_path), keys(tmp_path, heads={"options": {"exemplar": {"negatives": "all"}}})
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == stages_of("exemplar", "Col + Ex")


def test_clip_batch_size_of_a_suite_without_clips_changes_nothing(tmp_path: Path) -> None:
    def made(**pipeline: Any) -> list[str]:
        given = {"trunk": {"width": 0.25}, "budget": {"steps": 2}, "pipeline": {"canvas_px": 64, **pipeline}}
        return [stage.key for stage in expand(made_suite(tmp_path, pretrain=given)).stages]

    assert made() == made(clip_batch_size=2)


def test_other_labels_per_class_fit_again_without_a_pass_over_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    real = extract.write_features

    def counted(trunk: Any, table: Any, files: Any, **sizes: Any) -> None:
        passes.append(f"{len(table)} images")
        real(trunk, table, files, **sizes)

    monkeypatch.setattr(store, "write_features", counted)
    said: list[str] = []

    def run(per_class: int) -> Any:
        evaluations = {"linear_probe": {"labels_per_class": [per_class], "augment": "none"}, "knn": {}}
        changes = {"task_sets": [], "baselines": ["random_init"], "depths": [10], "seeds": [0]}
        suite = made_suite(tmp_path, evaluations=evaluations, **changes)
        said.clear()
        return run_suite(suite, tmp_path / "out", say=said.append)

    status = run(2)
    assert (status.num_failed, status.num_finished) == (0, 3)
    assert len(passes) > 0
    before = len(passes)
    status = run(1)
    # One fit, and nothing else: neither the trunk, nor k-NN, nor a pass of the trunk over a split.
    assert [line.split(":")[0] for line in said] == ["made-up", "[2/3] linear probe", "[2/3] linear probe"]
    assert (status.num_failed, status.num_finished, len(passes)) == (0, 3, before)
    assert "top1_1_labels_pct" in status.cells[0].records["linear_probe"].results
