from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.media.clip_bytes import DEFAULT_CUT_THRESHOLD, ClipForm
from pipelines.shards.media.image_bytes import MAX_PIXELS, ImageForm


def config(**options: Any) -> BuildConfig:
    return BuildConfig.model_validate({"sources": ["a"], "out": "b"} | options)


def test_paths_are_paths_and_urls_stay_as_they_are() -> None:
    given = config(sources=["photos/", "s3://bucket/a//b.tar"], out="gs://x/y")
    assert given.sources == [Path("photos"), "s3://bucket/a//b.tar"]
    assert given.out == "gs://x/y"
    assert config().out == Path("b")


def test_defaults_are_those_of_the_forms() -> None:
    # Named again in the config, so that the command line need not import OpenCV and PyAV.
    assert config().image_form() == ImageForm()
    assert asdict(config().clip_form()) == asdict(ClipForm())
    assert (config().max_pixels, config().cut_threshold) == (MAX_PIXELS, DEFAULT_CUT_THRESHOLD)


@pytest.mark.parametrize(
    "options", [{}, {"clip_stride_s": 0.5}, {"clip_stride_s": 3.14}, {"num_frames": 7, "fps": 30}, {"fps": 0.5}]
)
def test_plan_counts_clips_as_the_form_does(options: dict[str, Any]) -> None:
    given = config(**options)
    form, rules = given.clip_form(), given.rules()
    assert (rules.num_frames, rules.fps, rules.clip_stride_s) == (form.num_frames, form.fps, form.stride_s)


def test_limits_are_in_bytes() -> None:
    limits = config(max_shard_mib=1.5, samples_per_shard=7).rules().limits
    assert (limits.max_bytes, limits.max_samples) == (3 * 2**19, 7)


def test_columns_have_their_names() -> None:
    columns = config(path_column="url", label_column="class", split_column="part", key_column="id").columns()
    assert asdict(columns) == {"path": "url", "label": "class", "split": "part", "key": "id"}


def test_no_number_of_workers_is_one_per_core() -> None:
    assert config().num_processes() == num_cores()
    assert config(num_workers=3).num_processes() == 3


def test_quality_that_the_codec_does_not_have_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"quality = 50; mjpeg needs 1 to 31"):
        config(clip_quality=50).clip_form()
    assert config(clip_quality=50, codec="vp9").clip_form().quality == 50


@pytest.mark.parametrize("val", ["every:1", "every:x", "hash:1.5", "hash:0", "some", "every:", "none:3"])
def test_wrong_split_rule_is_refused(val: str) -> None:
    with pytest.raises(ValidationError, match='need "none", "every:N"'):
        BuildConfig(sources=[Path("a")], out=Path("b"), val=val)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("samples_per_shard", 0), ("fps", 0), ("num_frames", 0), ("max_reject_ratio", 1.2), ("codec", "h264")),
        *(("short_side_px", 0), ("image_quality", 101), ("clip_stride_s", 0), ("engine", "dask"), ("check", "none")),
    ],
)
def test_wrong_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        BuildConfig.model_validate({"sources": ["a"], "out": "b", name: value})


def test_splits_take_one_source_or_several() -> None:
    given = config(sources=[], splits={"Training": "a", "validation": ["b", "s3://c"], "fold.1": ["d"]})
    assert given.splits == {"train": [Path("a")], "val": [Path("b"), "s3://c"], "fold_1": [Path("d")]}
    assert BuildConfig.model_validate(given.model_dump(mode="json")) == given


@pytest.mark.parametrize(
    "options", [{"splits": {"a b": "x"}}, {"splits": {"": "x"}}, {"sources": []}, {"splits": ["a"]}]
)
def test_splits_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**options)
