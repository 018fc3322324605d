"""Sizes and motion of hand-made shards against NumPy."""

import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.tools import shard_stats as stats_module
from pipelines.shards.tools.shard_stats import NEAR_STATIC, Spread, measure
from tests.made.pictures import stored_clips, stored_images
from tests.made.whole_shards import write_splits, write_whole


def with_motion(folder: Path, motions: list[float | None]) -> Path:
    """Clips, three to a shard, whose sidecars say how much moves; the tars are written anew around the same clips."""
    write_whole(folder, stored_clips(len(motions)))
    left = iter(motions)
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
        lines: dict[str, str] = {}
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in members:
                if name.endswith(".json") and (motion := next(left)) is not None:
                    content = json.dumps(json.loads(content) | {"motion": motion}).encode()
                info = tarfile.TarInfo(name)
                info.size = len(content)
                offset = tar.offset + 512
                tar.addfile(info, io.BytesIO(content))
                stem, _, extension = name.partition(".")
                lines[stem] = f"{lines.get(stem, '')} {extension} {offset} {len(content)} {name}".strip()
        path.with_suffix(".idx").write_text("\n".join([f"v1.2 {len(lines)}", *lines.values(), ""]))
    return folder


def test_quantiles_are_numbers_that_occur() -> None:
    values = np.random.default_rng(0).permutation(np.arange(101) * 10)
    assert Spread.of(values) == Spread(min=0, p5=50, median=500, p95=950, max=1000)
    assert Spread.of(np.array([7])) == Spread(min=7, p5=7, median=7, p95=7, max=7)


def test_sizes_of_every_kind_and_split(tmp_path: Path) -> None:
    images, val, clips = stored_images(9), stored_images(4, split="val"), stored_clips(2)
    folder = write_splits(tmp_path / "shards", {"train": [*images, *clips], "val": val}, labels=("a", "b", "c"))
    groups = measure(folder).groups
    assert [(group.kind, group.split, group.num_samples) for group in groups] == [
        ("image", "train", 9),
        ("image", "val", 4),
        ("clip", "train", 2),
    ]
    assert groups[0].width_px == Spread.of(np.array([one.width for one in images]))
    assert groups[1].height_px == Spread.of(np.array([one.height for one in val]))
    assert groups[2].sample_bytes.max == max(len(one.encoded) for one in clips)
    assert groups[0].motion is None


def test_motion_comes_from_all_sidecars(tmp_path: Path) -> None:
    motions = [0.1, 5.0, 0.2, 2.0, 7.5, 3.0, 1.0]
    (group,) = measure(with_motion(tmp_path / "shards", [*motions])).groups
    assert group.motion is not None
    assert group.motion.num_clips == 7
    assert group.motion.motion == Spread.of(np.array(motions))
    assert group.motion.near_static_ratio == pytest.approx(sum(m < NEAR_STATIC for m in motions) / 7)


def test_of_very_many_clips_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_motion(tmp_path / "shards", [1.0] * 9)
    monkeypatch.setattr(stats_module, "MAX_CLIPS", 3)
    (group,) = measure(folder).groups
    assert group.num_samples == 9
    assert group.motion is not None
    assert group.motion.num_clips == 3


def test_clips_without_the_fact_have_no_motion(tmp_path: Path) -> None:
    (group,) = measure(with_motion(tmp_path / "shards", [None] * 4)).groups
    assert group.motion is None


def test_a_remote_folder_is_measured_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    folder = with_motion(tmp_path / "shards", [1.0, 2.0, 3.0, 4.0])
    fsspec.filesystem("memory").put(str(folder), "/stats/shards", recursive=True)
    measured = measure("memory://stats/shards")
    assert measured.groups == measure(folder).groups
    assert not list((tmp_path / "cache").rglob("*.tar"))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = with_motion(tmp_path / "shards", [1.0] * 4)
    (folder / "train-clips-000001.tar").unlink()
    with pytest.raises(DataError, match=r"train-clips-000001\.tar: cannot read its sidecars.*shards verify"):
        measure(folder)


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    folder = with_motion(tmp_path / "shards", [1.0] * 4)
    (folder / "train-clips-000000.idx").write_text("v1.2 9\n")
    with pytest.raises(DataError, match="train-clips-000000"):
        measure(folder)


def test_no_folder_of_shards(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        measure(tmp_path / "nowhere")
