"""Mirrors follow what they mirror, and fetch a shard once, when it is asked for."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.format.manifest import Shard
from pipelines.shards.format.mirror import is_mirror, mirror
from pipelines.shards.format.shard_place import fetch


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


KILLED_WHILE_IT_DOWNLOADS = """
import os, signal, sys
from pathlib import Path
from pipelines.shards.format import shard_place
from pipelines.shards.format.manifest import Shard

class Dies:
    def get_file(self, remote, local):
        Path(local).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

shard_place.filesystem = lambda url: (Dies(), url)
shard = Shard(name="a.tar", kind="image", split="train", num_samples=1, shard_bytes=3, sha256="0" * 64)
shard_place.fetch(Path(sys.argv[1]), shard)
"""


def test_a_killed_process_holds_no_lock_and_its_half_shard_is_not_used(cache: Path) -> None:
    folder = mirror(remote_folder("memory://seven/shards", {"a.tar": b"AAA"}))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_DOWNLOADS, str(folder)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.read_bytes() for path in folder.glob(".*.tmp")] == [b"half"]
    assert fetch(folder, shard("a.tar", b"AAA")).read_bytes() == b"AAA"
    assert not list(folder.glob(".*.tmp"))
