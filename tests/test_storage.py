"""Storage: the same behavior in a local folder and behind a URL; mirrors that follow what they mirror."""

import hashlib
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipelines.errors import DataError, UsageError
from pipelines.shards.manifest import Shard
from pipelines.shards.storage import Storage, fetch, is_mirror, mirror, storage_of


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    store = storage_of(tmp_path / "out" if request.param == "local" else f"memory://{tmp_path.name}/out")
    store.make()
    yield store
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def remote_folder(url: str, tars: dict[str, bytes]) -> str:
    """A folder of shards as far as a mirror looks into it."""
    system, path = fsspec.core.url_to_fs(url)
    rows = ", ".join(
        f'{{"name": "{name}", "sha256": "{hashlib.sha256(content).hexdigest()}"}}' for name, content in tars.items()
    )
    for name, content in {
        "manifest.json": f'{{"shards": [{rows}]}}'.encode(),
        "samples.arrow": b"rows of " + rows.encode(),
        **tars,
    }.items():
        system.pipe_file(f"{path}/{name}", content)
    return url


def shard(name: str, content: bytes) -> Shard:
    digest = hashlib.sha256(content).hexdigest()
    return Shard(name=name, kind="image", split="train", num_samples=1, shard_bytes=len(content), sha256=digest)


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.write("a.tar", b"content")
    assert storage.read("a.tar") == b"content"
    assert storage.size("a.tar") == 7
    with storage.open("a.tar") as file:
        file.seek(3)
        assert file.read(2) == b"te"


def test_streams_are_published_at_the_end(storage: Storage) -> None:
    with storage.writing("a.tar") as file:
        file.write(b"one ")
        assert storage.size("a.tar") is None
        file.write(b"two")
    assert storage.read("a.tar") == b"one two"


def test_a_stream_that_breaks_publishes_nothing(storage: Storage) -> None:
    with pytest.raises(TypeError), storage.writing("a.tar") as file:
        assert file.write(b"half") + file.write(None)  # type: ignore[arg-type]
    assert storage.names("") == []


def test_writing_again_replaces(storage: Storage) -> None:
    storage.write("a.tar", b"long content")
    storage.write("a.tar", b"new")
    assert storage.read("a.tar") == b"new"


def test_names_by_suffix_at_the_top_and_in_the_records(storage: Storage) -> None:
    for name in ("b.tar", "a.tar", "a.idx", ".build/a.arrow", ".build/plan.arrow"):
        storage.write(name, b"x")
    assert storage.names(".tar") == ["a.tar", "b.tar"]
    assert storage.names(".arrow") == [".build/a.arrow", ".build/plan.arrow"]


def test_missing_files(storage: Storage) -> None:
    assert storage.size("none.tar") is None
    storage.remove("none.tar")
    with pytest.raises(FileNotFoundError):
        storage.read("none.tar")


def test_removed_is_gone(storage: Storage) -> None:
    storage.write("a.tar", b"x")
    storage.remove("a.tar")
    assert storage.names("") == []


def test_storage_travels_to_other_processes(storage: Storage) -> None:
    storage.write("a.tar", b"x")
    assert pickle.loads(pickle.dumps(storage)).read("a.tar") == b"x"


def test_names_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert storage_of(tmp_path / "none").names(".tar") == []
    assert storage_of("memory://none").names(".tar") == []


def test_only_local_files_have_a_path(tmp_path: Path) -> None:
    assert storage_of(tmp_path).path("a.tar") == tmp_path / "a.tar"
    assert storage_of("memory://x").path("a.tar") is None


def test_one_build_at_a_time(tmp_path: Path) -> None:
    one, two = storage_of(tmp_path / "out"), storage_of(tmp_path / "out")
    with one.lock(), pytest.raises(UsageError, match="another build is writing there"), two.lock():
        pass
    with two.lock():
        pass


