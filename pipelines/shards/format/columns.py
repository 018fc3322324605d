"""Arrow arrays to and from Python values, without `pa.array` and `Array.to_numpy`.

Those import pandas where it is installed, which takes 0.3 s and 50 MB in every worker process; and `pa.array` takes
several times as long for text.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["content_of", "number_column", "numbers_of", "text_column"]


def number_column(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """Return numbers, none of them missing, as an array of an integer or floating point type."""
    dtype = kind.to_pandas_dtype()  # the NumPy type, in spite of the name
    array = np.ascontiguousarray(values if isinstance(values, np.ndarray) else list(values), dtype=dtype)
    return pa.Array.from_buffers(kind, len(array), [None, pa.py_buffer(array)])


def text_column(values: Sequence[str]) -> pa.Array:
    """Return text, none of it missing, as an array of strings; together less than 2 GiB of UTF-8."""
    # One encode for all: Arrow would encode string by string.
    joined = "".join(values)
    content = joined.encode()
    sizes = map(len, values) if len(content) == len(joined) else (len(value.encode()) for value in values)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(sizes, np.int32, len(values)), out=offsets[1:])
    return pa.Array.from_buffers(pa.string(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(content)])


def numbers_of(column: pa.Array) -> npt.NDArray[Any]:
    """Return the numbers of an array without missing values, not copied."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    return np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]


def content_of(column: pa.Array) -> bytes:
    """Return the values of an array as bytes that do not depend on where it lies; none may be missing."""
    if not pa.types.is_string(column.type):
        return numbers_of(column).tobytes()
    _, offsets, text = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return np.diff(ends).tobytes() + (bytes(memoryview(text)[ends[0] : ends[-1]]) if len(column) else b"")
