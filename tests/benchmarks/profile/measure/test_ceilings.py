"""Limits of the machine: measured once for a set of shards, kept, measured anew for others or after damage."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.profile.measure import ceilings as limits
from benchmarks.profile.measure.ceilings import ceilings, fingerprint_of
from pipelines.build import PipelineConfig
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ONE_S", 0.01)
    monkeypatch.setattr(limits, "COPY_BYTES", 1 << 16)
    monkeypatch.setattr(limits, "MATRIX_SIZE", {"cpu": 32})


@pytest.fixture
def config(small_shards: MakeShards) -> PipelineConfig:
    return made_config(images=small_shards(8), batch_size=4, canvas_px=64).pipeline


def test_measured_once_and_kept(config: PipelineConfig, tmp_path: Path) -> None:
    found, is_cached = ceilings(config, CPU, tmp_path / "cache")
    assert not is_cached
    assert ceilings(config, CPU, tmp_path / "cache") == (found, True)


def test_what_there_is_none_of_is_not_measured(config: PipelineConfig, tmp_path: Path) -> None:
    found, _ = ceilings(config, CPU, tmp_path / "cache")
    assert found.decode_images_per_s is not None
    assert found.decode_images_per_s > 0
    assert found.read is not None
    assert found.read.random_warm_bytes_per_s > 0
    assert found.decode_clips_per_s is None
    assert found.flow_pairs_per_s == {}
    assert found.to_device_bytes_per_s is None
    assert found.matrix_flop_per_s > 0


def test_clips_have_flow(small_shards: MakeShards, tmp_path: Path) -> None:
    tasks = {"motion_segmentation": {}}
    one = made_config(clips=small_shards(0, 4), images=None, tasks=tasks, clip_batch_size=2, num_frames=6).pipeline
    found, _ = ceilings(one, CPU, tmp_path / "cache")
    assert set(found.flow_pairs_per_s) == {"lucas_kanade", "dis fast"}
    assert found.decode_images_per_s is None
    assert found.decode_clips_per_s is not None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"read": 3}', '{"read": null, "odd": 1}'])
def test_a_damaged_cache_is_measured_anew(config: PipelineConfig, tmp_path: Path, content: str) -> None:
    path = tmp_path / f"ceilings-{fingerprint_of(config, CPU)}.json"
    path.write_text(content)
    assert not ceilings(config, CPU, tmp_path)[1]
    assert ceilings(config, CPU, tmp_path)[1]


def test_a_cache_that_cannot_be_written_costs_only_time(config: PipelineConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert not ceilings(config, CPU, tmp_path / "file")[1]


def test_the_cache_is_where_the_environment_says(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "there"))
    ceilings(config, CPU)
    assert [path.suffix for path in (tmp_path / "there").iterdir()] == [".json"]


def test_other_shards_have_other_limits(small_shards: MakeShards) -> None:
    one, same, other = (small_shards(count, name=name) for count, name in ((8, "a"), (8, "b"), (9, "c")))
    prints = [fingerprint_of(made_config(images=folder).pipeline, CPU) for folder in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]
