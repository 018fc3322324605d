from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.shards.format.table import SAMPLE_SCHEMA, Elsewhere, Shard
from pipelines.shards.tools.adopted_rows import in_full, renumbered


def test_labels_and_keys_change_and_nothing_else() -> None:
    rows = {"key": ["a", "b", "c"], "offset": [512, 2048, 4096], "size": [1, 2, 3], "width": [4, 5, 6]}
    rows |= {"height": [7, 8, 9], "label": [1, -1, 0], "num_frames": [1] * 3, "fps": [0.0] * 3}
    before = pa.RecordBatch.from_pydict(rows, schema=SAMPLE_SCHEMA)
    after = renumbered(before, (5, 3), "set/")
    assert after.to_pydict() == before.to_pydict() | {"key": ["set/a", "set/b", "set/c"], "label": [3, -1, 5]}
    assert after.schema == SAMPLE_SCHEMA


@pytest.mark.parametrize("location", ["/data/b.tar", "s3://p/b.tar", "tars/b.tar"])
def test_locations_hold_in_another_folder(tmp_path: Path, location: str) -> None:
    elsewhere = Elsewhere(location=location, modified_ns=5, is_trusted=True)
    old = Shard(
        name="b.tar", kind="image", split="train", num_samples=1, shard_bytes=3, sha256="0" * 64, elsewhere=elsewhere
    )
    new = in_full(old, old, tmp_path).elsewhere
    assert new is not None
    assert new.location == (str(tmp_path / location) if location.startswith("tars") else location)
    assert (new.modified_ns, new.is_trusted) == (5, True)
