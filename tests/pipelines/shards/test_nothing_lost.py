"""Nothing lost, nothing mislabelled: generated lists, tars and folders, built; csv, tarfile and pathlib judge."""

import csv
import io
import json
import tarfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.base.progress import quiet_progress
from pipelines.shards.build import BuildConfig, BuildSummary, build_shards
from tests.made.media import gray_frames, picture, write_image, write_video

QUICK = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LABELS = ["cat", " cat", "dog", "1", "1.0", "01", "-1", "nan", "", "None", "caf\u00e9", "cafe\u0301", "a,b"]
NONE = {"-1", "nan", "", "None"}


class Given(NamedTuple):
    """One row or file: a whole image, a damaged one, one that is not there, or something else."""

    what: str
    label: str


ROWS = st.lists(
    st.builds(Given, st.sampled_from(["whole"] * 5 + ["damaged", "gone", "other"]), st.sampled_from(LABELS)),
    min_size=1,
    max_size=10,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_image(tmp_path_factory.mktemp("image") / "a.jpg", 0, width=16, height=16).read_bytes()


def build(out: Path, *sources: Path, **options: Any) -> BuildSummary:
    options = {"check": "header", "num_workers": 1, "max_reject_ratio": 1, **options}
    with quiet_progress():
        return build_shards(BuildConfig(sources=list(sources), out=out, **options))


def built_labels(out: Path) -> dict[str, str | None]:
    """Source and label of every image, as tarfile finds them."""
    found: dict[str, str | None] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    facts = json.loads(tar.extractfile(member).read())  # type: ignore[union-attr]
                    found[facts["source"]] = facts.get("label")
    return found


def plain_label(text: str) -> str | None:
    """The ten lines that say what a label is."""
    text = unicodedata.normalize("NFC", text).strip()
    if text in NONE:
        return None
    try:
        return str(int(float(text))) if "." in text and float(text) == int(float(text)) else text
    except ValueError:
        return text


def names_of(rows: Sequence[Given], folder: str = "") -> list[str]:
    return [f"{folder}{n}.{'txt' if row.what == 'other' else 'jpg'}" for n, row in enumerate(rows)]


def write_files(root: Path, rows: Sequence[Given], names: Sequence[str], whole: bytes) -> None:
    for row, name in zip(rows, names, strict=True):
        if row.what != "gone":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(whole if row.what == "whole" else b"damaged")


def check_sum(summary: BuildSummary, num_rows: int, num_whole: int, num_ignored: int) -> None:
    assert summary.num_rows == num_rows
    assert summary.num_images == num_whole
    assert summary.num_ignored == num_ignored
    assert num_rows == summary.num_images + summary.num_videos + summary.num_rejects + summary.num_ignored


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@QUICK
@given(rows=ROWS)
def test_lists(tmp_path_factory: pytest.TempPathFactory, whole: bytes, suffix: str, rows: list[Given]) -> None:
    root = tmp_path_factory.mktemp("list")
    rows = [Given("whole", "cat"), *rows]
    names = names_of(rows)
    write_files(root, rows, names, whole)
    table = [{"path": name, "label": row.label} for row, name in zip(rows, names, strict=True)]
    path = root / f"list.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["path", "label"], delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(table)
    summary = build(root / "out", path)
    expected = {name: plain_label(row.label) for row, name in zip(rows, names, strict=True) if row.what == "whole"}
    assert built_labels(root / "out") == expected
    check_sum(summary, len(rows), len(expected), 0)


@QUICK
@given(rows=ROWS, captions=st.lists(st.text(alphabet='a",', max_size=6), min_size=11, max_size=11))
def test_lists_with_marks_anywhere(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, rows: list[Given], captions: list[str]
) -> None:
    """Every line is one row: a sample with its own label, or named by its line in the rejects."""
    root = tmp_path_factory.mktemp("marks")
    rows = [Given("whole", "cat"), *(row._replace(label=f"c{n}") for n, row in enumerate(rows))]
    names = names_of(rows)
    write_files(root, rows, names, whole)
    lines = [f"{name},{row.label},{caption}" for row, name, caption in zip(rows, names, ["", *captions], strict=False)]
    (root / "list.csv").write_text("path,label,caption\n" + "\n".join(lines) + "\n")
    summary = build(root / "out", root / "list.csv")
    own = {name: row.label for row, name in zip(rows, names, strict=True)}
    found = built_labels(root / "out")
    assert found.items() <= own.items()
    check_sum(summary, len(rows), len(found), 0)
    rejects = (root / "out" / "rejects.jsonl").read_text() if summary.num_rejects else ""
    assert [name for name in names if name not in found and name not in rejects] == []


@QUICK
@given(rows=ROWS, dots=st.booleans(), as_json=st.booleans(), label_first=st.booleans())
def test_tars(
    tmp_path_factory: pytest.TempPathFactory,
    whole: bytes,
    rows: list[Given],
    dots: bool,
    as_json: bool,
    label_first: bool,
) -> None:
    root = tmp_path_factory.mktemp("tar")
    rows = [row._replace(what="damaged") if row.what == "gone" else row for row in [Given("whole", "cat"), *rows]]
    names = names_of(rows, "clip." if dots else "clip")
    expected, num_ignored = {}, 0
    with tarfile.open(root / "x.tar", "w") as tar:
        for row, name in zip(rows, names, strict=True):
            content = whole if row.what == "whole" else b"damaged"
            label = json.dumps({"label": row.label}) if as_json else row.label
            entries = [(name, content), (f"{name[:-4]}.{'json' if as_json else 'cls'}", label.encode())]
            for member, data in entries[::-1] if label_first else entries:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            # A label whose image is a .txt belongs to nothing, and is left out as the .txt is.
            num_ignored += 2 * (row.what == "other")
            if row.what == "whole":
                expected[f"x.tar/{name}"] = plain_label(row.label)
    summary = build(root / "out", root / "x.tar")
    assert built_labels(root / "out") == expected
    check_sum(summary, len(rows) + num_ignored // 2, len(expected), num_ignored)


@QUICK
@given(rows=ROWS, splits=st.booleans())
def test_folders(tmp_path_factory: pytest.TempPathFactory, whole: bytes, rows: list[Given], splits: bool) -> None:
    root = tmp_path_factory.mktemp("folder")
    rows = [Given("whole", "cat"), Given("whole", "dog"), *(row for row in rows if row.what != "gone")]
    rows = [row._replace(label=row.label if row.label.strip() else "cat") for row in rows]
    names = []
    for index, row in enumerate(rows):
        top = ("train/", "test/")[index % 2] if splits else ""
        names.append(f"{top}{row.label}/{index}.{'txt' if row.what == 'other' else 'jpg'}")
    write_files(root / "in", rows, names, whole)
    summary = build(root / "out", root / "in")
    files = sorted(path.relative_to(root / "in") for path in (root / "in").rglob("*") if path.is_file())
    # A folder is a class whatever it is called; else its name is a label like any other.
    found = {str(path): plain_label(path.parent.name) or path.parent.name for path in files if path.suffix == ".jpg"}
    expected = {name: label for name, label in found.items() if (root / "in" / name).read_bytes() == whole}
    assert built_labels(root / "out") == expected
    check_sum(summary, len(files), len(expected), len(files) - len(found))


def test_the_sum_holds_for_every_kind_of_source(tmp_path: Path, whole: bytes) -> None:
    """Folder, list, tar, text list, single files, a file URL and videos, one after the other and together."""
    (tmp_path / "photos").mkdir()
    for index in range(3):
        (tmp_path / "photos" / f"{index}.jpg").write_bytes(whole)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "photos" / "a.heic").write_bytes(b"x")
    write_video(tmp_path / "v.mp4", [picture(seed=index) for index in range(25)])
    write_video(tmp_path / "still.mp4", gray_frames([30] * 25))
    (tmp_path / "cut.mp4").write_bytes(b"no video")
    (tmp_path / "l.txt").write_text("photos/0.jpg\nphotos/gone.jpg\nnotes.doc\n\n")
    (tmp_path / "l.csv").write_text('path,label\nphotos/0.jpg,1\nphotos/1.jpg,"x\n,2\n')
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "photos", "p")
    url = (tmp_path / "photos" / "2.jpg").as_uri()
    kinds: dict[str, tuple[list[Any], tuple[int, int, int, int, int]]] = {
        "folder": ([tmp_path / "photos"], (5, 3, 0, 1, 1)),
        "videos": ([tmp_path / name for name in ("v.mp4", "still.mp4", "cut.mp4")], (3, 0, 2, 1, 0)),
        "text": ([tmp_path / "l.txt"], (3, 1, 0, 2, 0)),
        "csv": ([tmp_path / "l.csv"], (3, 1, 0, 2, 0)),
        "tar": ([tmp_path / "x.tar"], (5, 3, 0, 1, 1)),
        "file and URL": ([url, tmp_path / "photos" / "a.heic"], (2, 1, 0, 0, 1)),
    }
    kinds["together"] = (
        [source for sources, _ in kinds.values() for source in sources],
        tuple(map(sum, zip(*(counts for _, counts in kinds.values()), strict=True))),  # type: ignore[assignment]
    )
    for name, (sources, expected) in kinds.items():
        summary = build(tmp_path / "out" / name, *sources, max_repeat_ratio=1.0)
        rows, images, videos, rejects, ignored = expected
        found = summary.num_rows, summary.num_images, summary.num_videos, summary.num_rejects, summary.num_ignored
        assert found == (rows, images, videos, rejects, ignored), name
        assert rows == images + videos + rejects + ignored
        assert any("rejected, for example" in one for one in summary.warnings) == bool(rejects)
        assert any(".heic" in one for one in summary.warnings) == bool(ignored)


