"""Loops over single pixels, compiled by Numba when first called and kept on disk: seconds once, milliseconds later.

They hold no lock of Python's. Arithmetic is as written, with no fused or reordered sums, so that every machine gets the
same bits.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

__all__ = ["compiled"]

Given = ParamSpec("Given")
Made = TypeVar("Made")

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """The function as machine code. Kept beside its source or, where that is read-only, in the user's cache folder; if
    neither can be written, every process compiles for itself."""
    made: Any = numba.njit(**OPTIONS)(function)
    with suppress(RuntimeError):  # no folder to keep it in
        made._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return cast(Callable[Given, Made], made)


class _Cache(FunctionCache):
    """Numba's, for code that stands in several files, and with which a full disk costs time and not the run."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        # By itself it looks at the function alone, and takes old code for new where a constant or a callee has changed.
        return *super()._index_key(sig, codegen), str(OPTIONS), _meaning(self._py_func)  # type: ignore[no-untyped-call]

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            warnings.warn(
                f"compiled loops cannot be kept in {self.cache_path} ({error}), so that every process takes some "
                "seconds to compile them; make room there, or set NUMBA_CACHE_DIR to another folder",
                stacklevel=2,
            )


def _meaning(function: Any) -> str:
    """What the machine code follows from: the function's own code, its constants and the functions it calls."""
    code, known = function.__code__, function.__globals__
    parts = [code.co_code.hex(), repr(code.co_consts)]
    for name in code.co_names:
        value = known.get(name)
        if isinstance(value, Dispatcher):
            parts.append(_meaning(value.py_func))
        elif isinstance(value, int | float | str | tuple):
            parts.append(f"{name}={value!r}")
    return " ".join(parts)
