"""Shards in an S3 bucket and behind a web server: built to, listed, mirrored, and read like those of a local folder."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import numpy as np
import pytest
import webdataset

from pipelines.base.errors import DataError, UsageError
from pipelines.base.progress import quiet_progress
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.read.reader import SampleReader
from pipelines.run.color_counts import count_prior
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.shards.format.manifest import Manifest, load_manifest
from pipelines.shards.format.storage import storage_of
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.listing import list_sources
from pipelines.targets.color.color_prior import PRIOR_NAME, class_rebalancing
from tests.made.pictures import encode, smooth_picture

needs_s3 = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("moto", "s3fs", "flask")), reason="needs moto and s3fs"
)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of a bucket on a server of our own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", **access}.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        yield "s3://bucket"
    server.stop()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """URL of a server that shows `tmp_path`."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pictures(folder: Path, count: int) -> Path:
    for index in range(count):
        path = folder / ("bird", "fish")[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(smooth_picture(index, 40, 32)))
    return folder


def upload(folder: Path, url: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            system, target = fsspec.core.url_to_fs(f"{url}/{path.relative_to(folder).as_posix()}")
            system.pipe_file(target, path.read_bytes())
    return url


def samples(manifest: Manifest) -> dict[str, bytes]:
    table = manifest.select("image", "train")
    reader = SampleReader(table)
    return {key: bytes(reader.read(row)) for row, key in enumerate(table.keys)}


@needs_s3
def test_files_in_a_bucket(bucket: str) -> None:
    storage = storage_of(f"{bucket}/files")
    storage.make()
    storage.write(".build/a.arrow", b"record")
    with storage.writing("a.tar") as file:
        file.write(b"0123456789" * 1000)
        assert storage.size("a.tar") is None
    assert storage.names("") == [".build/a.arrow", "a.tar"]
    assert (storage.size("a.tar"), storage.read(".build/a.arrow")) == (10_000, b"record")
    with storage.open("a.tar") as file:
        file.seek(9_995)
        assert file.read() == b"56789"
    storage.remove("a.tar")
    storage.remove("a.tar")
    assert storage.names(".tar") == []
    with pytest.raises(FileNotFoundError):
        storage.read("a.tar")


@needs_s3
def test_missing_bucket_is_a_clear_error(bucket: str) -> None:
    with pytest.raises(UsageError, match=r"s3://no-such-bucket/x: cannot write there"):
        storage_of("s3://no-such-bucket/x").make()
    with pytest.raises(UsageError, match=r"s3://no-such-bucket/x: not a folder of shards"):
        load_manifest("s3://no-such-bucket/x")
    with pytest.raises(UsageError, match=r"s3://no-such-bucket/x/: cannot list this folder"):
        list(list_sources(["s3://no-such-bucket/x"]).items)


@needs_s3
def test_another_machine_s_files_are_seen_at_once(bucket: str) -> None:
    import boto3

    storage = storage_of(f"{bucket}/shared")
    storage.write("a.tar", b"ours")
    assert storage.names(".tar") == ["a.tar"]
    client = boto3.client("s3")
    client.put_object(Bucket="bucket", Key="shared/b.tar", Body=b"theirs")
    client.put_object(Bucket="bucket", Key="shared/a.tar", Body=b"changed")
    assert storage.names(".tar") == ["a.tar", "b.tar"]
    assert (storage.size("a.tar"), storage.read("a.tar")) == (7, b"changed")


@needs_s3
def test_folder_in_a_bucket_lists_like_a_local_one(bucket: str, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", 6)
    url = upload(folder, f"{bucket}/pictures")
    there = [item for batch in list_sources([url]).items for item in batch]
    here = [item for batch in list_sources([folder]).items for item in batch]
    assert [(item.size, *item[5:]) for item in there] == [(item.size, *item[5:]) for item in here]
    assert all(item.modified_ns > 0 for item in there)
    reader = ItemReader()
    assert [reader.read(item) for item in there] == [reader.read(item) for item in here]


@needs_s3
def test_shards_in_a_bucket_read_like_local_ones(bucket: str, small_shards: Callable[..., Path]) -> None:
    folder = small_shards(images=7, per_shard=3)
    assert samples(load_manifest(upload(folder, f"{bucket}/read"))) == samples(load_manifest(folder))


@needs_s3
def test_only_what_is_read_is_fetched(bucket: str, small_shards: Callable[..., Path]) -> None:
    manifest = load_manifest(upload(small_shards(images=7, per_shard=3), f"{bucket}/lazy"))
    reader = SampleReader(manifest.select("image", "train"))
    assert list(manifest.folder.glob("*.tar")) == []
    reader.read(4)
    assert [path.name for path in manifest.folder.glob("*.tar")] == ["train-images-000001.tar"]


@needs_s3
def test_shard_that_changed_in_the_bucket_is_refused(bucket: str, small_shards: Callable[..., Path]) -> None:
    manifest = load_manifest(upload(small_shards(images=2), f"{bucket}/changed"))
    storage_of(f"{bucket}/changed").write("train-images-000000.tar", b"other bytes")
    with pytest.raises(DataError, match=r"s3://bucket/changed/train-images-000000\.tar: sha256"):
        SampleReader(manifest.select("image", "train")).read(0)


@needs_s3
def test_colors_counted_after_the_first_look_rebalance_and_are_forgotten_with_their_file(
    bucket: str, small_shards: Callable[..., Path]
) -> None:
    folder = small_shards(images=4)
    url = upload(folder, f"{bucket}/colors")
    config = PipelineConfig.model_validate({"images": url, "tasks": {"colorization": {}}, "batch_size": 2})

    def heaviest() -> float:
        with build_pipeline(config, seed=0) as pipeline:
            return float(pipeline.tasks["colorization"].spec(2)["weight"].high)

    assert heaviest() == 1
    count_prior(folder, canvas_px=32)
    storage_of(url).write(PRIOR_NAME, (folder / PRIOR_NAME).read_bytes())
    weights = class_rebalancing(np.array(json.loads((folder / PRIOR_NAME).read_bytes())["prior"]))
    assert heaviest() == pytest.approx(float(weights.max())) != 1
    storage_of(url).remove(PRIOR_NAME)
    assert heaviest() == 1


def test_shards_behind_a_web_server(web: str, small_shards: Callable[..., Path]) -> None:
    folder = small_shards(images=4)
    assert samples(load_manifest(f"{web}/shards")) == samples(load_manifest(folder))


def test_folder_list_and_tar_behind_a_web_server(web: str, tmp_path: Path, small_shards: Callable[..., Path]) -> None:
    pictures(tmp_path / "pictures", 3)
    (tmp_path / "list.csv").write_text("path\npictures/fish/1.jpg\n")
    small_shards(images=1)
    given = [f"{web}/pictures", f"{web}/list.csv", f"{web}/shards/train-images-000000.tar"]
    items = [item for batch in list_sources(given).items for item in batch]
    assert [(item.source, item.label) for item in items] == [
        ("bird/0.jpg", "bird"),
        ("bird/2.jpg", "bird"),
        ("fish/1.jpg", "fish"),
        ("pictures/fish/1.jpg", None),
        ("train-images-000000.tar/train0000.jpg", None),
    ]
    assert all(ItemReader().read(item).startswith(b"\xff\xd8") for item in items)


def test_missing_page_behind_a_web_server(web: str) -> None:
    (item,) = next(list_sources([f"{web}/none.jpg"]).items)
    with pytest.raises(FileNotFoundError):
        ItemReader().read(item)
    with pytest.raises(UsageError, match="not a folder of shards"):
        load_manifest(f"{web}/none")


@needs_s3
def test_build_to_a_bucket_is_the_local_build(bucket: str, tmp_path: Path) -> None:
    folder, url = pictures(tmp_path / "pictures", 7), f"{bucket}/built"
    options = {"samples_per_shard": 3, "val": "hash:0.3", "num_workers": 1}
    with quiet_progress():
        build_shards(BuildConfig(sources=[folder], out=tmp_path / "out", **options))
        build_shards(BuildConfig(sources=[upload(folder, f"{bucket}/source")], out=url, **options))
    names = [path.name for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert {name for name in storage_of(url).names("") if "/" not in name} == set(names)
    for name in names:
        assert storage_of(url).read(name) == (tmp_path / "out" / name).read_bytes(), name
    assert samples(load_manifest(url)) == samples(load_manifest(tmp_path / "out"))


@needs_s3
def test_shards_of_a_bucket_open_in_plain_webdataset(bucket: str, tmp_path: Path) -> None:
    folder, url = pictures(tmp_path / "pictures", 4), f"{bucket}/plain"
    with quiet_progress():
        build_shards(BuildConfig(sources=[folder], out=url, num_workers=1))
    content = storage_of(url).read("train-images-000000.tar")
    assert hashlib.sha256(content).hexdigest() == load_manifest(url).shards[0].sha256
    (tmp_path / "copy.tar").write_bytes(content)
    found = {
        one["__key__"]: one["jpg"] for one in webdataset.WebDataset(str(tmp_path / "copy.tar"), shardshuffle=False)
    }
    assert found == {f"{path.parent.name}/{path.stem}": path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}
