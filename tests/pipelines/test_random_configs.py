"""Random configurations: each is refused when it is built, with the name of a field, or gives what its tasks promise.

A few in every test run; `RANDOM_CONFIGS=1000 pytest tests/pipelines/test_random_configs.py` for many.
"""

import os
import re

import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.tasks import TASKS
from tests.made.pictures import stored_clips, stored_images, write_folder

NUM_CONFIGS = int(os.environ.get("RANDOM_CONFIGS", "40"))
NUM_STEPS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("random")
    first = write_folder(root / "first", stored_images(13) + stored_clips(4, num_frames=6))
    second = write_folder(root / "second", stored_images(4, suffix="png") + stored_clips(2, num_frames=5), per_shard=2)
    return {"first": first, "second": second, "nowhere": root / "nowhere"}


def mostly(valid, *wrong):
    """Values that are allowed; one time in sixty another one."""
    return st.integers(0, 59).flatmap(lambda draw: st.sampled_from(wrong) if draw == 59 else valid)


def bounds(low, high):
    return mostly(st.tuples(st.floats(low, high), st.floats(low, high)).map(sorted), (high, low), (-1.0, high))


def some(**choices):
    """A mapping of some of the options."""
    return st.fixed_dictionaries({}, optional=choices)


WEIGHT = mostly(st.sampled_from([1.0, 0.5, 0.2]), 0.0, 2.0)
SHARE = mostly(st.sampled_from([1.0, 0.5, 7.0]), 0.0, -1.0, 1e-9, "much")
RATIO = mostly(st.floats(0, 1), -0.1, 1.5)
TASK_OPTIONS = {
    "relative_position": some(
        task_weight=WEIGHT,
        form=mostly(st.sampled_from(["grid", "grid", "pairs"]), "ring"),
        rows=mostly(st.integers(3, 4), 2),
        cols=mostly(st.integers(3, 4), 9),
        grids_per_image=mostly(st.integers(1, 2), 0),
        canvas_px=mostly(st.sampled_from([48, 61, 80]), 7),
        patch_px=mostly(st.integers(1, 14), 0, 40),
        gap_px=mostly(st.integers(0, 9), -1, 30),
        jitter_px=mostly(st.integers(0, 3), -1, 20),
        pairs_per_image=mostly(st.integers(1, 3), 0),
        color=mostly(st.sampled_from(["drop", "project", "gray", "keep"]), "bright"),
        resample_probability=RATIO,
    ),
    "colorization": some(
        task_weight=WEIGHT,
        target=mostly(st.sampled_from(["soft", "hard"]), "none"),
        num_neighbors=mostly(st.integers(1, 32), 0, 33),
        sigma=mostly(st.floats(0.1, 50), 0.0),
        uniform_share=mostly(st.floats(0.01, 1), 0.0),
        rebalance=st.booleans(),
        mask_gray=st.booleans(),
    ),
    "exemplar": some(
        task_weight=WEIGHT,
        patch_px=mostly(st.integers(2, 30), 1, 99),
        translation_ratio=RATIO,
        scale=bounds(0.1, 3),
        rotation_deg=mostly(st.floats(0, 180), 181.0),
        pca_factor=bounds(0.1, 3),
        power=bounds(0.1, 5),
        factor=bounds(0.1, 3),
        shift=RATIO,
        hue_shift=mostly(st.floats(0, 0.5), 0.6),
    ),
    "motion_segmentation": some(
        task_weight=WEIGHT,
        engine=mostly(st.sampled_from(["dis", "farneback"]), "eyes", "lucas_kanade"),
        num_threads=st.just(1),
        remembered_clips=mostly(st.integers(0, 3), -1),
    ),
    "supervised": some(task_weight=WEIGHT, batch_size=mostly(st.sampled_from([2, 3, 4]), 0, 9)),
}
PLACES = mostly(st.sampled_from(["first", "first", "second"]), "nowhere")
SOURCES = PLACES | st.lists(st.fixed_dictionaries({"path": PLACES}, optional={"weight": SHARE}), min_size=1, max_size=3)
PIPELINES = st.fixed_dictionaries(
    {
        "images": mostly(SOURCES, None, []),
        "clips": mostly(SOURCES, None, []),
        "tasks": st.sets(st.sampled_from([*TASK_OPTIONS]), min_size=1).flatmap(
            lambda names: st.fixed_dictionaries({name: TASK_OPTIONS[name] for name in sorted(names)})
        ),
        "canvas_px": mostly(st.sampled_from([24, 32, 40, 64]), 7, 8, 30, 97),
        "clip_height_px": mostly(st.sampled_from([32, 33, 48]), 31),
        "clip_width_px": st.sampled_from([32, 45, 64]),
        "num_frames": mostly(st.sampled_from([2, 4, 5]), 1, 6, 7),
        "batch_size": mostly(st.sampled_from([4, 6, 8]), 0, 1, 3),
        "clip_batch_size": mostly(st.sampled_from([2, 4]), 0, 1, 3),
        "num_threads": st.sampled_from([1, 2]),
    },
    optional={
        "canvas_scale": bounds(0.05, 1.0),
        "flip_probability": RATIO,
        "share_decode": st.booleans(),
        "harmonize": mostly(st.sampled_from(["off", "paper", "all"]), "some"),
        "prefetch_batches": mostly(st.sampled_from([1, 3]), 0),
        "window_shards": mostly(st.integers(1, 4), 0),
        "split": mostly(st.just("train"), "val"),
        "max_failure_ratio": RATIO,
        "cache_gib": mostly(st.just(1.0), 0.0),
    },
)
FIELDS = [
    *PipelineConfig.model_fields,
    "form",
    "pairs_per_image",
    "grids_per_image",
    "weight",
    "path",
    "world_size",
    "rank",
    "split",
]


