"""One command line, one record: options from a dataclass, what is refused, and what stands in the file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import pytest

from benchmarks.harness.study import RecordFile, Study, versions_of
from pipelines.base.errors import DataError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeOptions:
    num_samples: Annotated[int, "samples of each repeat"] = 4
    seconds: Annotated[float, "of each window"] = 0.5
    split: Annotated[Literal["held_out", "tuning"], "which half"] = "held_out"
    photos: Annotated[Path | None, "a folder"] = None
    rates_per_s: Annotated[tuple[int, ...], "may be repeated", "--rate"] = (1, 2)
    folders: Annotated[tuple[Path, ...], "some folders", "FOLDER"] = ()
    hidden: int = 7

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise UsageError(f"num_samples = {self.num_samples}; need at least 1.")


def study(measure: Any = lambda options: {"seen": options.num_samples}, **changes: Any) -> Study[MadeOptions]:
    given = {
        "module": "benchmarks.studies.made",
        "kind": "made",
        "label": "a made study",
        "description": "Measures nothing.",
        "options": MadeOptions,
        "constants": {"tasks": ["a"]},
        "packages": ("numpy", "not-there"),
    }
    return Study(measure=measure, **(given | changes))


def test_options_come_from_the_fields(tmp_path: Path) -> None:
    seen: list[MadeOptions] = []
    words = ["a", "b", "--samples", "9", "--split", "tuning", "--photos", "p", "--rate", "3", "--rate", "4"]
    study(lambda options: {"n": seen.append(options) or 1}).main([*words, "--out", str(tmp_path / "r.json")])
    assert seen == [
        MadeOptions(num_samples=9, split="tuning", photos=Path("p"), rates_per_s=(3, 4), folders=(Path("a"), Path("b")))
    ]


def test_without_options_there_are_the_defaults(tmp_path: Path) -> None:
    seen: list[MadeOptions] = []
    study(lambda options: {"n": seen.append(options) or 1}).main(["--out", str(tmp_path / "r.json")])
    assert seen == [MadeOptions()]


def test_the_record_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "new" / "r.json"
    study(lines=lambda results: [f"saw {results['seen']}"]).main(["--samples", "2", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["results"] == {"seen": 2}
    assert record["config"] == {
        "num_samples": 2,
        "seconds": 0.5,
        "split": "held_out",
        "photos": None,
        "rates_per_s": [1, 2],
        "folders": [],
        "tasks": ["a"],
        "command": f"python -m benchmarks.studies.made --samples 2 --out {out}",
    }
    assert record["inputs"]["not-there"] == "not installed"
    assert record["inputs"]["numpy"][0].isdigit()
    assert record["environment"]["commit"]
    assert record["date"].startswith("20")
    assert len(record["key"]) == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "0"], "made: num_samples = 0; need at least 1."),
        (["--samples", "many"], "invalid int value"),
        (["--split", "all"], "invalid choice: 'all'"),
        (["--hidden", "1"], "unrecognized arguments"),
        (["--out", "{tmp}"], "a folder, or in one that cannot be written to"),
        (["--out", "{tmp}/file/r.json"], "cannot be made"),
    ],
)
def test_wrong_use_is_one_message_before_anything_is_measured(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    given = [word.format(tmp=tmp_path) for word in words]
    given += [] if "--out" in given else ["--out", str(tmp_path / "r.json")]
    with pytest.raises(SystemExit) as caught:
        study(lambda _: pytest.fail("measured")).main(given)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def fail(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [(DataError("they differ"), 1, "made: they differ"), (KeyboardInterrupt(), 130, "made: interrupted")],
)
def test_a_study_that_stops_leaves_no_record(
    error: BaseException, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        study(lambda _: fail(error)).main(["--out", str(tmp_path / "r.json")])
    assert caught.value.code == code
    assert capsys.readouterr().err.strip() == message
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_written_and_has_exit_code_1(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="1"):
        study(is_failed=lambda results: True).main(["--out", str(tmp_path / "r.json")])
    assert json.loads((tmp_path / "r.json").read_text())["results"] == {"seen": 4}


def record_file(out: Path, **changes: Any) -> RecordFile:
    given = {"kind": "made", "label": "made", "config": {"command": "python -m x"}, "inputs": {}}
    return RecordFile(out=out, **(given | changes))


def test_an_incomplete_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config has no command"):
        record_file(tmp_path / "r.json", config={"num_samples": 1})
    with pytest.raises(ValueError, match="results empty"):
        record_file(tmp_path / "r.json").write({})
    with pytest.raises(ValueError, match=r"results\.samples_per_s is not finite"):
        record_file(tmp_path / "r.json").write({"samples_per_s": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_record_grows_and_counts_earlier_seconds(tmp_path: Path) -> None:
    file = record_file(tmp_path / "r.json", earlier_s=100.0)
    for results in ({"a": 1}, {"a": 1, "b": 2}):
        file.write(results)
        record = json.loads((tmp_path / "r.json").read_text())
        assert record["results"] == results
        assert 100 < record["seconds"] < 110


def test_versions_are_those_installed() -> None:
    assert versions_of(["psutil", "psutil", "nowhere"]) == {
        "nowhere": "not installed",
        "psutil": psutil.__version__,
    }


def test_a_study_that_yields_nothing_leaves_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(lambda _: iter(())).main(["--out", str(tmp_path / "r.json")])
    assert not (tmp_path / "r.json").exists()
    assert "wrote" not in capsys.readouterr().out
