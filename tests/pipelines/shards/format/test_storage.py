"""Storage: the same behavior in a local folder and behind a URL."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipelines.base.errors import UsageError
from pipelines.shards.format.storage import Storage, storage_of


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    store = storage_of(tmp_path / "out" if request.param == "local" else f"memory://{tmp_path.name}/out")
    store.make()
    yield store
    fsspec.filesystem("memory").store.clear()


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


def test_a_killed_build_holds_no_lock(tmp_path: Path) -> None:
    program = "import sys; from pipelines.shards.format.storage import storage_of\n"
    program += "with storage_of(sys.argv[1]).lock(): print(flush=True); input()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment, **pipes) as build:
        assert build.stdout is not None
        build.stdout.readline()
        with pytest.raises(UsageError, match="another build is writing there"), storage_of(tmp_path).lock():
            pass
        build.kill()
    with storage_of(tmp_path).lock():
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
