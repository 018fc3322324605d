"""Adopted tars: what a plain reader finds in them is what a pipeline reads, and not one byte of them changes."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.base.errors import DataError, UsageError
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.read.reader import SampleReader
from pipelines.shards.adopting.adopt import AdoptSummary, adopt_tars
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.shards.format.index import read_index
from pipelines.shards.format.manifest import SampleTable, load_manifest
from pipelines.shards.tools.info import describe
from pipelines.shards.tools.merge import merge_shards
from pipelines.shards.tools.verify import verify_shards
from tests.made.foreign_tars import Layout, photo, write_tar, write_tars
from tests.made.media import encoded_image, picture
from tests.made.odd_images import saved

ROOT = Path(__file__).resolve().parents[4]
LAYOUTS: list[Layout] = ["img2dataset", "timm", "huggingface", "classes"]


def adopt(tars: Any, out: Path | str, **options: Any) -> AdoptSummary:
    return adopt_tars([tars] if isinstance(tars, str | Path) else tars, out, num_workers=1, **options)


def table_of(out: Path | str, split: str = "train") -> SampleTable:
    return load_manifest(out).select("image", split)


def by_tarfile(tars: list[Path]) -> list[tuple[bytes, str | None]]:
    """(image, label) of every sample in order: an independent reader of the four layouts."""
    found = []
    for path in tars:
        with tarfile.open(path) as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name, content in contents.items():
            stem, _, extension = name.rpartition(".")
            if extension not in ("jpg", "png", "JPEG"):
                continue
            label = contents.get(f"{stem}.cls")
            folders = name.split("/")[:-1]
            found.append((content, folders[-1] if folders else label.decode().strip() if label else None))
    return found


def by_reader(table: SampleTable) -> list[tuple[bytes, str | None]]:
    reader = SampleReader(table)
    labels = [table.labels[label] if label >= 0 else None for label in table.label.tolist()]
    return [(bytes(reader.read(row)), label) for row, label in enumerate(labels)]


def facts_of(tars: list[Path]) -> list[tuple[str, int]]:
    return [(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in tars]


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_read_is_what_a_plain_reader_finds(tmp_path: Path, layout: Layout, trust: bool) -> None:
    tars = write_tars(tmp_path / "tars", layout)
    before = facts_of(tars)
    summary = adopt(tars, tmp_path / "out", trust=trust)
    table = table_of(tmp_path / "out")
    assert by_reader(table) == by_tarfile(tars)
    assert len(set(table.keys)) == len(table) == summary.num_images == 12
    sizes = [Image.open(io.BytesIO(content)).size for content, _ in by_tarfile(tars)]
    assert list(zip(table.width.tolist(), table.height.tolist(), strict=True)) == sizes
    assert facts_of(tars) == before
    assert not list((tmp_path / "out").rglob("*.tar"))
    assert verify_shards(tmp_path / "out", decode=True, num_workers=1) == []
    assert facts_of(tars) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_index_is_where_tarfile_finds_the_members(tmp_path: Path, layout: Layout) -> None:
    tars = write_tars(tmp_path / "tars", layout, num_tars=1)
    adopt(tars, tmp_path / "out")
    with tarfile.open(tars[0]) as tar:
        expected = {(member.offset_data, member.size): member.name.replace(" ", "_") for member in tar}
    found = read_index(next((tmp_path / "out").glob("*.idx")))
    assert len(found) == 4
    assert {(offset, size): name for members in found for _, offset, size, name in members} == expected
    assert all(members[0][0] in ("jpg", "png", "JPEG") for members in found)


def test_batches_are_those_of_a_build_from_the_same_images(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", "img2dataset", per_tar=6)
    adopt(tars, tmp_path / "adopted")
    sources: Any = [tmp_path / "tars" / path.name for path in tars]
    build_shards(
        BuildConfig(sources=sources, out=tmp_path / "built", shuffle=False, samples_per_shard=6, num_workers=1)
    )
    steps = []
    for folder in ("adopted", "built"):
        config = PipelineConfig(
            images=tmp_path / folder,
            tasks={"relative_position": {}, "colorization": {}, "exemplar": {}},  # type: ignore[dict-item]
            canvas_px=96,
            batch_size=4,
            num_threads=1,
        )
        with build_pipeline(config, seed=3) as pipeline:
            steps.append([next(pipeline) for _ in range(5)])
    for one, other in zip(*steps, strict=True):
        assert not one.faults
        for name, batch in one.batches.items():
            assert batch.keys == other.batches[name].keys
            assert torch.equal(batch.inputs, other.batches[name].inputs)
            assert all(torch.equal(batch.target[key], other.batches[name].target[key]) for key in batch.target)


def odd_members() -> list[tuple[str, bytes, str]]:
    """Name, content and the reason of its reject, "" for a good one."""
    jpeg = photo(0)
    return [
        ("good.jpg", jpeg, ""),
        ("gray.png", saved("PNG", "L"), ""),
        ("turned.jpg", encoded_image(picture(40, 32), orientation=6), ""),
        ("upper.JPG", jpeg, ""),
        ("cmyk.jpg", saved("JPEG", "CMYK"), "a CMYK JPEG"),
        ("bitmap.bmp", saved("BMP"), "BMP; a build converts it"),
        ("gif_inside.jpg", saved("GIF"), "GIF; a build converts it"),
        ("half.jpg", jpeg[: len(jpeg) // 2], "cut off"),
        ("empty.jpg", b"", "empty file"),
        ("page.jpg", b"<html>404</html>", "an HTML page"),
        ("film.mp4", b"\0\0\0\x20ftypisom", "a video; adopt takes images"),
        ("../out.jpg", jpeg, "unsafe name"),
        ("bomb.jpg", jpeg[: jpeg.index(b"\xff\xc0") + 5] + b"\xff\xdc" * 2 + jpeg[jpeg.index(b"\xff\xc0") + 9 :], "px"),
    ]


def test_what_no_backend_reads_is_listed_and_left_out(tmp_path: Path) -> None:
    members = odd_members()
    tar = write_tar(tmp_path / "t.tar", [(name, content) for name, content, _ in members])
    summary = adopt(tar, tmp_path / "out", max_reject_ratio=0.9)
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    reasons = {reject["source"].partition("/")[2]: reject["reason"] for reject in rejects}
    bad = {name: reason for name, _, reason in members if reason}
    assert set(reasons) == set(bad)
    assert all(reason in reasons[name] for name, reason in bad.items())
    assert summary.num_rejects == len(bad)
    assert [content for content, _ in by_reader(table_of(tmp_path / "out"))] == [
        content for _, content, reason in members if not reason
    ]
    assert len(read_index(tmp_path / "out" / "t.idx")) == 4


def test_damage_inside_is_found_if_images_are_decoded(tmp_path: Path) -> None:
    jpeg = encoded_image(picture(320, 240))
    hole = jpeg[:9000] + bytes(600) + jpeg[9600:]
    tar = write_tar(tmp_path / "t.tar", [("a.jpg", jpeg), ("b.jpg", hole), ("c.jpg", photo(1))])
    assert adopt(tar, tmp_path / "header").num_images == 3
    assert adopt(tar, tmp_path / "decode", check="decode").num_images == 2


def test_more_rejects_than_allowed_are_an_error(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", [("a.jpg", photo(0)), ("b.jpg", b"x" * 600), ("c.jpg", b"x" * 600)])
    with pytest.raises(DataError, match=r"2 of 3 images cannot be used .*t.tar/b.jpg: .*rejects.jsonl"):
        adopt(tar, tmp_path / "out")
    with pytest.raises(DataError, match="no image in them"):
        adopt(write_tar(tmp_path / "e.tar", [("a.txt", b"x")]), tmp_path / "empty")


def test_a_damaged_tar_gives_what_is_before_the_damage(tmp_path: Path) -> None:
    tar = write_tars(tmp_path, "timm", num_tars=1)[0]
    with tarfile.open(tar) as opened:
        third = opened.getmembers()[6].offset
    tar.write_bytes(tar.read_bytes()[: third + 700])
    summary = adopt(tar, tmp_path / "out", max_reject_ratio=0.9)
    assert summary.num_images == 2
    assert "damaged tar" in (tmp_path / "out" / "rejects.jsonl").read_text()
    assert [content for content, _ in by_reader(table_of(tmp_path / "out"))] == [
        photo(n) for n in range(summary.num_images)
    ]


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("how", ["other size", "same size", "gone", "same size and time"])
def test_a_tar_replaced_afterwards_is_noticed(tmp_path: Path, how: str, trust: bool) -> None:
    tars = write_tars(tmp_path / "tars", "timm")
    adopt(tars, tmp_path / "out", trust=trust)
    table, facts = table_of(tmp_path / "out"), tars[1].stat()
    content = bytearray(tars[1].read_bytes())
    content[2000] ^= 1
    tars[1].unlink()
    if how != "gone":
        tars[1].write_bytes(bytes(content) + (bytes(512) if how == "other size" else b""))
        shift_ns = 0 if how == "same size and time" else 1_000
        os.utime(tars[1], ns=(facts.st_atime_ns, facts.st_mtime_ns + shift_ns))
    if how == "same size and time":
        # Only reading it shows that; a trusted tar was never read.
        assert bool(verify_shards(tmp_path / "out")) is not trust
        return
    with pytest.raises(DataError, match=r"imagenet1k-train-0001.tar: .*Adopt it again: fourfold shards adopt"):
        SampleReader(table)
    assert any("imagenet1k-train-0001.tar" in line for line in verify_shards(tmp_path / "out"))
    if how != "gone":
        assert adopt(tars, tmp_path / "out", trust=trust).num_reused == 2
        SampleReader(table_of(tmp_path / "out"))


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", "timm", num_tars=40, per_tar=30)
    before = facts_of(tars)
    program = (
        "import sys; from pipelines.shards.adopting.adopt import adopt_tars; "
        f"adopt_tars([{str(tmp_path / 'tars')!r}], {str(tmp_path / 'out')!r}, num_workers=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL)
    records = tmp_path / "out" / ".build"
    while process.poll() is None and len(list(records.glob("*.adopted"))) < 5:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    summary = adopt(tmp_path / "tars", tmp_path / "out")
    assert summary.num_reused >= 5
    adopt(tmp_path / "tars", tmp_path / "whole")
    for name in ("manifest.json", "samples.arrow"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "out").glob(".*.tmp"))
    assert facts_of(tars) == before


def test_workers_make_the_same_folder(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", "huggingface", num_tars=5)
    adopt_tars(tars, tmp_path / "one", num_workers=1)
    adopt_tars(tars, tmp_path / "three", num_workers=3)
    for path in sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "three" / path.relative_to(tmp_path / "one")).read_bytes(), path


def test_keys_of_several_tars_are_told_apart(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", "huggingface", num_tars=3, per_tar=2)
    assert adopt(tars, tmp_path / "out").num_renamed == 4
    keys = ["000000", "000001", "000000_2", "000001_2", "000000_3", "000001_3"]
    assert list(table_of(tmp_path / "out").keys) == keys


def test_splits_come_from_names(tmp_path: Path) -> None:
    train = write_tars(tmp_path / "tars", "timm")
    val = write_tar(tmp_path / "tars" / "imagenet1k-validation-00.tar", [("v.jpg", photo(99)), ("v.cls", b"2")])
    assert adopt([*train, val], tmp_path / "out").samples == {"train": 12, "val": 1}
    table = table_of(tmp_path / "out", "val")
    assert by_reader(table) == [(photo(99), "2")]
    assert adopt([*train, val], tmp_path / "all", split="test").samples == {"test": 13}


def test_splits_come_from_folders_in_the_tars_where_names_say_none(tmp_path: Path) -> None:
    one, two, flat = (tmp_path / f"{name}.tar" for name in "abc")
    write_tar(one, [("validation/cat/0.jpg", photo(0)), ("validation/dog/1.jpg", photo(1))])
    write_tar(two, [("test/2.jpg", photo(2)), ("test/3.jpg", photo(3))])
    write_tar(flat, [("4.jpg", photo(4))])
    assert adopt([one, two, flat], tmp_path / "out").samples == {"val": 2, "test": 2, "train": 1}
    assert by_reader(table_of(tmp_path / "out", "val")) == [(photo(0), "cat"), (photo(1), "dog")]
    # The user's word wins.
    assert adopt([one, two, flat], tmp_path / "dev", split="dev").samples == {"dev": 5}


@pytest.mark.parametrize("other", ["val", "test"])
def test_a_tar_with_folders_of_several_splits_is_not_taken_for_train(tmp_path: Path, other: str) -> None:
    tar = write_tar(tmp_path / "a.tar", [("train/cat/0.jpg", photo(0)), (f"{other}/cat/1.jpg", photo(1))])
    with pytest.raises(DataError, match=r"a.tar: its folders are splits \(.*train.*\).*--split NAME"):
        adopt(tar, tmp_path / "out")
    assert adopt(tar, tmp_path / "out", split="all").samples == {"all": 2}


@pytest.mark.parametrize("num_folders", [1, 2])
def test_tars_behind_urls_are_fetched_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_folders: int
) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    tars = write_tars(tmp_path / "tars", "timm")
    system = fsspec.filesystem("memory")
    for path in tars:
        system.pipe_file(f"/adopt/{path.name}", path.read_bytes())
    adopt("memory://adopt/imagenet1k-train-{0000..0002}.tar", tmp_path / "out")
    assert not list((tmp_path / "cache").rglob("*.tar"))
    assert by_reader(table_of(tmp_path / "out")) == by_tarfile(tars)
    assert len(list((tmp_path / "cache").rglob("*.tar"))) == 3
    assert verify_shards(tmp_path / "out", decode=True, num_workers=1) == []
    sources = [{"path": tmp_path / "out"}] * num_folders
    config = PipelineConfig(images=sources, tasks={"exemplar": {}}, canvas_px=96, batch_size=4, num_threads=1)  # type: ignore[dict-item, arg-type]
    with build_pipeline(config, seed=1) as pipeline:
        assert not next(pipeline).faults
    system.pipe_file("/adopt/imagenet1k-train-0001.tar", b"x" * tars[1].stat().st_size)
    for copy in (tmp_path / "cache").rglob("*.tar"):
        copy.unlink()
    with pytest.raises(DataError, match=r"damaged or replaced. Adopt it again"):
        by_reader(table_of(tmp_path / "out"))


def test_the_manifest_may_lie_behind_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    tars = write_tars(tmp_path / "tars", "timm")
    adopt(tars, "memory://adopted/out")
    assert by_reader(table_of("memory://adopted/out")) == by_tarfile(tars)
    assert verify_shards("memory://adopted/out") == []


def test_folder_and_tars_below_it_can_be_moved(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "one" / "tars", "timm")
    adopt(tars, tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    moved = [tmp_path / "two" / "tars" / path.name for path in tars]
    assert by_reader(table_of(tmp_path / "two")) == by_tarfile(moved)
    assert verify_shards(tmp_path / "two") == []


def test_the_tars_own_folder_may_hold_the_manifest(tmp_path: Path) -> None:
    tars = write_tars(tmp_path, "timm")
    before = facts_of(tars)
    adopt(tmp_path, tmp_path)
    assert by_reader(table_of(tmp_path)) == by_tarfile(tars)
    assert describe(tmp_path).warnings[0].startswith("images in split train: median size")
    assert verify_shards(tmp_path) == []
    other = write_tar(tmp_path / "more" / "m.tar", [("a.jpg", photo(0))])
    config = BuildConfig(sources=[other], out=tmp_path, num_workers=1)
    with pytest.raises(UsageError, match="holds a finished build of something else"):
        build_shards(config)
    build_shards(config.model_copy(update={"overwrite": True}))
    assert facts_of(tars) == before


def test_a_folder_with_a_build_is_refused(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", "timm")
    build_shards(BuildConfig(sources=list(tars), out=tmp_path / "out", num_workers=1))
    with pytest.raises(UsageError, match=r"holds shards that were built\. Give --out another folder"):
        adopt(tars, tmp_path / "out")


def test_adopted_and_built_folders_are_merged_without_a_copy(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", "timm")
    adopt(tars, tmp_path / "adopted")
    source = write_tar(tmp_path / "m.tar", [("cat/a.jpg", photo(50)), ("dog/b.jpg", photo(51))])
    build_shards(BuildConfig(sources=[source], out=tmp_path / "built", num_workers=1))
    summary = merge_shards([tmp_path / "adopted", tmp_path / "built"], tmp_path / "both", prefix_keys=True)
    assert (summary.num_adopted, summary.num_images) == (3, 14)
    table = table_of(tmp_path / "both")
    expected = [*by_tarfile(tars), (photo(50), "cat"), (photo(51), "dog")]
    assert sorted(by_reader(table)) == sorted(expected)  # type: ignore[type-var]
    assert verify_shards(tmp_path / "both", decode=True, num_workers=1) == []
    assert len(list((tmp_path / "both").glob("*.tar"))) == 1
    assert all(key.startswith(("adopted/", "built/")) for key in table.keys)


def test_mixed_sources_read_adopted_shards_next_to_built_ones(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "one" / "tars", "timm")
    adopt(tars, tmp_path / "one")
    source = write_tar(tmp_path / "m.tar", [(f"cat/{n}.jpg", photo(n)) for n in range(8)])
    build_shards(BuildConfig(sources=[source], out=tmp_path / "two", num_workers=1))
    sources = [{"path": tmp_path / "one"}, {"path": tmp_path / "two"}]
    config = PipelineConfig(images=sources, tasks={"exemplar": {}}, canvas_px=96, batch_size=8, num_threads=1)  # type: ignore[dict-item, arg-type]
    with build_pipeline(config, seed=1) as pipeline:
        keys = {key for _ in range(4) for key in next(pipeline).batches["exemplar"].keys}
    assert any(key.startswith("n0") for key in keys)
    assert any(key.startswith("cat") for key in keys)


def test_info_counts_formats_and_misses_what_is_gone(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", "classes")
    adopt(tars, tmp_path / "out")
    group = describe(tmp_path / "out").groups[0]
    assert group.codecs == {"jpeg": 12}
    assert sum(group.labels.values()) == 12
    tars[0].unlink()
    assert describe(tmp_path / "out").warnings[0].startswith("1 shards are missing: data-000.tar")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing.tar", "no such file, and no file matches"),
        ("{005..003}.tar", "is no range of at most"),
        ("empty", "no .tar in this folder"),
    ],
)
def test_what_names_no_tar_is_an_error(tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        adopt(str(tmp_path / given), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_compressed_tar_says_what_to_do(tmp_path: Path) -> None:
    import gzip

    tar = write_tars(tmp_path, "timm", num_tars=1)[0]
    tar.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(UsageError, match=r"compressed, .*gunzip"):
        adopt(tar, tmp_path / "out")


def test_labels_can_be_named_or_left_out(tmp_path: Path) -> None:
    facts = [json.dumps({"species": name, "label": "wrong"}).encode() for name in ("cat", "dog")]
    tar = write_tar(
        tmp_path / "t.tar",
        [(f"{n}.{kind}", one) for n in range(2) for kind, one in (("jpg", photo(n)), ("json", facts[n]))],
    )
    adopt(tar, tmp_path / "named", label_field="species")
    assert [label for _, label in by_reader(table_of(tmp_path / "named"))] == ["cat", "dog"]
    assert adopt(tar, tmp_path / "off", labels="off").num_unlabelled == 2


def test_the_dali_reader_takes_tar_and_index(tmp_path: Path) -> None:
    dali = pytest.importorskip("nvidia.dali")
    tars = write_tars(tmp_path / "tars", "timm", num_tars=1)
    adopt(tars, tmp_path / "out")

    @dali.pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def reading() -> Any:
        index = str(next((tmp_path / "out").glob("*.idx")))
        return tuple(dali.fn.readers.webdataset(paths=[str(tars[0])], index_paths=[index], ext=["jpg", "cls"]))

    pipeline = reading()
    pipeline.build()
    images, labels = pipeline.run()
    expected = by_tarfile(tars)
    assert [np.array(images.at(row)).tobytes() for row in range(4)] == [content for content, _ in expected]
    assert [bytes(np.array(labels.at(row))).decode() for row in range(4)] == [label for _, label in expected]
