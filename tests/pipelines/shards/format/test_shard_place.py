import json
from pathlib import Path

import pytest

from pipelines.base.errors import DataError
from pipelines.shards.format.manifest import shard_from_json, shard_to_json
from pipelines.shards.format.shard_place import check_whole, shard_place
from pipelines.shards.format.table import Elsewhere, Shard


def shard(location: str | None = None, name: str = "a.tar") -> Shard:
    elsewhere = None if location is None else Elsewhere(location=location, modified_ns=5, is_trusted=False)
    return Shard(
        name=name, kind="image", split="train", num_samples=1, shard_bytes=3, sha256="0" * 64, elsewhere=elsewhere
    )


def test_places_on_this_machine(tmp_path: Path) -> None:
    assert shard_place(tmp_path, shard()) == (tmp_path / "a.tar", None)
    assert shard_place(tmp_path, shard("/data/b.tar")) == (Path("/data/b.tar"), None)
    assert shard_place(tmp_path, shard("tars/b.tar")) == (tmp_path / "tars" / "b.tar", None)
    assert shard_place(Path("here"), shard()) == (Path("here/a.tar"), None)
    assert shard_place(Path(), shard(name=str(tmp_path / "a.tar"))) == (tmp_path / "a.tar", None)


def test_places_behind_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    one, other = (shard_place(tmp_path, shard(f"s3://{bucket}/x/b.tar?v=1")) for bucket in ("p", "q"))
    assert one.url == "s3://p/x/b.tar?v=1"
    assert one.path.is_relative_to(tmp_path / "cache")
    assert (one.path.name.startswith("b-"), one.path.suffix) == (True, ".tar")
    assert len({one.path.parent, other.path.parent}) == len({one.path.name, other.path.name}) == 2


def test_places_of_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "mirror.json").write_text(json.dumps({"url": "s3://p/shards"}))
    assert shard_place(tmp_path, shard()) == (tmp_path / "a.tar", "s3://p/shards/a.tar")
    assert shard_place(tmp_path, shard("tars/b.tar")) == (tmp_path / "tars/b.tar", "s3://p/shards/tars/b.tar")
    assert shard_place(tmp_path, shard("/data/b.tar")) == (Path("/data/b.tar"), None)
    assert shard_place(Path(), shard(name=str(tmp_path / "a.tar"))).url == "s3://p/shards/a.tar"


@pytest.mark.parametrize("location", [None, "/data/b.tar", "s3://p/b.tar"])
def test_the_manifest_keeps_the_place(location: str | None) -> None:
    assert shard_from_json(json.loads(json.dumps(shard_to_json(shard(location))))) == shard(location)


@pytest.mark.parametrize(
    "wrong",
    [
        {"location": ""},
        {"location": "a\0b"},
        {"location": 3},
        {"modified_ns": -1},
        {"is_trusted": 1},
        {"modified_ns": "1"},
    ],
    ids=str,
)
def test_damaged_places_are_refused(wrong: dict[str, object]) -> None:
    entry = shard_to_json(shard("/data/b.tar"))
    entry["elsewhere"] |= wrong
    with pytest.raises((ValueError, TypeError)):
        shard_from_json(entry)


def test_a_copy_may_have_any_time(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    check_whole(path, shard("s3://p/a.tar"), is_copy=True)
    check_whole(path, shard())
    with pytest.raises(DataError, match=r"changed or replaced .* Adopt it again"):
        check_whole(path, shard(str(path)))
    path.write_bytes(b"abcd")
    with pytest.raises(DataError, match=r"4 bytes, the manifest says 3\. Copy it again"):
        check_whole(path, shard())
