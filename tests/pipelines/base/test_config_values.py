"""Values that YAML and the shell make of a word, in fields of every type: fitted, left alone, or refused."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from pipelines.base.config import Config, load_config, validate
from pipelines.base.errors import UsageError


class Everything(Config):
    labels: Literal["auto", "off"] = "auto"
    mode: Literal["off", "paper"] | None = None
    flag: bool = True
    either: bool | Literal["off"] = False
    depth: Literal[10, 18, 100] = 18
    count: Annotated[int, Field(ge=0)] = 1
    maybe: int | None = None
    rate: float = 0.5
    word: str = "x"
    many: list[int] = Field(default_factory=list)
    pair: tuple[int, float] = (1, 2.0)
    by_name: dict[str, int] = Field(default_factory=dict)
    path: Path = Path("x")


def read(folder: Path, line: str) -> dict[str, Any]:
    (folder / "c.yaml").write_text(line + "\n")
    return load_config(Everything, folder / "c.yaml").model_dump()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *[(f"labels: {word}", "off") for word in ("off", "Off", "OFF", "no", "No", "false", "'off'", "'no'")],
        ("mode: off", "off"),
        ("flag: off", False),
        ("flag: on", True),
        ("either: off", False),
        ("word: 'off'", "off"),
    ],
)
def test_off_reaches_every_field_that_allows_it(tmp_path: Path, line: str, expected: object) -> None:
    found = read(tmp_path, line)[line.partition(":")[0]]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("count: 1e4", 10_000),
        ("count: 1E+2", 100),
        ("count: 2.5e3", 2500),
        ("maybe: 3e0", 3),
        ("depth: 1e2", 100),
        ("count: 1.0e+4", 10_000),
        ("many: [1e2, 7]", [100, 7]),
        ("pair: [1e1, 1e-1]", (10, 0.1)),
        ("by_name: {a: 5e1}", {"a": 50}),
        ("rate: 1e-4", 1e-4),
        ("word: 1e4", "1e4"),
    ],
)
def test_scientific_numbers_are_integers_where_one_is_wanted(tmp_path: Path, line: str, expected: object) -> None:
    found = read(tmp_path, line)[line.partition(":")[0]]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("line", ["count: 1.5e0", "count: 1e-3", "maybe: 1e999999999", "many: [x]", "count: 0x"])
def test_what_is_no_integer_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"c\.yaml:1: \w+.*integer"):
        read(tmp_path, line)


@pytest.mark.parametrize(
    "line",
    ["count: true", "depth: true", "count: yes", "maybe: off", "rate: on", "many: [1, true]", "pair: [false, 1]"],
)
def test_truth_values_are_no_numbers(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"c\.yaml:1: .*a number is wanted here, not (true|false)"):
        read(tmp_path, line)


def test_paths_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("DATA", "/data")
    assert validate(Everything, {"path": "~/x"}, source="--set").path == Path("/home/anna/x")
    assert validate(Everything, {"path": "$DATA/${NONE}/x"}, source="--set").path == Path("/data/${NONE}/x")
    assert validate(Everything, {"word": "~/x"}, source="--set").word == "~/x"


def test_values_in_a_message_are_short(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        validate(Everything, {"count": ["x"] * 100_000}, source="--set")
    assert len(str(caught.value)) < 400
