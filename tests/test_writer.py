import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import webdataset

from pipelines.shards.samples import Sample
from pipelines.shards.writer import TarWriter
from tests.media import encoded_image, picture


def sample(key: str, content: bytes, **others: int) -> Sample:
    members = (("jpg", content), ("cls", b"3"), ("json", b'{"width": 64}'))
    return Sample(key=key, members=members, width=64, height=48, **others)


def written(*samples: Sample) -> tuple[bytes, TarWriter]:
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    for one in samples:
        writer.add(one)
    return buffer.getvalue(), writer


@pytest.mark.parametrize("num_bytes", [0, 1, 511, 512, 513, 5000])
def test_tarfile_reads_what_was_written(num_bytes: int) -> None:
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    writer.add(sample("cat/0001", bytes(range(256)) * 20 if num_bytes == 5000 else b"x" * num_bytes))
    writer.finish("a.tar", "image", "train")
    buffer.seek(0)
    with tarfile.open(fileobj=buffer, mode="r:") as archive:
        members = archive.getmembers()
        contents = [archive.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    assert [member.name for member in members] == ["cat/0001.jpg", "cat/0001.cls", "cat/0001.json"]
    assert [len(content) for content in contents[:1]] == [5120 if num_bytes == 5000 else num_bytes]
    assert contents[1:] == [b"3", b'{"width": 64}']
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}


def test_manifest_entry_points_at_the_bytes() -> None:
    contents = [encoded_image(picture(seed=index)) for index in range(3)]
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    for index, content in enumerate(contents):
        writer.add(sample(f"k{index}", content, label=index))
    shard = writer.finish("train-images-000000.tar", "image", "train")
    data = buffer.getvalue()
    rows = zip(shard.columns["offset"], shard.columns["size"], strict=True)
    assert [data[offset : offset + size] for offset, size in rows] == contents
    assert (shard.keys, shard.columns["label"].tolist()) == (("k0", "k1", "k2"), [0, 1, 2])
    assert (shard.shard_bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(data) % 512 == 0


def test_names_up_to_the_ustar_limit_and_beyond_ascii() -> None:
    keys = ["ü" * 40 + "_c000012", "x" * 88]
    data, _ = written(*(sample(key, b"x") for key in keys))
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024)), mode="r:") as archive:
        assert archive.getnames()[::3] == [f"{key}.jpg" for key in keys]


def test_webdataset_reads_a_shard(tmp_path: Path) -> None:
    pixels = picture()
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        writer = TarWriter(file)
        for index in range(3):
            writer.add(sample(f"cat/{index}", encoded_image(pixels, "JPEG")))
        writer.finish("a.tar", "image", "train")
    dataset = webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8")
    samples = list(dataset)
    assert [one["__key__"] for one in samples] == ["cat/0", "cat/1", "cat/2"]
    assert samples[0]["jpg"].shape == (48, 64, 3)
    assert (samples[0]["cls"], samples[0]["json"]) == (3, json.loads('{"width": 64}'))
