"""Rows of lists, and quotation marks in them: every line is a row as csv reads it, or a problem with its line."""

import csv
import io
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.base.errors import UsageError
from pipelines.shards.sources.list_rows import ListColumns, ListFacts, Row, read_rows

HEADER = "path,label,caption"


def read(text: str, name: str = "list.csv") -> list[Row]:
    return list(read_rows(io.BytesIO(text.encode()), name, ListColumns(), ListFacts()))


def outcomes(lines: Sequence[str], header: str = HEADER, name: str = "list.csv") -> list[tuple[int, str, str | None]]:
    """(line, path, label) of every row; the label of one that has a problem is "!"."""
    found = read("\n".join([header, *lines]) + "\n", name)
    return [(row.number, row.path, "!" if row.problem else row.label) for row in found]


def good(start: int, stop: int) -> list[str]:
    return [f"{n}.jpg,c{n},text {n}" for n in range(start, stop)]


def expected_of(start: int, stop: int) -> list[tuple[int, str, str]]:
    return [(n + 2, f"{n}.jpg", f"c{n}") for n in range(start, stop)]


STRAY = {
    "opens a value, never closed": '3.jpg,c3,"text',
    "opens a value before a separator": '3.jpg,"c3,text',
    "opens the path": '"3.jpg,c3,text',
    "opens and closes twice": '3.jpg,c3,""text',
    "three of them": '3.jpg,c3,"""text',
}


@pytest.mark.parametrize("line", STRAY.values(), ids=STRAY)
def test_an_open_mark_takes_its_own_line_and_no_other(line: str) -> None:
    found = outcomes([*good(0, 3), line, *good(4, 12)])
    assert [one for one in found if one[0] != 5] == [*expected_of(0, 3), *expected_of(4, 12)]
    (own,) = [one for one in found if one[0] == 5]
    alone = next(csv.reader([line, "END"]))
    assert own[2] == ("!" if "END" in alone[-1] else "c3")


@pytest.mark.parametrize("last", ['9.jpg,c9,size 5"', '9.jpg,c9,"closed"', '9.jpg,"c9","x"', '"9.jpg",c9,"x ""y"""'])
@pytest.mark.parametrize("line", ['3.jpg,c3,"text', '3.jpg,c3,text,"', '"3.jpg,c3,text', '3.jpg,"c3,"text"'])
def test_a_mark_further_down_closes_nothing(line: str, last: str) -> None:
    found = outcomes([*good(0, 3), line, *good(4, 9), last, *good(10, 12)])
    assert [number for number, *_ in found] == list(range(2, 14))
    assert [one for one in found if one[0] != 5] == [*expected_of(0, 3), *expected_of(4, 12)]
    assert found[3][2] in ("!", "c3")


def test_marks_in_every_line() -> None:
    found = outcomes([f'{n}.jpg,c{n},"text' for n in range(50)])
    assert found == [(n + 2, f"{n}.jpg", "!") for n in range(50)]


def test_an_open_mark_at_the_end_of_the_file() -> None:
    assert outcomes([*good(0, 2), '2.jpg,"c2'])[2] == (4, "2.jpg", "!")
    assert outcomes(['0.jpg,c0,"a', "caption of", "more lines"])[0] == (2, "0.jpg", "!")


@pytest.mark.parametrize(
    "value",
    [
        '"two\nlines"',
        '"a, b\n\nc"',
        '"say ""hi""\nand ""bye"""',
        'a "word" inside',
        '5" nail',
        '"x" y',
        "it's",
        '""',
        '"a\rb"',
    ],
)
def test_quoted_values_are_those_of_csv(value: str) -> None:
    for line, header in ((f"3.jpg,c3,{value}", HEADER), (f"{value},3.jpg,c3", "caption,path,label")):
        text = "\n".join([header, line, line.replace("3", "4")]) + "\n"
        expected = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [(row.path, row.label) for row in read(text)] == [(one["path"], one["label"]) for one in expected]
        assert [row.problem for row in read(text)] == [None, None]


def test_too_many_values_are_no_row() -> None:
    found = outcomes(["0.jpg,hello, world,cat", "1.jpg,c1", "2.jpg,c2,x,", "3.jpg,c3,x,,", "4.jpg,c4,x,y"])
    assert [label for *_, label in found] == ["!", "c1", "c2", "c3", "!"]


def test_a_mark_is_a_character_in_tsv() -> None:
    lines = [
        '0.jpg\tc0\t"text',
        '1.jpg\tc1\tsize 5"',
        '2.jpg\tc2\t"a quote" and more',
        '3.jpg\t"c3',
        '4.jpg\tc4\t"x ""y"""',
    ]
    found = outcomes(lines, "path\tlabel\tcaption", "list.tsv")
    assert found == [(n + 2, f"{n}.jpg", "!" if n == 3 else f"c{n}") for n in range(5)]


def test_a_header_with_an_open_mark_is_an_error_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"list\.csv:2: a quotation mark opens"):
        read('\n"path,label\n0.jpg,c0\n1.jpg,c1"\n')


def test_an_endless_value_is_an_error_with_its_line() -> None:
    with pytest.raises(csv.Error, match="line 3: field larger"):
        read(f"path\n0.jpg\n{'x' * 200_000}\n1.jpg\n")


def test_a_mark_before_a_million_characters_costs_one_line() -> None:
    lines = ['0.jpg,c0,"text', *(f"{n}.jpg,c{n},{'x' * 1000}" for n in range(1, 400))]
    assert [label for *_, label in outcomes(lines)] == ["!", *(f"c{n}" for n in range(1, 400))]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(alphabet='ab",\t ', max_size=8), min_size=1, max_size=12))
def test_no_line_is_lost_whatever_the_marks(captions: list[str]) -> None:
    """Every line has a path of its own: it must come out once, with its own label or a problem."""
    lines = [f"{n}.jpg,c{n},{caption}" for n, caption in enumerate(captions)]
    found = outcomes(lines)
    assert [(number, path) for number, path, _ in found] == [(n + 2, f"{n}.jpg") for n in range(len(lines))]
    assert all(label in ("!", f"c{n}") for n, (*_, label) in enumerate(found))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet='ab",\n\r\t é', max_size=10), min_size=1, max_size=8), st.sampled_from(["csv", "tsv"]))
def test_what_csv_writes_is_read_as_it_was(captions: list[str], suffix: str) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="\t" if suffix == "tsv" else ",")
    writer.writerows([("caption", "path", "label"), *((caption, f"{n}.jpg", n) for n, caption in enumerate(captions))])
    found = read(file.getvalue(), f"list.{suffix}")
    assert [(row.path, row.label, row.problem) for row in found] == [
        (f"{n}.jpg", str(n), None) for n in range(len(captions))
    ]
