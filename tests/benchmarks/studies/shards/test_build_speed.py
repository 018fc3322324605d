import io
import json
import tarfile
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from benchmarks.studies.shards import build_speed as shards_benchmark
from benchmarks.studies.shards.build_contenders import CONTENDERS, BuildCost
from benchmarks.studies.shards.build_speed import BuildSpeedOptions, _memory, _ratio, measure_builds, packed_images
from pipelines.base.errors import DataError


def cost(seconds: float, peak_mib: float = 100.0) -> BuildCost:
    return BuildCost(seconds=seconds, peak_mib=peak_mib, worker_peak_mib=50.0)


def test_images_in_tars_are_counted_by_content(tmp_path: Path) -> None:
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for name in ("./a/x.jpg", "y.jpg", "y.json"):
                info = tarfile.TarInfo(name)
                info.size = 1
                archive.addfile(info, io.BytesIO(b"y" if name[0] == "y" else b"x"))
    assert packed_images(tmp_path) == Counter({sha256(b"x").digest(): 2, sha256(b"y").digest(): 2})


def test_ratio_of_speeds_is_that_of_the_median_times() -> None:
    rates, base = [1 / 1.0, 1 / 2.0, 1 / 8.0], [1 / 6.0, 1 / 6.0, 1 / 8.0]
    assert _ratio(rates, base, 3.0) == {
        "of_medians": 3.0,
        "pairs": [6.0, 3.0, 1.0],
        "least": 3.0,
        "is_reached": True,
    }
    assert not _ratio(rates, base, 3.1)["is_reached"]


@pytest.mark.parametrize(("peak_mib", "is_reached"), [(120.0, True), (121.0, False)])
def test_memory_may_grow_by_a_fifth(peak_mib: float, is_reached: bool) -> None:
    assert _memory(cost(1.0), [cost(1.0, peak_mib)])["is_reached"] is is_reached


def test_a_contender_that_packs_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_benchmark, "run_contender", lambda name, source, out: out.mkdir())
    with pytest.raises(DataError, match="header: packed 0 images, not the 20 that were given"):
        measure_builds(BuildSpeedOptions(num_images=20, num_few_images=5), tmp_path)


def run_here(name: str, source: Path | str, out: Path) -> BuildCost:
    CONTENDERS[name][1](str(source), out)
    return cost(0.5)


def test_small_run_gives_all_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_benchmark, "run_contender", run_here)
    options = BuildSpeedOptions(num_images=40, num_few_images=20, num_repeats=2, num_simulated=5000)
    results = measure_builds(options, tmp_path)
    assert json.loads(json.dumps(results)) == results
    assert {name: speed["files_per_s"] for name, speed in results["speeds"].items()} == {
        name: [80.0, 80.0] for name in ("header", "decode", "shard_writer", "shard_writer_decode", "tar")
    }
    assert [ratio["is_reached"] for ratio in results["ratios"].values()] == [False, True, False]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "many"]
