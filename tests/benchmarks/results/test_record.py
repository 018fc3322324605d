import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results.record import RECORD_NAME, Record, environment, read_record, write_json, write_record
from pipelines.base.errors import DataError


def made(**changes: object) -> Record:
    whole = Record(
        kind="pretrain",
        key="k" * 64,
        label="all four, depth 10, seed 0",
        date="2026-01-02T03:04:05Z",
        seconds=1.5,
        environment=environment(),
        config={"seed": 0},
        inputs={},
        results={"top1_pct": 70.0},
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_record_comes_back_equal(tmp_path: Path) -> None:
    write_record(tmp_path, made())
    assert read_record(tmp_path, "k" * 64) == made()


@pytest.mark.parametrize("field", ["kind", "key", "label", "date", "config", "results"])
def test_incomplete_record_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        made(**{field: type(getattr(made(), field))()})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"date": "yesterday"}, "date = 'yesterday'"),
        ({"seconds": float("nan")}, "seconds = nan"),
        ({"seconds": -1.0}, "seconds = -1.0"),
        ({"inputs": {"images": ""}}, "inputs.images empty"),
        ({"results": {"top1_pct": float("nan")}}, "results.top1_pct is not finite"),
        ({"results": {"draws": [1.0, float("inf")]}}, "results.draws.1 is not finite"),
        ({"environment": replace(environment(), commit="")}, "environment.commit empty"),
        ({"environment": replace(environment(), gpu_name="")}, "environment.gpu_name empty"),
        ({"environment": replace(environment(), versions={"python": "3"})}, "versions has no fourfold"),
    ],
)
def test_what_a_record_lacks_is_named(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        made(**changes)


def test_record_of_another_key_does_not_count(tmp_path: Path) -> None:
    write_record(tmp_path, made())
    assert read_record(tmp_path, "j" * 64) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_damaged_record_does_not_count(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_NAME).write_text(text)
    assert read_record(tmp_path, "k" * 64) is None


@pytest.mark.parametrize("missing", ["results", "environment", "seconds", "inputs"])
def test_record_without_a_field_does_not_count(tmp_path: Path, missing: str) -> None:
    path = write_record(tmp_path, made())
    content = json.loads(path.read_text())
    del content[missing]
    path.write_text(json.dumps(content))
    assert read_record(tmp_path, "k" * 64) is None


def test_environment_tells_code_machine_and_versions() -> None:
    place = environment()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    if head.returncode == 0:
        assert place.commit == head.stdout.strip()
    assert place.cpu_name
    assert place.num_cores >= 1
    assert {"python", "fourfold", "torch", "timm"} <= set(place.versions)
    assert "not installed" not in (place.versions["fourfold"], place.versions["torch"])


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "numbers.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in path.parent.iterdir()] == ["numbers.json"]


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/numbers\.json: cannot write it"):
        write_json(tmp_path / "file" / "numbers.json", {})
