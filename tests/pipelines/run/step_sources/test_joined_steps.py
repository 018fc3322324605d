"""Images and clips made in different places: the batches of one place, at every position, for any number of workers."""

import itertools
from collections.abc import Mapping

import pytest

from pipelines.base.errors import DataError
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.run.step_maker import MadeStep, Step
from pipelines.run.step_sources.joined_steps import JoinedSteps
from tests.made.restore_every_step import assert_every_restart_goes_on_the_same, digest, digests

TASKS = {
    "relative_position": {"task_weight": 0.6},
    "colorization": {"task_weight": 0.5},
    "motion_segmentation": {"task_weight": 0.5, "num_threads": 1},
}
SMALL = {
    "canvas_px": 32,
    "clip_height_px": 32,
    "clip_width_px": 32,
    "num_frames": 4,
    "batch_size": 4,
    "clip_batch_size": 2,
    "num_threads": 1,
}
NUM_STEPS = 20
START = {"step": 0, "image_batch": 0, "clip_batch": 0}


@pytest.fixture
def folder(small_shards):
    return small_shards(images=23, clips=5, num_frames=4)


def config_of(folder, **placement) -> PipelineConfig:
    return PipelineConfig(images=folder, clips=folder, tasks=TASKS, placement=placement, **SMALL)


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_clips_in_processes_beside_images_in_threads_and_a_restart_at_each_of_20_steps(folder, num_workers) -> None:
    with build_pipeline(config_of(folder), seed=3) as pipeline:
        expected, positions = [], [START]
        for step in itertools.islice(pipeline, NUM_STEPS + 2):
            expected.append(digest(step))
            positions.append(pipeline.position())
    with build_pipeline(config_of(folder, clips={"num_workers": num_workers}), seed=3) as pipeline:
        for index in range(NUM_STEPS):
            pipeline.restore(positions[index])
            assert [digest(step) for step in itertools.islice(pipeline, 2)] == expected[index : index + 2]
            assert pipeline.position() == positions[index + 2]
        assert {one.name: one.num_items > 0 for one in pipeline.stage_stats()} == dict.fromkeys(
            ["read", "decode", *TASKS], True
        )


def test_images_in_processes_beside_clips_in_threads(folder) -> None:
    expected = digests(build_pipeline(config_of(folder), seed=3), 6)
    assert digests(build_pipeline(config_of(folder, images={"num_workers": 2}), seed=3), 6) == expected


def test_two_backends_in_one_pipeline_each_as_it_is_alone(folder) -> None:
    pytest.importorskip("nvidia.dali")
    mixed = config_of(folder, images={"backend": "dali"})
    alone = {name: config_of(folder).model_copy(update={"backend": name}) for name in ("dali", "opencv")}
    with (
        build_pipeline(mixed, seed=3) as pipeline,
        build_pipeline(alone["dali"], seed=3) as images,
        build_pipeline(alone["opencv"], seed=3) as clips,
    ):
        assert [pipeline.placements[kind].backend.name for kind in ("image", "clip")] == ["dali", "opencv"]
        for step, image, clip in itertools.islice(zip(pipeline, images, clips, strict=True), 6):
            both = {name: (clip if name == "motion_segmentation" else image).batches[name] for name in step.batches}
            assert digest(step) == digest(Step(index=step.index, batches=both))
    assert_every_restart_goes_on_the_same(lambda: build_pipeline(mixed, seed=3), num_steps=4)


class Part:
    """Steps of one kind, or an error at one of them."""

    def __init__(self, kind: str, fails_at: int = -1) -> None:
        self.kind, self.fails_at, self.index = kind, fails_at, 0

    def start(self, position: Mapping[str, int]) -> None:
        self.index = position["step"]

    def get(self) -> MadeStep:
        if self.index == self.fails_at:
            self.fails_at = -1
            raise DataError("once")
        self.index += 1
        after = START | {"step": self.index, f"{self.kind}_batch": self.index}
        return MadeStep(step=Step(index=self.index - 1, batches={self.kind: None}), num_samples=3, after=after)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_part_does_not_set_the_parts_a_step_apart(failing: int) -> None:
    parts = [Part("image"), Part("clip")]
    parts[failing].fails_at = 1
    joined = JoinedSteps(parts, ["clip", "image"])
    joined.start(START)
    joined.get()
    with pytest.raises(DataError):
        joined.get()
    made = joined.get()
    assert made.after == {"step": 2, "image_batch": 2, "clip_batch": 2}
    assert (list(made.step.batches), made.num_samples) == (["clip", "image"], 6)
