"""Limits of the machine: measured once for a set of shards, kept, measured anew for others or after damage."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.harness.page_cache import MAX_RESIDENT_RATIO
from benchmarks.profile.measure import ceilings as limits
from benchmarks.profile.measure.ceilings import Span, ceilings, fingerprint_of, read_speed
from pipelines.build import PipelineConfig
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NUM_REPEATS", 1)
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
    assert set(found.flow_pairs_per_s) == {"dis", "farneback"}
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


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for index in range(3):
        (tmp_path / f"{index}.tar").write_bytes(bytes(100_000 + index))
    return sorted(tmp_path.iterdir())


def samples(files: list[Path]) -> list[Span]:
    return [(path, 1000 * index, 1000) for path in files for index in range(50)]


def test_warm_speeds_are_measured(files: list[Path]) -> None:
    found = read_speed(files, samples(files))
    assert found.sequential_warm_bytes_per_s > 0
    assert found.random_warm_bytes_per_s > 0


@pytest.mark.parametrize(("stayed", "is_cold"), [(0.0, True), (MAX_RESIDENT_RATIO, True), (0.5, False), (1.0, False)])
def test_cold_stands_only_where_files_were_dropped_from_memory(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, stayed: float, is_cold: bool
) -> None:
    dropped: list[set[Path]] = []
    monkeypatch.setattr(limits, "drop", lambda paths: dropped.append(set(paths)) or stayed)
    found = read_speed(files, samples(files))
    cold = found.sequential_cold_bytes_per_s, found.random_cold_bytes_per_s
    assert [one is not None and one > 0 for one in cold] == [is_cold, is_cold]
    assert (found.random_cold_reads_per_s == pytest.approx(cold[1] / 1000)) if is_cold else cold == (None, None)
    assert dropped == [set(files), set(files)]
    assert found.note.startswith("cold:") == is_cold


def test_reading_gets_every_byte_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 20
    (tmp_path / "a").write_bytes(content)
    monkeypatch.setattr(limits, "CHUNK_BYTES", 100)
    read: list[bytes] = []

    class Noted(io.FileIO):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            count = super().readinto(buffer)
            read.append(bytes(buffer[:count]))
            return count

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: Noted(path))
    limits._read([(tmp_path / "a", 7, 1000), (tmp_path / "a", 5000, 120)])
    assert b"".join(read) == content[7:1007] + content[5000:5120]


def test_no_more_is_read_than_needed(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BYTES", 150_000)
    assert limits._beginnings(files) == [(files[0], 0, 100_000), (files[1], 0, 50_000)]
