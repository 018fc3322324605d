"""`fourfold profile` from end to end on tiny shards: table, JSON, page; bad input is one message."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import app as cli
from benchmarks.loaders import compare_loaders
from benchmarks.profile.measure import ceilings

MakeShards = Callable[..., Path]
SMALL = {"canvas_px": 64, "batch_size": 4, "tasks": {"colorization": {}, "exemplar": {"patch_px": 16}}}


def fourfold(*arguments: str | Path) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _quick_and_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ceilings, "NUM_REPEATS", 1)
    monkeypatch.setattr(ceilings, "COPY_BYTES", 1 << 16)
    monkeypatch.setattr(ceilings, "MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))


def write(folder: Path, **value: Any) -> Path:
    path = folder / "profile.yaml"
    path.write_text(json.dumps(value))  # JSON is YAML
    return path


class Page(HTMLParser):
    """Headings, addresses that it would load, and whether all tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_folder_of_both_kinds(small_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["pipeline.canvas_px=64", "pipeline.batch_size=4", "pipeline.clip_batch_size=2", "pipeline.num_frames=6"]
    settings += ["pipeline.tasks={colorization: {}, motion_segmentation: {}}", "num_repeats=2"]
    options = [text for setting in settings for text in ("--set", setting)]
    out = tmp_path / "out"
    assert fourfold("profile", small_shards(12, 4), "--out", out, "--seconds", "0.5", *options) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("The bottleneck is ")
    for word in (
        "samples/s",
        "decode image",
        "decode clip",
        "motion_segmentation",
        "advice",
        "worker processes: tried",
        "memory for batches",
    ):
        assert word in printed.out
    assert "profile.html" in printed.err
    assert sorted(path.name for path in out.iterdir()) == ["profile.html", "profile.json"]
    check_document(json.loads((out / "profile.json").read_text()), ["colorization", "motion_segmentation"])
    check_page((out / "profile.html").read_text())


def check_document(document: dict[str, Any], tasks: list[str]) -> None:
    assert document["environment"]["commit"]
    assert document["config"]["pipeline"]["canvas_px"] == 64
    assert document["verdict"]["stage"] in document["verdict"]["sentence"]
    stages = {row["stage"]: row for row in document["stages"]}
    assert {*tasks, "read image", "decode clip"} <= set(stages)
    assert sum(row["cpu_ratio"] for row in document["stages"]) == pytest.approx(1)
    assert {one["stage"] for one in document["blocked"]} == {"read", "decode", *tasks}
    assert document["throughput"]["consumer_needs_samples_per_s"] is None
    assert document["ceilings"]["to_device_bytes_per_s"] is None
    assert document["memory"]["peak_bytes"] > document["memory"]["step_bytes"] > 0
    assert document["loaders"] is None


def check_page(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert page.addresses == ["#content"]  # nothing is loaded from anywhere
    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "Verdict",
        "Where the time goes",
        "Roofs and what was measured",
        "Stages",
        "Advice",
        "What is not measured",
        "Environment and reproduction",
    ]
    assert text.count("<svg") >= 3
    assert "<script" not in text
    assert "not measured, the device is the CPU" in text


@pytest.fixture
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes take seconds to start; one test tries them."""
    monkeypatch.setattr("benchmarks.profile.run_profile.try_workers", lambda config: "not tried")


@pytest.mark.usefixtures("_no_workers")
def test_a_yaml_with_a_device_as_json(
    small_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = {"images": str(small_shards(12)), **SMALL}
    path = write(tmp_path, pipeline=pipeline, device_samples_per_s=20.0, num_repeats=2)
    assert fourfold("profile", path, "--out", tmp_path / "out", "--seconds", "0.5", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "out" / "profile.json").read_text())
    assert (document["verdict"]["stage"], document["verdict"]["is_alarm"]) == ("step", False)
    assert document["throughput"]["consumer"] == "device"
    assert document["throughput"]["consumer_needs_samples_per_s"] == pytest.approx(20, rel=0.1)
    assert document["throughput"]["pipeline_alone_samples_per_s"] > 20


@pytest.mark.usefixtures("_no_workers")
def test_loaders_are_compared_on_the_images_of_the_pipeline(
    small_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.profile import run_profile as run

    def compared(options: run.CompareOptions, report: Callable[[str], None]) -> dict[str, Any]:
        short = replace(options, names=("fourfold opencv",), num_cores=1, warm_repeats=1, cold_repeats=0, least_s=0.0)
        return compare_loaders(short, report)

    monkeypatch.setattr(run, "compare_loaders", compared)
    path = write(tmp_path, pipeline={"images": str(small_shards(12)), **SMALL}, num_repeats=2)
    assert fourfold("profile", path, "--out", tmp_path / "out", "--seconds", "0.5", "--loaders") == 0
    assert re.search(r"^fourfold opencv +warm +\d+", capsys.readouterr().out, re.MULTILINE)
    document = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert document["loaders"]["samples_per_s"]["warm"]["fourfold opencv"]["median"] > 0
    assert "<h2>Loaders compared</h2>" in (tmp_path / "out" / "profile.html").read_text()


def test_loaders_need_images(small_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = {"clips": str(small_shards(1, 4)), "tasks": {"motion_segmentation": {}}, "num_frames": 6}
    path = write(tmp_path, pipeline=pipeline)
    assert fourfold("profile", path, "--out", tmp_path / "out", "--loaders") == 2
    assert "--loaders: images = none; need one folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "exit_code", "words"),
    [
        ({"pipeline": {"images": "HERE", "tasks": {}}}, 2, ["tasks"]),
        ({"pipeline": {"images": "HERE", "tasks": {"motion_segmentation": {}}}}, 2, ["clips"]),
        ({"pipeline": {"images": "HERE", "split": "test", "tasks": {"colorization": {}}}}, 2, ["test", "train"]),
        ({"pipeline": {"images": "GONE", "tasks": {"colorization": {}}}}, 2, ["GONE", "no such folder"]),
        ({"pipeline": {"images": "HERE", "tasks": {"colorization": {}}}, "device": "cuda:7"}, 2, ["cuda:7", "cpu"]),
        ({"pipeline": {"images": "HERE", "tasks": {"colorization": {}}}, "device": "tpu"}, 2, ["tpu", "cpu"]),
        ({"secnods": 3, "pipeline": {}}, 2, ["unknown key secnods", "seconds"]),
    ],
)
def test_bad_input_is_one_message(
    value: dict[str, Any],
    exit_code: int,
    words: list[str],
    small_shards: MakeShards,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = json.dumps(value).replace("HERE", str(small_shards(6))).replace("GONE", str(tmp_path / "GONE"))
    path = write(tmp_path, **json.loads(text))
    assert fourfold("profile", path, "--out", tmp_path / "out", "--seconds", "0.5") == exit_code
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.endswith(" ...")]
    assert printed.out == ""
    assert len(lines) == 1
    assert lines[0].startswith("fourfold: ")
    assert [word for word in words if word not in lines[0]] == []
    assert not (tmp_path / "out").exists()


def test_a_folder_without_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert fourfold("profile", tmp_path / "empty") == 2
    message = capsys.readouterr().err
    assert "manifest.json" in message
    assert "shards build" in message
    assert message.count("\n") == 1


def test_a_missing_shard_is_named(small_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_shards(12)
    gone = sorted(folder.glob("*.tar"))[1]
    gone.unlink()
    assert fourfold("profile", folder, "--out", tmp_path / "out") == 1
    assert gone.name in capsys.readouterr().err