def test_the_sum_holds_for_a_saved_dataset(tmp_path: Path, whole: bytes) -> None:
    datasets = pytest.importorskip("datasets")
    stored = [{"bytes": content, "path": None} for content in (whole, b"no image", whole)] + [None]
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    saved = datasets.Dataset.from_dict({"image": stored, "label": [0, 1, -1, 1]}, features=features)
    saved.save_to_disk(str(tmp_path / "saved"))
    summary = build(tmp_path / "out", tmp_path / "saved")
    assert (summary.num_rows, summary.num_images, summary.num_rejects, summary.num_ignored) == (4, 2, 2, 0)


def test_the_sum_holds_for_a_remote_folder_and_a_remote_list(tmp_path: Path, whole: bytes) -> None:
    memory = fsspec.filesystem("memory")
    files = {"0.jpg": whole, "1.jpg": whole, "bad.jpg": b"no image", "a.heic": b"x"}
    memory.pipe({f"/nothing-lost/photos/{name}": content for name, content in files.items()})
    memory.pipe("/nothing-lost/l.csv", b"path,label\nphotos/0.jpg,1\nphotos/gone.jpg,2\n")
    try:
        folder = build(tmp_path / "folder", "memory://nothing-lost/photos")
        rows = build(tmp_path / "list", "memory://nothing-lost/l.csv")
    finally:
        memory.rm("/nothing-lost", recursive=True)
    assert (folder.num_rows, folder.num_images, folder.num_rejects, folder.num_ignored) == (4, 2, 1, 1)
    assert (rows.num_rows, rows.num_images, rows.num_rejects, rows.num_ignored) == (2, 1, 1, 0)


def test_a_video_rejected_in_several_shards_is_one_row(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", gray_frames([20 + index % 200 for index in range(200)]))
    content = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(content[: len(content) // 3] + bytes(200) + content[len(content) // 3 + 200 :])
    write_video(tmp_path / "w.mp4", gray_frames([20 + index for index in range(30)]))
    summary = build(tmp_path / "out", tmp_path / "v.mp4", tmp_path / "w.mp4", samples_per_shard=2)
    assert summary.num_rows == 2 == summary.num_videos + summary.num_rejects
