"""Building a pipeline: what cannot work is refused before a byte is read, with the key to change."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml

from pipelines.base.config import load_config
from pipelines.base.errors import DataError, UsageError
from pipelines.build import PipelineConfig, active_tasks, build_pipeline
from pipelines.targets.color.color_prior import PRIOR_NAME
from pipelines.tasks import TASKS
from pipelines.tasks.colorization import ColorizationConfig

RECIPES = Path(__file__).resolve().parents[2] / "yaml" / "pipelines"
IMAGE_TASKS = {"relative_position": {}, "colorization": {}, "exemplar": {}}


def refused(folder=None, match="", *, world_size=1, **options):
    config = PipelineConfig(**({"images": folder, "tasks": {"colorization": {}}, "canvas_px": 64} | options))
    with pytest.raises(UsageError, match=match):
        build_pipeline(config, seed=0, world_size=world_size)


def written(tmp_path, text):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def test_all_four_tasks_from_one_config(small_shards):
    folder = small_shards(images=6, clips=3)
    config = PipelineConfig(
        images=folder,
        clips=folder,
        tasks={**IMAGE_TASKS, "motion_segmentation": {}},
        canvas_px=64,
        clip_height_px=48,
        clip_width_px=64,
        num_frames=6,
        batch_size=4,
        clip_batch_size=2,
        num_threads=2,
    )
    with build_pipeline(config, seed=0) as pipeline:
        step = next(pipeline)
        assert list(step.batches) == sorted([*IMAGE_TASKS, "motion_segmentation"])
        for name, batch in step.batches.items():
            size = 2 if name == "motion_segmentation" else 4
            tensors = {"inputs": batch.inputs, "weight": batch.weight, **batch.target}
            promised = pipeline.tasks[name].spec(size)
            assert {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()} == {
                key: (spec.shape, spec.dtype) for key, spec in promised.items()
            }
            assert len(batch.keys) == size


def test_an_unknown_task_names_the_nearest_with_its_line(tmp_path):
    path = written(tmp_path, "canvas_px: 64\ntasks:\n  colourization: {}\n")
    with pytest.raises(UsageError, match=r"pipeline\.yaml:3: tasks\.colourization.*did you mean colorization\?"):
        load_config(PipelineConfig, path)


def test_an_unknown_option_of_a_task_names_the_nearest_with_its_line(tmp_path):
    path = written(tmp_path, "tasks:\n  relative_position:\n    gapp_px: 3\n")
    with pytest.raises(UsageError, match=r"yaml:3: tasks\.relative_position\.gapp_px.*did you mean gap_px\?"):
        load_config(PipelineConfig, path)


def test_a_wrong_value_of_a_task_names_its_place(tmp_path):
    path = written(tmp_path, "tasks:\n  relative_position:\n    gap_px: -4\n")
    with pytest.raises(
        UsageError, match=r"yaml:3: tasks\.relative_position\.gap_px = -4: .*greater than or equal to 0"
    ):
        load_config(PipelineConfig, path)


def test_every_wrong_task_is_reported_at_once(tmp_path):
    path = written(tmp_path, "tasks:\n  relative_position: {gap_px: -4}\n  exemplar: {scale: 3}\n  nothing: {}\n")
    with pytest.raises(UsageError) as error:
        load_config(PipelineConfig, path)
    assert len(str(error.value).splitlines()) >= 3


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_builds(path, small_shards):
    config = load_config(PipelineConfig, path)
    frames = config.num_frames
    folder = small_shards(images=6, clips=2, num_frames=frames) if config.clips else small_shards(images=6)
    there = config.model_copy(update={"images": folder, "clips": folder})
    build_pipeline(there, seed=0).close()
    assert path.read_text().startswith("# ")


def test_a_task_without_options_may_be_left_empty(tmp_path):
    config = load_config(PipelineConfig, written(tmp_path, "tasks:\n  colorization:\n"))
    assert config.tasks == {"colorization": ColorizationConfig()}


def test_a_config_survives_being_written_and_read(tmp_path):
    config = PipelineConfig(images=tmp_path, tasks={"relative_position": {"gap_px": 7}, "colorization": {}})
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert load_config(PipelineConfig, written(tmp_path, text)) == config
    assert json.loads(config.model_dump_json())["tasks"]["relative_position"]["gap_px"] == 7


@pytest.mark.parametrize("scale", [(0, 1), (0.9, 0.8), (0.5, 1.1)])
def test_an_impossible_canvas_scale_is_refused(scale):
    with pytest.raises(ValueError, match="need 0 < low <= high <= 1"):
        PipelineConfig(canvas_scale=scale)


def test_no_task_is_refused(small_shards):
    refused(small_shards(), "tasks: none given; allowed are relative_position", tasks={})


def test_images_that_are_needed_and_missing(small_shards):
    refused(
        None,
        r"images: not given, but tasks need images \(colorization, exemplar, relative_position\)",
        tasks=dict(IMAGE_TASKS),
    )


def test_clips_that_are_needed_and_missing(small_shards):
    refused(small_shards(), "clips: not given", tasks={"motion_segmentation": {}})


def test_a_folder_without_shards(tmp_path):
    refused(tmp_path, "not a folder of shards")


def test_a_split_that_is_not_there(small_shards):
    refused(small_shards(), "no images in split val; it holds images in split train", split="val")


def test_clips_that_are_too_short(small_shards):
    folder = small_shards(images=0, clips=2, num_frames=6)
    tasks = {"motion_segmentation": {}}
    refused(None, "num_frames = 10; the clips in .* hold 6", clips=folder, tasks=tasks)


def test_a_canvas_that_a_task_does_not_fit(small_shards):
    refused(small_shards(), "canvas", tasks={"relative_position": {"canvas_px": 64, "patch_px": 64}})


def test_exemplar_needs_two_images_per_rank(small_shards):
    tasks = {"exemplar": {}}
    refused(small_shards(), "at least 2 different images per rank", tasks=tasks, batch_size=4, world_size=4)
    refused(small_shards(images=1), "1 images in all", tasks=tasks, batch_size=4)


def test_a_batch_that_does_not_divide_over_the_ranks(small_shards):
    refused(small_shards(), "batch_size = 6: over 4 ranks; need a multiple of 4", batch_size=6, world_size=4)


@pytest.mark.parametrize(
    ("tasks", "options", "match"),
    [
        ({"exemplar": {"batch_size": 9}}, {}, r"tasks\.exemplar\.batch_size = 9, of the 8 images.*Raise batch_size"),
        ({"motion_segmentation": {"batch_size": 9}}, {}, "of the 8 clips that a step reads.*Raise clip_batch_size"),
    ],
)
def test_a_tasks_batch_larger_than_its_sources_is_refused(tasks, options, match):
    with pytest.raises(ValueError, match=match):
        PipelineConfig(**({"tasks": tasks, "batch_size": 8, "clip_batch_size": 8} | options))


def test_a_tasks_batch_must_fit_ranks_and_task(small_shards):
    options = {"folder": small_shards(), "batch_size": 8, "world_size": 2}
    refused(tasks={"colorization": {"batch_size": 3}}, match=r"tasks\.colorization\.batch_size = 3: over 2", **options)
    refused(tasks={"exemplar": {"batch_size": 2}}, match=r"at least 2 .* gets 1 .*Raise tasks\.exemplar", **options)


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed -1"):
        build_pipeline(PipelineConfig(), seed=-1)


def test_a_missing_shard_is_found_at_build(small_shards):
    folder = small_shards()
    (folder / "train-images-000001.tar").unlink()
    config = PipelineConfig(images=folder, tasks={"colorization": {}}, canvas_px=64)
    with pytest.raises(DataError, match="000001"):
        build_pipeline(config, seed=0)


def test_nothing_is_read_before_the_first_step(small_shards, monkeypatch):
    config = PipelineConfig(images=small_shards(), tasks={"colorization": {}}, canvas_px=64)
    monkeypatch.setattr("pipelines.read.reader.SampleReader.read", lambda *_: pytest.fail("read"))
    build_pipeline(config, seed=0).close()


def test_a_counted_prior_reaches_colorization(small_shards, monkeypatch):
    folder, seen = small_shards(), []

    class Spy(TASKS["colorization"]):
        name: ClassVar[str] = "colorization"

        def __init__(self, config, canvas, *, lightness=False):
            seen.append(config.prior)
            super().__init__(config.model_copy(update={"prior": None}), canvas, lightness=lightness)

    monkeypatch.setitem(TASKS, "colorization", Spy)
    config = PipelineConfig(images=folder, tasks={"colorization": {}}, canvas_px=64)
    build_pipeline(config, seed=0).close()
    (folder / PRIOR_NAME).write_text("{}")
    build_pipeline(config, seed=0).close()
    elsewhere = PipelineConfig(images=folder, tasks={"colorization": {"prior": folder.parent}}, canvas_px=64)
    build_pipeline(elsewhere, seed=0).close()
    assert seen == [None, folder, folder.parent]
    assert config.tasks["colorization"].prior is None


@pytest.mark.parametrize(
    ("mode", "gray"), [("off", set()), ("paper", {"relative_position"}), ("all", set(IMAGE_TASKS))]
)
def test_harmonize_decides_who_sees_lightness(small_shards, mode, gray):
    config = PipelineConfig(images=small_shards(), tasks=IMAGE_TASKS, canvas_px=64, harmonize=mode)
    with build_pipeline(config, seed=0) as pipeline:
        assert {name for name, task in pipeline.tasks.items() if task.lightness} == gray


def test_where_batches_are_made_and_why_is_told(small_shards):
    config = PipelineConfig(images=small_shards(), tasks={"colorization": {}}, canvas_px=64)
    with build_pipeline(config, seed=0, device=torch.device("cpu")) as pipeline:
        assert pipeline.placements["image"].backend.name == "opencv"
        assert "cpu" in pipeline.placements["image"].reason


def test_tasks_are_active_as_often_as_their_weight():
    tasks = {"colorization": {"task_weight": 0.25}, "exemplar": {"task_weight": 0.5}, "relative_position": {}}
    config = PipelineConfig(tasks=tasks)
    active = [active_tasks(config, 3, step) for step in range(2000)]
    share = {name: sum(name in names for names in active) / 2000 for name in tasks}
    assert share["relative_position"] == 1
    assert share["colorization"] == pytest.approx(0.25, abs=0.04)
    assert share["exemplar"] == pytest.approx(0.5, abs=0.04)
    both = sum({"colorization", "exemplar"} <= set(names) for names in active) / 2000
    assert both == pytest.approx(0.125, abs=0.03)


def test_a_task_rests_between_the_steps_of_its_every():
    config = PipelineConfig(tasks={"colorization": {"every": 3}, "exemplar": {"every": 2, "task_weight": 0.5}})
    active = [active_tasks(config, 0, step) for step in range(60)]
    assert [step for step, names in enumerate(active) if "colorization" in names] == list(range(0, 60, 3))
    drawn = {step for step, names in enumerate(active) if "exemplar" in names}
    # Where it may be active, it is at the same steps as without `every`.
    always = PipelineConfig(tasks={"exemplar": {"task_weight": 0.5}})
    assert drawn == {step for step in range(0, 60, 2) if active_tasks(always, 0, step)}


def test_golden_schedule():
    # A change here changes which task runs when: bump the version in the CHANGELOG if it is meant.
    config = PipelineConfig(tasks={"colorization": {"task_weight": 0.5}})
    assert "".join("x" if active_tasks(config, 0, step) else "." for step in range(16)) == ".x.x..xxx.x.xxxx"
