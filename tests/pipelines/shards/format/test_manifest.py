import errno
import gc
import hashlib
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.base.errors import DataError, FourfoldError, UsageError
from pipelines.shards.format.manifest import SAMPLE_SCHEMA, Kind, Manifest, ManifestWriter, Shard, load_manifest
from pipelines.shards.format.storage import LocalStorage, storage_of
from tests.made.patience import seconds_here


def shard(name: str, num_samples: int, kind: Kind = "image", split: str = "train") -> Shard:
    return Shard(name=name, kind=kind, split=split, num_samples=num_samples, shard_bytes=2**40, sha256="0" * 64)


def rows(keys: list[str]) -> pa.RecordBatch:
    rng = np.random.default_rng(len(keys[0]))
    columns = {name: rng.integers(0, 2**30, len(keys)) for name in SAMPLE_SCHEMA.names[1:]}
    return pa.RecordBatch.from_pydict({"key": keys, **columns}, schema=SAMPLE_SCHEMA)


SHARDS = [
    (shard("train-images-000000.tar", 3), rows(["a", "b/ü", "c"])),
    (shard("train-images-000001.tar", 2), rows(["d", "e"])),
    (shard("val-images-000000.tar", 1, split="val"), rows(["f"])),
    (shard("train-clips-000000.tar", 1, kind="clip"), rows(["v_t00000000"])),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with ManifestWriter(storage_of(tmp_path), ("cat", "dög")) as writer:
        for one, samples in SHARDS:
            writer.add(one, samples)
    return tmp_path


def test_manifest_comes_back_as_written(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert manifest.labels == ("cat", "dög")
    assert manifest.shards == tuple(one for one, _ in SHARDS)
    assert manifest.num_samples == 7
    assert [manifest.samples_of(index) for index in range(4)] == [samples for _, samples in SHARDS]


def test_other_programs_can_read_both_files(folder: Path) -> None:
    assert sorted(found.name for found in folder.iterdir()) == ["manifest.json", "samples.arrow"]
    content = json.loads((folder / "manifest.json").read_text())
    assert (content["format_version"], content["num_samples"], content["labels"]) == (2, 7, ["cat", "dög"])
    assert content["shards"][0] == {
        "name": "train-images-000000.tar",
        "kind": "image",
        "split": "train",
        "num_samples": 3,
        "shard_bytes": 2**40,
        "sha256": "0" * 64,
    }
    samples = (folder / "samples.arrow").read_bytes()
    assert content["samples"] == {"bytes": len(samples), "sha256": hashlib.sha256(samples).hexdigest()}
    with pa.ipc.open_file(samples) as reader:
        assert reader.num_record_batches == 4
        assert reader.read_all() == pa.Table.from_batches([rows for _, rows in SHARDS])


def test_same_shards_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    with ManifestWriter(storage_of(again), ("cat", "dög")) as writer:
        for one, samples in SHARDS:
            # What a shard's record holds besides its rows, and how the rows lie in memory, must not matter.
            longer = pa.Table.from_batches([samples, samples]).combine_chunks().to_batches()[0]
            writer.add(one, longer.slice(0, samples.num_rows).replace_schema_metadata({"made": "elsewhere"}))
    for name in ("manifest.json", "samples.arrow"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_table_joins_the_shards_of_one_kind_and_split(folder: Path) -> None:
    manifest = load_manifest(folder)
    table = manifest.select("image", "train")
    assert (len(table), tuple(table.keys)) == (5, ("a", "b/ü", "c", "d", "e"))
    assert table.shard_index.tolist() == [0, 0, 0, 1, 1]
    assert table.offset.tolist() == [*SHARDS[0][1]["offset"].to_pylist(), *SHARDS[1][1]["offset"].to_pylist()]
    assert tuple(manifest.select("clip", "train").keys) == ("v_t00000000",)
    assert tuple(manifest.select("image", "val").keys) == ("f",)


def test_split_that_is_not_there_names_what_is(folder: Path) -> None:
    match = r"no clips in split val; it holds clips in split train, images in split train, images in split val"
    with pytest.raises(UsageError, match=match):
        load_manifest(folder).select("clip", "val")


def test_folder_without_manifest_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no manifest\.json.*fourfold shards build SRC --out"):
        load_manifest(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        load_manifest(tmp_path / "nowhere")


def test_manifest_of_no_shards_is_one(tmp_path: Path) -> None:
    ManifestWriter(storage_of(tmp_path), ()).close()
    assert load_manifest(tmp_path).shards == ()


def write_and_fail(folder: Path) -> None:
    with ManifestWriter(storage_of(folder), ()) as writer:
        writer.add(*SHARDS[0])
        raise KeyboardInterrupt


def test_interrupted_writing_leaves_what_was_there(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(folder)
    gc.collect()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert capfd.readouterr().err == ""


def write_many(folder: Path, num_shards: int) -> None:
    batch = rows([f"{index:020d}" for index in range(1000)])
    with ManifestWriter(storage_of(folder), ()) as writer:
        for index in range(num_shards):
            writer.add(shard(f"train-images-{index:06d}.tar", 1000), batch)


@pytest.mark.parametrize("num_shards", [1, 100])
def test_full_disk_leaves_nothing_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], num_shards: int
) -> None:
    """Both while shards are added, and at the end."""

    class FullFile(io.BytesIO):
        def write(self, content: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    @contextmanager
    def writing(self: LocalStorage, name: str, **options: bool) -> Iterator[FullFile]:
        yield FullFile()

    monkeypatch.setattr(LocalStorage, "writing", writing)
    with pytest.raises(OSError, match="No space left on device"):
        write_many(tmp_path, num_shards)
    gc.collect()
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


def test_death_between_the_two_files_leaves_no_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Old manifest and new samples would be taken for one build.
    storage = storage_of(folder)
    monkeypatch.setattr(type(storage), "write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"), ManifestWriter(storage, ()) as writer:
        writer.add(*SHARDS[1])
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        load_manifest(folder)


def test_rows_that_do_not_fit_the_shard_are_our_own_mistake(folder: Path) -> None:
    with pytest.raises(ValueError, match="3 rows"), ManifestWriter(storage_of(folder), ()) as writer:
        writer.add(SHARDS[1][0], SHARDS[0][1])


def broken(folder: Path, change: str, value: Any = None) -> Path:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    entry = content["shards"][0]
    changes: dict[str, Any] = {
        "version": lambda: content.update(format_version=value),
        "no version": lambda: content.pop("format_version"),
        "count": lambda: entry.update(num_samples=value),
        "kind": lambda: entry.update(kind="audio"),
        "name": lambda: entry.update(name=value),
        "missing": lambda: entry.pop("sha256"),
        "sha256": lambda: entry.update(sha256="abc"),
        "labels": lambda: content.update(labels=[1]),
        "samples": lambda: content["samples"].update(bytes=value),
    }
    changes[change]()
    path.write_text(json.dumps(content))
    return folder


BAD_NAMES = [
    "../../etc/passwd",
    "a/b.tar",
    "a\0.tar",
    ".tar",
    "..tar",
    "",
    7,
    "\ud800.tar",
    "x" * 300 + ".tar",
    "a.zip",
]


@pytest.mark.parametrize(
    ("change", "value"),
    [
        *((change, None) for change in ("no version", "kind", "missing", "sha256", "labels")),
        *(("name", name) for name in [*BAD_NAMES, "train-images-000001.tar"]),
        *(("count", count) for count in (9, -1, 1.5, True, "3", None, 10**30)),
    ],
)
def test_damaged_manifest_is_a_data_error(folder: Path, change: str, value: Any) -> None:
    with pytest.raises(DataError, match=r"manifest\.json: damaged .*Build the shards again"):
        load_manifest(broken(folder, change, value))


def test_other_versions_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match="format_version 99; this fourfold reads 2"):
        load_manifest(broken(folder, "version", 99))
    with pytest.raises(DataError, match=r"format_version 1; this fourfold reads 2\. Build the shards again"):
        load_manifest(broken(folder, "version", 1))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"7", b"[" * 100_000, b"1" * 10_000])
def test_file_that_is_no_manifest_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        load_manifest(tmp_path)


def test_samples_of_another_build_are_refused(folder: Path) -> None:
    path = folder / "samples.arrow"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"samples\.arrow: \d+ bytes, manifest\.json says \d+ bytes\. Copy the folder"):
        load_manifest(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"samples\.arrow: missing, manifest\.json says"):
        load_manifest(folder)


