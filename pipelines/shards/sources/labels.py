"""Labels and splits by name: whatever a source holds in, one spelling of a class or split out, or None for none.

Every source asks here, so that one class never becomes two and two never become one.
"""

import math
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any

__all__ = ["LABEL_COLUMNS", "class_name", "find_column", "label_text", "no_label_text", "split_name"]

LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
"""Usual names of a column of labels, the likeliest first, whatever their case."""
# What pandas.read_csv takes for a missing value: it wrote most of these files. -1 is torchvision's and datasets' sign.
MISSING = frozenset(
    {
        *("", "-1", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
BYTE_ORDER_MARK = "\ufeff"
SPLITS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}
SPLIT_PATTERN = re.compile(r"\w{1,32}", re.ASCII)
_WHOLE_NUMBER = re.compile(r"(-?\d+)\.0*")
MOST_SHOWN = 300
CACHED_TEXTS = 2**13


def label_text(value: Any) -> str | None:
    """Return a label as text; None for an absent one: None, NaN, -1, an empty text, and how pandas spells these.

    1, 1.0 and "1.0" are one class, and so are " cat" and "cat", and both Unicode forms of "café". Raises ValueError
    for what is neither text nor number.
    """
    if type(value) is str:  # nearly all of them
        return _label_of(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float):
        # pandas turns a column of integers into floats where a value is missing: 1.0 is class 1.
        text = str(int(value)) if value.is_integer() else str(value)
    elif isinstance(value, bytes):
        text = _spelled(value.decode(errors="surrogateescape"))
    elif isinstance(value, str | int | Decimal):
        text = _spelled(str(value))
    else:
        raise ValueError(f"label {str(value)[:60]!r}; need a text or a number")
    return None if text in MISSING else text


# Millions of rows name a few thousand classes. Bounded, since a column of captions has no two alike.
@lru_cache(maxsize=CACHED_TEXTS)
def _label_of(text: str) -> str | None:
    text = _spelled(text)
    return None if text in MISSING else text


def class_name(name: str) -> str:
    """Return the name of a class folder, or of a ClassLabel, as `label_text` spells it; it is never taken for none."""
    return _spelled(name) or name


def split_name(value: Any) -> str | None:
    """Return a split by our name: train, val, or another word, such as test; None for an absent one.

    Dots become underscores: train.clean.100, a legal name for Hugging Face, is train_clean_100. Raises ValueError for
    anything that cannot be part of a file's name.
    """
    text = label_text(value)
    return None if text is None else _split_of(text)


@lru_cache(maxsize=CACHED_TEXTS)
def _split_of(text: str) -> str:
    # In lower case: file systems that do not tell Train from train would mix their shards.
    name = text.lower().replace(".", "_")
    if not SPLIT_PATTERN.fullmatch(name):
        raise ValueError(f"split {text[:60]!r}; need one word of letters and digits, such as train or val")
    return SPLITS.get(name, name)


def find_column(usual: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the first of the usual names that a column has, as the column spells it; case and spaces do not count."""
    spelled: dict[str, str] = {}
    for name in names:
        spelled.setdefault(name.strip().lower(), name)
    return next((spelled[name] for name in usual if name in spelled), None)


def no_label_text(columns: Iterable[str]) -> str:
    """Return what to say of a source that has columns of which some could be labels, but are not."""
    return f"no label found among its columns {', '.join(columns)[:MOST_SHOWN]}; --set label_column=NAME names one"


def _spelled(text: str) -> str:
    if not text.isascii():
        # File systems of macOS write names decomposed, nearly everything else composed.
        text = unicodedata.normalize("NFC", _valid(text)).replace(BYTE_ORDER_MARK, "")
    text = text.strip()
    if text.endswith((".", "0")) and (whole := _WHOLE_NUMBER.fullmatch(text)):
        text = "0" if whole[1] == "-0" else whole[1]
    return text


def _valid(text: str) -> str:
    r"""Write out bytes that are no UTF-8, as \xe9: a "?" for each would make one class of several."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold
            return text.encode(errors="backslashreplace").decode()
    return text
