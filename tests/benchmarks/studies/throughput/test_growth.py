"""Growth: simulated data sets are real to a reader, and every data set is compared with the first of its group."""

import os

from benchmarks.studies.throughput.growth import GrowthOptions, data_sets, measure_cost, measure_memory
from benchmarks.studies.throughput.made_shards import simulated_shards
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest

SMALL = GrowthOptions(num_repeats=1, num_batches=2, batch_size=8, largest=1000, memory_batches=10)


def test_simulated_shards_are_one_tar_under_many_names(tmp_path):
    folder = simulated_shards(tmp_path / "shards", num_shards=3, samples_per_shard=4, image_px=16)
    table = load_manifest(folder).select("image", "train")
    assert len(set(table.keys)) == len(table) == 12
    assert len({os.stat(path).st_ino for path in folder.glob("*.tar")}) == 1
    reader = SampleReader(table)
    assert bytes(reader.read(0)) == bytes(reader.read(8))
    assert bytes(reader.read(0)).startswith(b"\xff\xd8")


def test_every_data_set_has_its_numbers(tmp_path):
    rows = measure_cost(tmp_path, SMALL)
    assert [row["name"] for row in rows] == list(data_sets(SMALL))
    assert {row["name"] for row in rows if row["ratio"] == 1} >= {"1 shards", "1000 samples", "epoch 1"}
    assert all(row["median_cpu_us_per_sample"] > 0 and row["first_step_s"] > 0 for row in rows)


def test_memory_is_followed_along_a_run(tmp_path):
    found = measure_memory(tmp_path, SMALL)
    assert found["batches"] == list(range(1, 11))
    assert found["mib_at_the_end"] > 10
