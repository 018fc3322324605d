"""What commands print: plain JSON of any record, tables without padding, sizes with units."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.results.output import plain, print_facts, print_json, print_table, size_text
from pipelines.base.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    path: Path
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner
    share: np.float32
    by_name: dict[str, Inner]


class Options(Config):
    folder: Path = Path("x")


def test_plain_goes_all_the_way_down() -> None:
    inner = Inner(path=Path("a/b"), names=("c",))
    found = plain(Outer(inner=inner, share=np.float32(0.5), by_name={"d": inner}))
    expected = {"path": "a/b", "names": ["c"]}
    assert found == {"inner": expected, "share": 0.5, "by_name": {"d": expected}}
    assert json.loads(json.dumps(found)) == found


def test_plain_of_configs_and_tensors() -> None:
    assert plain(Options()) == {"folder": "x"}
    assert plain(torch.tensor(3)) == 3


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Zürich"})
    assert capsys.readouterr().out == '{\n  "name": "Zürich"\n}\n'


def test_table_has_no_padding_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("shards", ["name", "bytes"], [("[bold]a", 5), ("b", None), ("c", 0.123456)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shards"
    assert [line.split() for line in lines[1:]] == [["name", "bytes"], ["[bold]a", "5"], ["b", "-"], ["c", "0.1235"]]
    assert all(line == line.rstrip() for line in lines)


def test_columns_are_aligned_and_a_row_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("犬" * 3, 1, "one\ntwo"), ("a", 123, "x" * 300)]
    print_table("dogs", ["name", "images", "note"], rows)
    assert capsys.readouterr().out == (
        "dogs\n"
        "name    images  note\n"
        "犬犬犬       1  one two\n"  # an ideograph takes two columns of a terminal
        "a          123  " + "x" * 300 + "\n"
    )


def test_numbers_in_lists_have_four_digits(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts("few-shot", {"draws": [100 / 3, 50.0], "mix": [[1.0, 1 / 3]]})
    assert "[33.33, 50]" in capsys.readouterr().out


def test_facts_are_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts("summary", {"images": 3, "labels": None})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["summary"],
        ["images", "3"],
        ["labels", "-"],
    ]


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_size_text(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text