def placed(value, folders):
    """Folders for their names, everywhere in a value."""
    if isinstance(value, str):
        return str(folders.get(value, value))
    if isinstance(value, list):
        return [placed(one, folders) for one in value]
    return {name: placed(one, folders) for name, one in value.items()} if isinstance(value, dict) else value


def assert_names_a_field(message):
    assert any(re.search(rf"\b{field}\b", message) for field in FIELDS), message


def assert_promised(batch, task, num_samples):
    promised = task.spec(num_samples)
    tensors = {"inputs": batch.inputs, "weight": batch.weight} | batch.target
    assert set(tensors) == set(promised)
    for name, tensor in tensors.items():
        spec = promised[name]
        assert (tuple(tensor.shape), tensor.dtype) == (spec.shape, spec.dtype), name
        assert bool(torch.isfinite(tensor.double()).all()), name
        assert spec.low <= float(tensor.min()), name
        # Weights of a rebalanced target are promised as Python floats and kept in 32 bits.
        assert float(tensor.max()) <= spec.high * (1 + 1e-6), name


@settings(
    max_examples=NUM_CONFIGS,
    deadline=None,
    derandomize=NUM_CONFIGS < 1000,  # a few: the same every time
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
@given(value=PIPELINES, seed=st.integers(0, 3), world_size=st.sampled_from([1, 1, 1, 2]), augment=st.booleans())
def test_refused_with_the_name_of_a_field_or_as_promised(folders, value, seed, world_size, augment):
    try:
        config = validate(PipelineConfig, placed(value, folders), source="config")
        pipeline = build_pipeline(config, seed=seed, world_size=world_size, augment=augment)
    except UsageError as error:
        event("refused")
        assert_names_a_field(str(error))
        return
    event("built")
    with pipeline:
        for _ in range(NUM_STEPS):
            for name, batch in next(pipeline).batches.items():
                read = config.batch_size_of_task(name) if augment else config.batch_size_of(TASKS[name].source)
                size = read // world_size
                assert len(batch.keys) == size
                assert_promised(batch, pipeline.tasks[name], size)