def test_lock_clears_what_killed_builds_left(tmp_path: Path) -> None:
    (tmp_path / ".build").mkdir()
    for name in (".a.tar.77.tmp", ".build/.a.arrow.77.tmp", "mine.tmp"):
        (tmp_path / name).write_bytes(b"half")
    with storage_of(tmp_path).lock():
        assert sorted(os.listdir(tmp_path)) == [".build", "mine.tmp"]
        assert os.listdir(tmp_path / ".build") == ["lock"]
        (tmp_path / ".b.tar.78.tmp").write_bytes(b"half")  # of a worker that is lost meanwhile
    assert sorted(os.listdir(tmp_path)) == [".build", "mine.tmp"]


def test_a_file_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(UsageError, match=r"out: cannot write there .* Give --out a folder"):
        storage_of(tmp_path / "out").make()


def test_web_servers_are_read_only() -> None:
    with pytest.raises(UsageError, match="http can only be read"):
        storage_of("http://localhost:1/shards").make()


def test_mirror_has_the_manifest_and_fetches_shards_when_asked(cache: Path) -> None:
    folder = mirror(remote_folder("memory://one/shards", {"a.tar": b"AAA", "b.tar": b"B"}))
    assert folder.parent == cache
    assert sorted(path.name for path in folder.glob("[a-z]*")) == ["manifest.json", "mirror.json", "samples.arrow"]
    assert is_mirror(folder)
    assert fetch(folder, shard("a.tar", b"AAA")).read_bytes() == b"AAA"
    assert not (folder / "b.tar").exists()


def test_fetched_once(cache: Path) -> None:
    folder = mirror(remote_folder("memory://two/shards", {"a.tar": b"AAA"}))
    fetch(folder, shard("a.tar", b"AAA"))
    fsspec.filesystem("memory").rm_file("/two/shards/a.tar")
    assert fetch(folder, shard("a.tar", b"AAA")).read_bytes() == b"AAA"


def test_mirror_follows_a_rebuilt_folder(cache: Path) -> None:
    tars = {"a.tar": b"AAA", "b.tar": b"B"}
    url = remote_folder("memory://three/shards", tars)
    folder = mirror(url)
    for name, content in tars.items():
        fetch(folder, shard(name, content))
    remote_folder(url, {"a.tar": b"AAA", "b.tar": b"new"})
    assert mirror(url) == folder
    assert (folder / "a.tar").exists(), "unchanged, so it is kept"
    assert fetch(folder, shard("b.tar", b"new")).read_bytes() == b"new"
    assert b"rows of" in (folder / "samples.arrow").read_bytes()


def test_two_urls_of_one_name_have_two_mirrors(cache: Path) -> None:
    urls = [remote_folder(f"memory://{name}/shards", {"a.tar": name.encode()}) for name in ("x", "y")]
    assert mirror(urls[0]) != mirror(urls[1])


def test_damaged_download_is_refused_and_tried_again(cache: Path) -> None:
    url = remote_folder("memory://four/shards", {"a.tar": b"bad"})
    folder = mirror(url)
    with pytest.raises(DataError, match="the manifest says"):
        fetch(folder, shard("a.tar", b"good"))
    assert not (folder / "a.tar").exists()
    fsspec.filesystem("memory").pipe_file("/four/shards/a.tar", b"good")
    assert fetch(folder, shard("a.tar", b"good")).read_bytes() == b"good"


def test_missing_remote_shard_is_named(cache: Path) -> None:
    folder = mirror(remote_folder("memory://five/shards", {}))
    with pytest.raises(DataError, match=r"five/shards/a\.tar: cannot fetch it \(not found\)"):
        fetch(folder, shard("a.tar", b""))


def test_many_threads_fetch_one_shard(cache: Path) -> None:
    content = bytes(range(256)) * 4000
    folder = mirror(remote_folder("memory://six/shards", {"a.tar": content}))
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(folder, shard("a.tar", content)).read_bytes()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [content] * 8
    assert not list(folder.glob(".*.tmp"))


def test_mirror_of_nothing(cache: Path) -> None:
    with pytest.raises(UsageError, match=r"memory://none/shards: not a folder of shards"):
        mirror("memory://none/shards")


def test_an_ordinary_folder_is_no_mirror(tmp_path: Path) -> None:
    assert not is_mirror(tmp_path)
    assert fetch(tmp_path, shard("a.tar", b"")) == tmp_path / "a.tar"
