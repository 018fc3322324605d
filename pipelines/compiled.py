"""Loops over single pixels, compiled by Numba when first called and kept on disk: seconds once, milliseconds later.

They hold no lock of Python's. Arithmetic is as written, with no fused or reordered sums, so that every machine gets the
same bits.
"""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import numba

__all__ = ["compiled"]

Given = ParamSpec("Given")
Made = TypeVar("Made")


def compiled(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """The function as machine code. Kept beside its source or, where that is read-only, in the user's cache folder; if
    neither can be written, every process compiles for itself."""
    compile_it = partial(numba.njit, nogil=True, error_model="numpy")
    try:
        return compile_it(cache=True)(function)
    except RuntimeError:  # no folder to keep it in
        return compile_it()(function)
