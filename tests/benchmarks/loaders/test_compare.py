"""Whole comparisons in small: one with the loaders of this machine, others with planted ones, and the command."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from benchmarks.harness.temporary import short_parent
from benchmarks.loaders import CompareOptions, compare_loaders, loader_rows
from benchmarks.loaders.compare import Loaders, time_loaders
from benchmarks.loaders.registry import CONTENDERS, LIMIT, Contender
from benchmarks.studies.compare_loaders import STUDY
from pipelines.base.errors import UsageError
from tests.made.patience import PATIENCE_S
from tests.made.pictures import encode, smooth_picture, stored_images, write_folder

ROOT = Path(__file__).resolve().parents[3]
NUM_SAMPLES = 8
DATALOADER = "torch DataLoader, fourfold pixels"  # starts sooner than those that import torchvision


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("compare") / "given", stored_images(NUM_SAMPLES))


def options(shards: Path, folder: Path, names: tuple[str, ...], **changes: Any) -> CompareOptions:
    small = {"canvas_px": 32, "batch_size": 4, "num_cores": 1, "num_samples": NUM_SAMPLES, "least_s": 0.0}
    return CompareOptions(shards=shards, folder=folder, names=names, **(small | changes))


def test_comparison_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(3):
        (tmp_path / "photos" / f"{index}.jpg").write_bytes(encode(smooth_picture(index, 90, 80)))
    names = ["fourfold opencv", DATALOADER, "litdata"]
    sizes = [
        "--batch-size",
        "2",
        "--canvas-px",
        "32",
        "--samples",
        "4",
        "--cores",
        "1",
        "--least-s",
        "0",
        "--warm",
        "2",
        "--cold",
        "1",
    ]
    chosen = [word for name in names for word in ("--loader", name)]
    given = ["--made-from", str(tmp_path / "photos"), "--out", str(tmp_path / "record.json"), *sizes, *chosen]
    STUDY.main(given)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "record.json"}
    record, said = json.loads((tmp_path / "record.json").read_text()), capsys.readouterr().out
    assert record["kind"] == "loaders"
    assert list(record["results"]) == ["500x375-q90"]
    assert record["config"]["command"].startswith("python -m benchmarks.studies.compare_loaders --made-from")
    assert record["environment"]["commit"]
    results = record["results"]["500x375-q90"]
    assert (results["samples"]["median_width_px"], results["samples"]["median_height_px"]) == (500, 375)
    measured = {"fourfold opencv", DATALOADER} | ({"litdata"} if find_spec("litdata") else set())
    assert set(results["differences"]) == measured
    for name in measured:
        assert f"500x375-q90: {name}: makes the same" in said
        assert len(results["samples_per_s"]["warm"][name]["repeats"]) == 2
    if find_spec("litdata") is None:
        assert results["not_measured"]["litdata"].startswith("not installed: pip install 'fourfold[peers]' (")
        assert "litdata: not measured: not installed" in said
    if find_spec("nvidia") is not None:
        assert len(results["ratio_to_limit"]["warm"]["fourfold opencv"]["repeats"]) == 2
    assert results["versions"]["torch"][0].isdigit()
    rows = loader_rows(results)
    assert {row["loader"] for row in rows} - {LIMIT} == set(names)
    assert {row["cache"] for row in rows} <= {"warm", "cold", ""}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """Loaders that are right, die and lose samples; and a limit as fast as the first."""
    names = ("Right", "Dying", "Short")
    contenders = {
        name: Contender(module="tests.made.planted_loaders", data="files", what=name, packages=("torch",), opener=name)
        for name in names
    }
    for name, one in {**contenders, LIMIT: contenders["Right"]}.items():
        monkeypatch.setitem(CONTENDERS, name, one)
    return names


def test_loaders_that_fail_are_rows_and_the_others_go_on(
    planted: tuple[str, ...], shards: Path, tmp_path: Path
) -> None:
    results = compare_loaders(options(shards, tmp_path, planted, warm_repeats=3, cold_repeats=0))
    assert set(results["samples_per_s"]["warm"]) == {LIMIT, "Right"}
    assert len(results["ratio_to_limit"]["warm"]["Right"]["repeats"]) == 3
    rows = {row["loader"]: row for row in loader_rows(results)}
    assert rows["Right"]["num_repeats"] == 3
    assert rows["Dying"]["note"] == "not measured: its process ended (exit code 7): out of luck"
    assert "the pass ended after 4 of 8 samples" in rows["Short"]["note"]
    assert list(tmp_path.iterdir()) == []


class FakeChild:
    """Notes the turns, and takes a second each time."""

    asked: list[tuple[str, bool]] = []  # noqa: RUF012  emptied by the test

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, do: str, *, is_cold: bool, least_s: float) -> dict[str, Any]:
        self.asked.append((self.name, is_cold))
        return {"seconds": 1.0, "num_passes": 1, "resident_ratio": float(not is_cold)}


def test_turns_alternate_and_who_is_first_moves_on(tmp_path: Path) -> None:
    FakeChild.asked.clear()
    names = (LIMIT, "webdataset", "litdata")
    given = options(Path("shards"), tmp_path, names, warm_repeats=3, cold_repeats=1)
    children: Any = {name: FakeChild(name) for name in names}
    time_loaders(given, 8, Loaders(report=lambda _: None, children=children))
    first, second, third = names
    assert FakeChild.asked == [
        *[(first, False), (second, False), (second, True), (third, False), (third, True)],
        *[(second, False), (third, False), (first, False)],
        *[(third, False), (first, False), (second, False)],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "{tmp}/r.json"), "nothing to read: give folders of shards, --photos FOLDER or --made-from FOLDER"),
        (("{tmp}/missing", "--out", "{tmp}/r.json"), "missing"),
        (("--photos", "{tmp}/missing", "--out", "{tmp}/r.json"), "missing"),
        (("--made-from", "{tmp}", "--out", "{tmp}/r.json"), "holds no .jpeg, .jpg"),
        (("{shards}", "--out", "{tmp}"), "a folder, or in one that cannot be written to"),
        (("{shards}", "--out", "{shards}/manifest.json/r.json"), "cannot be made"),
        (("{shards}", "--out", "{tmp}/r.json", "--folder", "{tmp}/missing"), "not a folder"),
        (("{shards}", "--out", "{tmp}/r.json", "--loader", "ffcv"), "loaders ['ffcv'] are unknown"),
        (("{shards}", "--out", "{tmp}/r.json", "--batch-size", "0"), "batch_size = 0"),
        (("{shards}", "--out", "{tmp}/r.json", "--batch-size", "9", "--samples", "9"), "need at least one batch of 9"),
    ],
)
def test_wrong_use_is_one_message(
    arguments: tuple[str, ...],
    message: str,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [argument.format(tmp=tmp_path, shards=shards) for argument in arguments]
    with pytest.raises(SystemExit) as caught:
        STUDY.main(given)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For temporary files, so that all that is left there would be the command's."""
    with TemporaryDirectory(prefix="ff", dir=short_parent()) as name:
        yield Path(name)


def test_terminated_in_the_middle_nothing_is_left(shards: Path, tmp_path: Path, short_folder: Path) -> None:
    arguments = [str(shards), "--out", str(tmp_path / "record.json"), "--loader", DATALOADER, "--warm", "1000"]
    sizes = ["--batch-size", "2", "--canvas-px", "32", "--cores", "1", "--least-s", "0", "--cold", "0"]
    started = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.studies.compare_loaders", *arguments, *sizes],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"TMPDIR": str(short_folder)},
    )
    with started:
        assert started.stdout is not None
        assert any("repeat 2" in line for line in started.stdout)
        children = psutil.Process(started.pid).children(recursive=True)
        assert len(children) >= 4  # two hosts, a worker, who keeps the folders
        started.send_signal(signal.SIGTERM)
        started.stdout.read()
    assert started.returncode == 130
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert alive == []
    assert list(short_folder.iterdir()) == []
    assert not (tmp_path / "record.json").exists()


def test_comparison_of_other_than_image_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        compare_loaders(options(tmp_path, tmp_path, ("webdataset",)))
    assert list(tmp_path.iterdir()) == []
