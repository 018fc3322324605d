import hashlib
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.format.table import SAMPLE_SCHEMA
from pipelines.shards.format.tar_writer import Sample, TarFacts, TarWriter, tar_bytes
from tests.made.media import encoded_image, picture


def sample(key: str, content: bytes, label: int = 3) -> Sample:
    return Sample(key, [("jpg", content), ("cls", b"3"), ("json", b'{"width": 64}')], 64, 48, label)


def tar_of(*samples: Sample) -> tuple[bytes, TarFacts]:
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    for one in samples:
        writer.add(one)
    facts = writer.finish()
    return buffer.getvalue(), facts


def reference(*samples: Sample) -> bytes:
    """The same by Python's tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as archive:
        for one in samples:
            for extension, content in one.members:
                info = tarfile.TarInfo(f"{one.key}.{extension}")
                info.size, info.mode = len(content), 0o644
                archive.addfile(info, io.BytesIO(content))
        size = archive.offset + 1024
    return buffer.getvalue()[:size]


@pytest.mark.parametrize("num_bytes", [0, 1, 511, 512, 513, 5000, 3 * 2**20])
def test_bytes_are_those_of_tarfile(num_bytes: int) -> None:
    samples = [sample("cat/0001", b"x" * num_bytes), sample("ü" * 40 + "_t00000012", b"y"), sample("x" * 88, b"z")]
    content, facts = tar_of(*samples)
    assert content == reference(*samples)
    assert (facts.num_bytes, facts.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@given(st.lists(st.tuples(st.from_regex(r"[\w/-]{1,30}", fullmatch=True), st.binary(max_size=2000)), max_size=8))
def test_any_samples_give_the_bytes_of_tarfile(pairs: list[tuple[str, bytes]]) -> None:
    samples = [sample(key, content) for key, content in pairs if len(key.encode()) < 90]
    assert tar_of(*samples)[0] == reference(*samples)


def test_rows_point_at_the_bytes() -> None:
    contents = [encoded_image(picture(seed=index)) for index in range(3)]
    content, facts = tar_of(*(sample(f"k{index}", one, index) for index, one in enumerate(contents)))
    rows = facts.samples
    rows.validate(full=True)
    assert rows.schema.equals(SAMPLE_SCHEMA)
    places = zip(rows.column("offset").to_pylist(), rows.column("size").to_pylist(), strict=True)
    assert [content[offset : offset + size] for offset, size in places] == contents
    assert rows.drop_columns(["offset", "size"]).to_pylist() == [
        {"key": f"k{index}", "width": 64, "height": 48, "label": index, "num_frames": 1, "fps": 0.0}
        for index in range(3)
    ]


def test_index_points_at_the_members() -> None:
    content, facts = tar_of(sample("a", b"x" * 700), sample("cat/bär", b"y"))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        groups = [f"{info.name.rpartition('.')[2]} {info.offset_data} {info.size} {info.name}" for info in archive]
    assert facts.index_content.decode() == f"v1.2 2\n{' '.join(groups[:3])}\n{' '.join(groups[3:])}\n"


@pytest.mark.parametrize("num_bytes", [0, 1, 512, 513])
def test_bytes_in_a_tar_count_header_and_padding(num_bytes: int) -> None:
    assert tar_bytes(num_bytes) == len(reference(Sample("a", [("jpg", b"x" * num_bytes)], 1, 1))) - 1024


def test_nothing_is_no_rows() -> None:
    assert TarWriter.nothing().samples.equals(pa.RecordBatch.from_pylist([], schema=SAMPLE_SCHEMA))


def test_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit a ustar header"):
        tar_of(sample("x" * 97, b""))


def test_webdataset_reads_a_shard(tmp_path: Path) -> None:
    content, _ = tar_of(*(sample(f"cat/{index}", encoded_image(picture())) for index in range(3)))
    (tmp_path / "a.tar").write_bytes(content)
    dataset = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode("rgb8")
    samples = list(dataset)
    assert [one["__key__"] for one in samples] == ["cat/0", "cat/1", "cat/2"]
    assert samples[0]["jpg"].shape == (48, 64, 3)
    assert (samples[0]["cls"], samples[0]["json"]) == (3, json.loads('{"width": 64}'))
