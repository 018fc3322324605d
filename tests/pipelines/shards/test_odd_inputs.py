"""Over a hundred bad and odd inputs: none crashes a build, each is a sample or a named reject, and nothing leaks."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.base.errors import FourfoldError
from pipelines.shards.build import REJECTS_NAME, BuildConfig, BuildSummary, build_shards
from pipelines.shards.tools.verify import verify_shards
from tests.made.odd_images import odd_images
from tests.made.odd_inputs import OddInput, make_odd_inputs

MIN_INPUTS = 60


@dataclass(frozen=True, kw_only=True)
class Built:
    """One build of all odd inputs: what was expected, sidecars and rejects by source, and the folder's other files."""

    out: Path
    summary: BuildSummary
    expected: list[OddInput]
    samples: dict[str, dict[str, Any]]
    reasons: dict[str, list[str]]
    before: dict[str, tuple[int, int]]
    after: dict[str, tuple[int, int]]


def config(out: Path, sources: list[Path], **options: Any) -> BuildConfig:
    options = {"labels": "off", "num_frames": 4, "num_workers": 1, "max_reject_ratio": 1.0} | options
    return BuildConfig(sources=sources, out=out, **options)


def files_below(folder: Path, *, without: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything in a folder, links not followed."""
    found = {}
    for path in folder.rglob("*"):
        if without not in (path, *path.parents):
            facts = path.lstat()
            found[str(path)] = (facts.st_size, facts.st_mtime_ns)
    return found


def sidecars(out: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.isfile()
                assert not member.name.startswith("/")
                assert ".." not in member.name.split("/")
                assert member.name.isprintable()
                if member.name.endswith(".json"):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield json.load(file)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("odd")
    inputs, temporary, out = folder / "inputs", folder / "temporary", folder / "out"
    for one in (inputs, temporary, folder / "here"):
        one.mkdir()
    sources, expected = make_odd_inputs(inputs)
    before = files_below(folder, without=out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr("tempfile.tempdir", None)
        patch.chdir(folder / "here")
        summary = build_shards(config(out, sources))
    lines = (out / REJECTS_NAME).read_text(encoding="utf-8").split("\n")
    reasons: dict[str, list[str]] = {}
    for reject in (json.loads(line) for line in lines if line):
        reasons.setdefault(reject["source"], []).append(reject["reason"])
    return Built(
        out=out,
        summary=summary,
        expected=expected,
        samples={facts["source"]: facts for facts in sidecars(out)},
        reasons=reasons,
        before=before,
        after=files_below(folder, without=out),
    )


def test_there_are_enough_of_them(built: Built) -> None:
    assert len({one.source for one in built.expected}) >= MIN_INPUTS


def test_good_and_convertible_inputs_are_samples(built: Built) -> None:
    wanted = {one.source: one for one in built.expected if one.outcome == "sample"}
    assert sorted(wanted.keys() - built.samples.keys()) == []
    for source, one in wanted.items():
        assert dict(one.facts).items() <= built.samples[source].items()


def test_bad_inputs_are_rejected_with_their_reason(built: Built) -> None:
    wanted = [one for one in built.expected if one.outcome == "rejected"]
    assert [one.source for one in wanted if one.source not in built.reasons] == []
    unsaid = {
        one.source: built.reasons[one.source]
        for one in wanted
        if not any(one.says in reason and reason for reason in built.reasons[one.source])
    }
    assert unsaid == {}


def test_every_reason_is_one_that_somebody_thought_of(built: Built) -> None:
    reasons = [reason for found in built.reasons.values() for reason in found]
    assert [reason for reason in reasons if not reason or "unexpected" in reason] == []


def test_nothing_else_is_a_sample_or_a_reject(built: Built) -> None:
    samples = {one.source for one in built.expected if one.outcome == "sample"}
    rejects = {one.source for one in built.expected if one.outcome == "rejected"}
    assert sorted(built.samples.keys() - samples) == []
    assert sorted(built.reasons.keys() - rejects) == []


def test_the_summary_counts_what_the_files_hold(built: Built) -> None:
    assert built.summary.num_rejects == sum(map(len, built.reasons.values()))
    assert built.summary.num_ignored > 0


def test_nothing_is_written_outside_of_the_output(built: Built) -> None:
    assert built.after == built.before


def test_the_shards_verify_with_every_pixel_decoded(built: Built) -> None:
    assert verify_shards(built.out, decode=True) == []


def test_names_that_collide_as_keys_are_all_kept(built: Built) -> None:
    same = [source for source in built.samples if source.startswith("same") or source.lower() == "case.jpg"]
    assert len(same) == 7


def write_odd_images(folder: Path) -> Path:
    folder.mkdir()
    for name, odd in odd_images().items():
        (folder / name).write_bytes(odd.encoded)
    return folder


def test_a_header_check_keeps_what_is_damaged_inside_and_no_more(tmp_path: Path) -> None:
    images = write_odd_images(tmp_path / "images")
    summary = build_shards(config(tmp_path / "out", [images], check="header"))
    expected = [odd for odd in odd_images().values() if odd.outcome == "rejected" and not odd.only_decoding_finds_it]
    assert summary.num_rejects == len(expected)


def test_decoders_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = write_odd_images(tmp_path / "images")
    build_shards(config(tmp_path / "out", [images], num_workers=2))
    shown = capfd.readouterr().err
    assert not [line for line in shown.splitlines() if "libpng" in line or "JPEG" in line or "WARN" in line]


def test_too_many_rejects_end_the_build(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(4):
        (images / f"{index}.jpg").write_bytes(b"no image")
    with pytest.raises(FourfoldError, match="reject"):
        build_shards(config(tmp_path / "out", [images], max_reject_ratio=0.1))


UNUSABLE = {
    "no such path": ("nowhere", "no such file or folder"),
    "empty folder": ("empty", "no files found"),
    "folder of other files": ("others", "no image and no video"),
    "compressed tar": ("compressed.tar.gz", "compressed"),
    "compressed tar under a plain name": ("compressed.tar", "compressed"),
    "table without paths": ("numbers.csv", "no column of paths"),
    "table without a header": ("headless.csv", "no header line"),
    "table with a huge field": ("field.csv", "damaged list"),
    "parquet that is none": ("text.parquet", "damaged list"),
    "parquet of pictures": ("pictures.parquet", "need paths or URLs"),
}


def make_unusable_sources(folder: Path) -> dict[str, tuple[Path, str]]:
    """Sources that stop a build, by name: the path, and a part of the message."""
    for name in ("empty", "others"):
        (folder / name).mkdir()
    (folder / "others" / "notes.md").write_text("no picture")
    for name in ("compressed.tar.gz", "compressed.tar"):
        with tarfile.open(folder / name, "w:gz") as tar:
            tar.add(folder / "others" / "notes.md", "a.jpg")
    (folder / "numbers.csv").write_text("a,b\n1,2\n")
    (folder / "headless.csv").write_text("a.jpg,cat\nb.jpg,dog\n")
    (folder / "field.csv").write_text("path,label\n" + "x" * 200_000 + ".jpg,cat\n")
    (folder / "text.parquet").write_text("no parquet")
    pq.write_table(pa.table({"image": [b"no picture"]}), folder / "pictures.parquet")
    return {name: (folder / path, says) for name, (path, says) in UNUSABLE.items()}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_sources_end_with_a_message(tmp_path: Path, name: str) -> None:
    path, says = make_unusable_sources(tmp_path)[name]
    with pytest.raises(FourfoldError, match=says):
        build_shards(config(tmp_path / "out", [path]))
    assert not list((tmp_path / "out").glob("*.tar"))
