"""What can be profiled: a folder of shards, and three kinds of YAML; everything else is one clear message."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.profile.profile_config import IMAGE_TASKS, ProfileConfig, changed, load_profile
from pipelines.base.errors import UsageError
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return path


def test_folder_of_images_gets_the_image_tasks(small_shards: MakeShards) -> None:
    folder = small_shards(6)
    found = load_profile(folder)
    assert tuple(found.pipeline.tasks) == tuple(sorted(IMAGE_TASKS))
    assert [source.path for source in found.pipeline.sources_of("image")] == [folder]
    assert found.pipeline.clips is None
    assert found.train is None


def test_folder_of_both_kinds_gets_all_tasks(small_shards: MakeShards) -> None:
    found = load_profile(small_shards(6, 2), ["pipeline.batch_size=3", "seconds=2"])
    assert tuple(found.pipeline.tasks) == tuple(sorted((*IMAGE_TASKS, "motion_segmentation")))
    assert (found.pipeline.batch_size, found.seconds) == (3, 2.0)


def test_folder_without_the_train_split(small_shards: MakeShards) -> None:
    with pytest.raises(UsageError, match=r"no samples of split train.*pipeline\.split"):
        load_profile(small_shards(6, split="val"))


def test_yaml_of_a_pipeline(tmp_path: Path) -> None:
    found = load_profile(write(tmp_path, "images: a\ntasks: {colorization: {}}\n"), ["batch_size=5"])
    assert (found.pipeline.batch_size, found.train) == (5, None)


def test_yaml_of_a_pretraining_brings_its_trainer(tmp_path: Path) -> None:
    text = "pipeline: {images: a, tasks: {colorization: {}}}\ntrunk: {depth: 10}\nbudget: {steps: 3}\n"
    found = load_profile(write(tmp_path, text))
    assert found.train is not None
    assert found.train.trunk.depth == 10
    assert found.pipeline == found.train.pipeline


def test_yaml_of_a_profile(tmp_path: Path) -> None:
    found = load_profile(write(tmp_path, "pipeline: {images: a, tasks: {exemplar: {}}}\nseconds: 3\n"))
    assert isinstance(found, ProfileConfig)
    assert found.seconds == 3.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pipeline: {images: a}\nsecnods: 3\n", [":2", "unknown key secnods", "Did you mean seconds?"]),
        ("pipline: {images: a}\nseconds: 3\n", [":1", "unknown key pipline", "Did you mean pipeline?"]),
        ("images: a\nbach_size: 3\ntasks: {}\n", [":2", "unknown key bach_size", "Did you mean batch_size?"]),
        ("pipeline: {imagse: a}\n", [":1", "pipeline.imagse", "Did you mean images?"]),
        ("pipeline: {images: a}\nseconds: 0\n", [":2", "seconds = 0", "0.5"]),
        ("pipeline: {images: a}\nnum_repeats: 1\n", ["num_repeats = 1", "2"]),
        ("pipeline: {images: a, tasks: {guessing: {}}}\n", ["guessing", "colorization"]),
        ("pipeline: {images: a}\ndevice_samples_per_s: -1\n", ["device_samples_per_s = -1", "greater than 0"]),
        ("- a\n- b\n", ["list", "mapping"]),
        ("a: [\n", ["not valid YAML"]),
    ],
)
def test_wrong_yaml_names_file_line_key_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load_profile(write(tmp_path, text))
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "some.yaml"))
    assert [word for word in words if word not in message] == []


def test_a_trainer_and_a_made_up_device_exclude_each_other(tmp_path: Path) -> None:
    text = (
        "pipeline: {images: a, tasks: {exemplar: {}}}\ndevice_samples_per_s: 5\n"
        "train: {pipeline: {tasks: {exemplar: {}}}, budget: {steps: 1}}\n"
    )
    with pytest.raises(UsageError, match="give one of them"):
        load_profile(write(tmp_path, text))


def test_changed_values_by_dotted_name() -> None:
    config = made_config()
    other = changed(config, {"pipeline.batch_size": 3, "pipeline.tasks.colorization.task_weight": 0.5, "seconds": 2})
    assert (other.pipeline.batch_size, other.pipeline.tasks["colorization"].task_weight, other.seconds) == (3, 0.5, 2)
    assert config.pipeline.batch_size == 16
    assert changed(config, {}) == config
    with pytest.raises(UsageError, match="num_threads"):
        changed(config, {"pipeline.num_threads": -1})


def test_a_changed_profile_keeps_its_trainer(tmp_path: Path) -> None:
    text = "pipeline: {images: a, tasks: {colorization: {}}}\ntrunk: {depth: 10}\nlasso: off\nbudget: {steps: 3}\n"
    config = load_profile(write(tmp_path, text))
    assert changed(config, {"seconds": 5}).train == config.train
