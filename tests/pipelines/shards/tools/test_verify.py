import hashlib
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.base.errors import FourfoldError, UsageError
from pipelines.shards.format.manifest import ManifestWriter, load_manifest
from pipelines.shards.format.storage import storage_of
from pipelines.shards.tools import verify
from pipelines.shards.tools.verify import verify_shards
from tests.made.pictures import stored_clips, stored_images
from tests.made.whole_shards import DeadlyStorage, write_whole

LABELS = ("bird", "fish", "plant")
FIRST, SECOND, CLIPS = "train-images-000000.tar", "train-images-000001.tar", "train-clips-000000.tar"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of 3 images and one of 2 clips."""
    return write_whole(tmp_path / "out", [*stored_images(6), *stored_clips(2, num_frames=3)], labels=LABELS)


def change_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def rewrite_manifest(folder: Path, change: Callable[[int, pa.RecordBatch], pa.RecordBatch]) -> None:
    """Another manifest over the same tars, with their true size and sha256."""
    manifest = load_manifest(folder)
    rows = [(index, manifest.samples_of(index)) for index in range(len(manifest.shards))]
    with ManifestWriter(storage_of(folder), manifest.labels) as writer:
        for shard, (index, samples) in zip(manifest.shards, rows, strict=True):
            content = (folder / shard.name).read_bytes()
            truth = {"shard_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            writer.add(replace(shard, **truth), change(index, samples))


def with_value(samples: pa.RecordBatch, column: str, row: int, value: object) -> pa.RecordBatch:
    rows = samples.to_pylist()
    rows[row][column] = value
    return pa.RecordBatch.from_pylist(rows, schema=samples.schema)


@pytest.mark.parametrize("decode", [False, True])
def test_whole_folder_has_no_problem(shards: Path, decode: bool) -> None:
    assert verify_shards(shards, decode=decode, num_workers=1) == []


def test_missing_shard_is_named(shards: Path) -> None:
    (shards / SECOND).unlink()
    (problem,) = verify_shards(shards)
    assert problem.startswith(f"{SECOND}: missing")


def test_unreadable_shard_is_named(shards: Path) -> None:
    (shards / SECOND).unlink()
    (shards / SECOND).mkdir()
    (problem,) = verify_shards(shards)
    assert problem.startswith(f"{SECOND}: cannot read it")


def test_cut_shard_is_named_with_both_sizes(shards: Path) -> None:
    whole = (shards / SECOND).read_bytes()
    (shards / SECOND).write_bytes(whole[:-512])
    (problem,) = verify_shards(shards)
    assert f"{SECOND}: {len(whole) - 512} bytes, the manifest says {len(whole)}" in problem


@pytest.mark.parametrize("at", [0, 700, -1])
def test_one_changed_bit_is_found(shards: Path, at: int) -> None:
    change_byte(shards / SECOND, at)
    (problem,) = verify_shards(shards)
    assert problem.startswith(f"{SECOND}: sha256 differs")


def test_one_changed_bit_in_the_samples_is_found(shards: Path) -> None:
    path = shards / "samples.arrow"
    before = next(iter(load_manifest(shards).select("clip", "train").keys)).encode()
    path.write_bytes(path.read_bytes().replace(before, before.replace(b"clip", b"clap")))
    problems = verify_shards(shards)
    assert problems[0].startswith("samples.arrow: sha256 differs")
    assert "is not where the manifest says" in problems[1]


def test_index_is_checked(shards: Path) -> None:
    (shards / SECOND).with_suffix(".idx").unlink()
    index = (shards / FIRST).with_suffix(".idx")
    index.write_text(index.read_text().replace("json 1", "json 2", 1))
    (shards / CLIPS).with_suffix(".idx").write_bytes(b"v1.2 1000000000\n")
    problems = verify_shards(shards)
    assert [problem.split(":")[0] for problem in problems] == [FIRST, SECOND, CLIPS]
    assert "train-images-000000.idx does not fit the tar" in problems[0]
    assert "train-images-000001.idx is missing" in problems[1]
    assert "train-clips-000000.idx is not a readable DALI index" in problems[2]


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("offset", 7, "is not where the manifest says"),
        ("size", 2**50, "is not where the manifest says"),
        ("key", "other", "is not where the manifest says"),
        ("label", 2, "has label 1 in its .cls, the manifest says 2"),
        ("label", -1, "has label 1 in its .cls, the manifest says -1"),
    ],
)
def test_rows_are_compared_with_the_tar(shards: Path, column: str, value: object, match: str) -> None:
    rewrite_manifest(shards, lambda index, rows: with_value(rows, column, 1, value) if index == 0 else rows)
    (problem,) = verify_shards(shards, decode=True, num_workers=1)
    assert problem.startswith(f"{FIRST}: sample ")
    assert match in problem


@pytest.mark.parametrize(
    ("shard", "column", "match"),
    [
        (0, "width", "sample train0001: decodes to 52 x 56 px, the manifest says 99 x 56 px"),
        (
            2,
            "num_frames",
            r"sample trainclip0001: decodes to 3 frames of 64 x 48 px, the manifest says 99 frames of 64 x",
        ),
    ],
)
def test_decoding_finds_other_sizes(shards: Path, shard: int, column: str, match: str) -> None:
    rewrite_manifest(shards, lambda index, rows: with_value(rows, column, 1, 99) if index == shard else rows)
    assert verify_shards(shards) == []
    (problem,) = verify_shards(shards, decode=True, num_workers=1)
    assert match in problem


def test_decoding_finds_samples_that_were_packed_damaged(tmp_path: Path) -> None:
    images, clips = stored_images(3), stored_clips(2, num_frames=3)
    cut = replace(images[1], encoded=images[1].encoded[: len(images[1].encoded) // 2])
    junk = replace(clips[1], encoded=b"\0\0\0\x20ftypisom" + bytes(50))
    write_whole(tmp_path / "out", [images[0], cut, images[2], clips[0], junk], labels=LABELS)
    assert verify_shards(tmp_path / "out") == []
    found = verify_shards(tmp_path / "out", decode=True, num_workers=2)
    assert [problem.split(": cannot be decoded")[0] for problem in found] == [
        f"{FIRST}: sample train0001",
        f"{CLIPS}: sample trainclip0001",
    ]


def test_worker_that_dies_is_a_problem_of_its_shard_alone(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "storage_of", lambda folder: DeadlyStorage(Path(folder), SECOND))
    change_byte(shards / CLIPS, 700)
    first, second = verify_shards(shards, decode=True, num_workers=2)
    assert first.startswith(f"{SECOND}: decoding it ends the process")
    assert second.startswith(f"{CLIPS}: sha256 differs")


def test_many_wrong_rows_are_a_short_list(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "out", stored_images(9), labels=LABELS, per_shard=9)
    rewrite_manifest(folder, lambda _, rows: rows.set_column(1, "offset", pa.array([1] * 9)))
    problems = verify_shards(folder)
    assert len(problems) == 4
    assert problems[3] == f"{FIRST}: and 6 more samples like these"


def plain_tar(path: Path, names: list[str], kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(member)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: plain_tar(path, ["a.jpg"], tarfile.SYMTYPE), "member 'a.jpg' is a link"),
        (lambda path: plain_tar(path, ["folder"], tarfile.DIRTYPE), "is a folder"),
        (lambda path: plain_tar(path, ["noextension"]), "need files named KEY.EXTENSION"),
        (lambda path: plain_tar(path, ["a.jpg"]), "1 samples, the manifest says 3"),
        (lambda path: path.write_bytes(b""), "cut off: no end mark"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "something else than zeros after its end"),
        (lambda path: path.write_bytes(path.read_bytes().rstrip(b"\0")), "cut off"),
    ],
)
def test_tar_that_is_not_ours_is_said_to_be(shards: Path, make: Callable[[Path], None], match: str) -> None:
    make(shards / FIRST)
    rewrite_manifest(shards, lambda _, rows: rows)
    assert any(match in problem for problem in verify_shards(shards))


def test_doubled_keys_are_found(tmp_path: Path) -> None:
    images = stored_images(4)
    folder = write_whole(tmp_path / "out", [*images[:3], replace(images[3], key=images[0].key)], labels=LABELS)
    assert verify_shards(folder) == ["samples.arrow: 1 keys are there more than once: train0000"]


def test_foreign_tar_is_named(shards: Path) -> None:
    (shards / "other.tar").write_bytes(b"")
    assert verify_shards(shards) == ["other.tar: not in the manifest; another build left it, or copying mixed folders"]


def test_folder_without_manifest_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no manifest\.json"):
        verify_shards(tmp_path)


def test_remote_folder_is_verified_where_it_is(shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/verify", recursive=True)
    try:
        assert verify_shards("memory://verify") == []
        assert not list((tmp_path / "cache").rglob("*.tar"))
        memory.pipe(f"/verify/{SECOND}", memory.cat(f"/verify/{SECOND}")[:-1] + b"x")
        (problem,) = verify_shards("memory://verify")
        assert problem.startswith(f"{SECOND}: sha256 differs")
    finally:
        memory.rm("/verify", recursive=True)


fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(
    name=st.sampled_from([FIRST, CLIPS, "train-images-000000.idx"]),
    place=st.floats(0, 1),
    patch=st.binary(max_size=24) | st.sampled_from([b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12]),
    cut=st.booleans(),
    is_signed=st.booleans(),
)
def test_any_damage_is_a_list_of_problems(
    shards: Path, name: str, place: float, patch: bytes, cut: bool, is_signed: bool
) -> None:
    """Also where sha256 and size are right, so that the damage reaches all that reads the tar."""
    path = shards / name
    whole, before = path.read_bytes(), {p: (shards / p).read_bytes() for p in ("manifest.json", "samples.arrow")}
    at = int(place * (len(whole) // 512)) * 512 + 124 if place < 0.7 else int(place * len(whole))
    path.write_bytes(whole[:at] if cut else whole[:at] + patch + whole[at + len(patch) :])
    try:
        if is_signed:
            rewrite_manifest(shards, lambda _, rows: rows)
        problems = verify_shards(shards, decode=True, num_workers=1)
        assert problems or is_signed or path.read_bytes() == whole
    finally:
        path.write_bytes(whole)
        for other, content in before.items():
            (shards / other).write_bytes(content)


@fuzz
@given(place=st.floats(0, 1), patch=st.binary(min_size=1, max_size=8))
def test_damaged_samples_are_problems_or_an_error_of_ours(shards: Path, place: float, patch: bytes) -> None:
    """With the right sha256 in the manifest, so that the damage reaches all that reads the rows."""
    path, manifest = shards / "samples.arrow", shards / "manifest.json"
    whole, before = path.read_bytes(), manifest.read_text()
    at = int(place * (len(whole) - len(patch)))
    path.write_bytes(whole[:at] + patch + whole[at + len(patch) :])
    content = json.loads(before)
    content["samples"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))
    try:
        with suppress(FourfoldError):
            assert isinstance(verify_shards(shards, decode=True, num_workers=1), list)
    finally:
        path.write_bytes(whole)
        manifest.write_text(before)