def test_claimed_sizes_are_not_believed(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    content["num_samples"] += 2**50 - 3
    content["shards"][0]["num_samples"] = 2**50
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="damaged"):
        load_manifest(folder)


def use(manifest: Manifest) -> None:
    """All that a pipeline does with a manifest."""
    for kind, split in {(shard.kind, shard.split) for shard in manifest.shards}:
        table = manifest.select(kind, split)
        columns = [table.offset, table.size, table.width, table.label, table.num_frames, table.fps, table.shard_index]
        assert {len(column) for column in columns} == {len(table)}
        assert list(table.keys) == [table.keys[row] for row in range(len(table))]


fuzz = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(place=st.floats(0, 1), bit=st.integers(0, 7), cut=st.booleans(), name=st.sampled_from(["manifest", "samples"]))
def test_damaged_bytes_are_an_error_of_ours_or_harmless(
    folder: Path, place: float, bit: int, cut: bool, name: str
) -> None:
    path = folder / {"manifest": "manifest.json", "samples": "samples.arrow"}[name]
    whole = path.read_bytes()
    at = int(place * (len(whole) - 1))
    damaged = bytearray(whole[:at] if cut else whole)
    if not cut:
        damaged[at] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        with suppress(FourfoldError):
            use(load_manifest(folder))
    finally:
        path.write_bytes(whole)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["name", "kind", "split", "num_samples", "shard_bytes", "sha256"]


@fuzz
@given(
    content=json_values
    | st.fixed_dictionaries(
        {"format_version": st.just(2), "num_samples": json_values, "labels": json_values, "samples": json_values},
        optional={"shards": st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS, json_values)), max_size=2)},
    ),
    field=st.sampled_from(FIELDS),
    value=json_values,
)
def test_any_json_is_an_error_of_ours_or_harmless(folder: Path, content: Any, field: str, value: Any) -> None:
    path = folder / "manifest.json"
    whole = path.read_text()
    changed = json.loads(whole)
    changed["shards"][1][field] = value
    try:
        for damaged in (content, changed):
            path.write_text(json.dumps(damaged))
            with suppress(FourfoldError):
                use(load_manifest(folder))
    finally:
        path.write_text(whole)


def test_many_shards_take_little_time(tmp_path: Path) -> None:
    """2,000 shards of 100: a fiftieth of 100,000 shards, well below a fiftieth of a minute."""
    batch = rows([f"{index:020d}" for index in range(100)])
    start_s = time.monotonic()
    with ManifestWriter(storage_of(tmp_path), ()) as writer:
        for index in range(2000):
            writer.add(shard(f"train-images-{index:06d}.tar", 100), batch)
    table = load_manifest(tmp_path).select("image", "train")
    assert (len(table), len(table.width), table.keys[199_999]) == (200_000, 200_000, f"{99:020d}")
    assert time.monotonic() - start_s < seconds_here(5)  # 0.3 s where nothing else runs
