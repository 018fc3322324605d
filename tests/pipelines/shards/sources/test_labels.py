"""Labels and splits: one spelling for one class, none for what stands for none, and no two classes made one."""

import io
import math
import unicodedata
from decimal import Decimal
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.sources.labels import MISSING, class_name, find_column, label_text, no_label_text, split_name


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "\t\n",
        "-1",
        -1,
        -1.0,
        "-1.0",
        " -1 ",
        b"-1",
        math.nan,
        "nan",
        "NaN",
        " NaN ",
        "None",
        "null",
        "NULL",
    ],
)
def test_no_label(value: object) -> None:
    assert label_text(value) is None


def test_missing_is_what_pandas_takes_for_it() -> None:
    pandas = pytest.importorskip("pandas")
    words = [
        "",
        "-1",
        "nan",
        "None",
        "none",
        "NA",
        "N/A",
        "n/a",
        "null",
        "NULL",
        "Null",
        "cat",
        "0",
        "-",
        "?",
        "-nan",
        "<NA>",
    ]
    table = pandas.read_csv(io.StringIO("label,x\n" + "".join(f"{word},1\n" for word in words)), dtype=str)
    expected = [isinstance(one, float) or one == "-1" for one in table["label"]]
    assert [label_text(word) is None for word in words] == expected
    assert {"nan", "NaN", "None", "", "-1"} <= MISSING


ONE_CLASS = [
    ["1", "1.0", 1, 1.0, " 1", "1.", "1.000", b"1", Decimal("1.00")],
    ["0", 0, 0.0, -0.0, "0.0", "-0.0"],
    ["cat", " cat", "cat ", "\tcat\n", "cat\u00a0", "\ufeffcat", b"cat"],
    ["café", "cafe\u0301", " cafe\u0301 ", "café".encode()],
    ["Å", "A\u030a", "\u212b"],
    ["한국", unicodedata.normalize("NFD", "한국")],
    ["-7", -7, -7.0, "-7.0"],
    ["10000000000000000000000", 10**22],
]
APART = [
    "1",
    "01",
    "10",
    "1.5",
    "cat",
    "Cat",
    "cats",
    "none",
    "café",
    "cafe",
    "0",
    "1e3",
    b"caf\xe9",
    b"caf\xe8",
    b"\xff",
    "\ud800",
    "\ud801",
]


@pytest.mark.parametrize("values", ONE_CLASS)
def test_one_class_is_one_label(values: list[object]) -> None:
    assert len({label_text(value) for value in values} - {None}) == 1


def test_two_classes_stay_two_labels() -> None:
    for one, other in combinations(APART, 2):
        assert label_text(one) != label_text(other), (one, other)


@given(st.one_of(st.text(), st.binary(), st.integers(), st.floats()))
def test_labels_can_be_written_and_read_again(value: object) -> None:
    label = label_text(value)
    if label is not None:
        assert label.encode().decode() == label
        assert label_text(label) == label
        assert label == label.strip() == unicodedata.normalize("NFC", label)


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_undecodable_bytes_never_merge_two_classes(one: bytes, other: bytes) -> None:
    """Judge: decoded with each byte that is no UTF-8 standing for itself, and stripped, they are equal or not."""
    texts = [unicodedata.normalize("NFC", raw.decode(errors="surrogateescape")).strip() for raw in (one, other)]
    if texts[0] != texts[1] and not any("\\" in text for text in texts):
        labels = [label_text(raw) for raw in (one, other)]
        assert labels[0] != labels[1] or labels[0] is None or any(text.strip(".0-").isdigit() for text in texts)


@pytest.mark.parametrize("value", [[1], {"a": 1}, (1, 2), object()])
def test_what_is_no_label_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="need a text or a number"):
        label_text(value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("None", "None"), ("-1", "-1"), (" cat", "cat"), ("1.0", "1"), ("cafe\u0301", "café"), (" ", " ")],
)
def test_a_class_folder_is_always_a_class(name: str, expected: str) -> None:
    assert class_name(name) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(None, None), ("", None), ("nan", None), (math.nan, None)],
        *[("Train", "train"), ("training", "train"), (" VALID ", "val"), ("validation", "val"), ("dev", "val")],
        *[("train.clean.100", "train_clean_100"), ("test.other", "test_other"), (1.0, "1"), (3, "3")],
    ],
)
def test_split_name(value: object, expected: str | None) -> None:
    assert split_name(value) == expected


@pytest.mark.parametrize("value", ["../up", "a b", "épreuve", "x" * 33, "a/b", "a-b"])
def test_splits_that_no_file_can_be_named_after(value: str) -> None:
    with pytest.raises(ValueError, match="need one word of letters and digits"):
        split_name(value)


def test_columns_are_found_whatever_their_case() -> None:
    usual = ("label", "labels", "class")
    assert find_column(usual, ["path", " Label "]) == " Label "
    assert find_column(usual, ["CLASS", "LABELS"]) == "LABELS"
    assert find_column(usual, ["path", "kind"]) is None
    assert "a, b" in no_label_text(["a", "b"])
    assert len(no_label_text(["x"] * 1000)) < 500
