from pathlib import Path

import pytest

from benchmarks.studies.shards.build_contenders import CONTENDERS, run_contender, simulate
from benchmarks.studies.shards.build_kill import write_small_images
from pipelines.shards.format.manifest import load_manifest


@pytest.mark.parametrize("name", ["header", "decode", "shard_writer", "shard_writer_decode", "tar"])
def test_contenders_write_tars(tmp_path: Path, name: str) -> None:
    write_small_images(tmp_path / "images", 12, num_classes=3)
    CONTENDERS[name][1](str(tmp_path / "images"), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.tar"))) == 1


def test_simulated_samples_are_all_in_the_manifest_once(tmp_path: Path) -> None:
    simulate(2500, tmp_path)
    manifest = load_manifest(tmp_path)
    assert [shard.num_samples for shard in manifest.shards] == [1000, 1000, 500]
    table = manifest.select("image", "train")
    assert sorted(table.keys) == [f"class/{number:010d}.jpg" for number in range(2500)]
    assert list(table.keys) != sorted(table.keys)


def test_a_run_has_a_process_and_a_peak_of_its_own(tmp_path: Path) -> None:
    cost = run_contender("simulate", "1000", tmp_path / "out")
    assert 0 < cost.seconds < 60
    # Not that of the process that started it, which in a test run holds all that other tests have imported.
    assert 20 < cost.peak_mib < 400
