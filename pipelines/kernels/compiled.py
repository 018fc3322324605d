"""Decorator for loops over pixels: Numba compiles them at the first call and caches them on disk.

Compiling takes seconds once a machine, loading milliseconds. Compiled loops do not hold Python's lock (GIL). Sums are
computed as written, not fused or reordered, so that every machine gets the same bits.
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

# No `fastmath`, which reorders sums. The error model "numpy" divides by 0 without an exception: a check in every
# division would keep loops from running in vectors.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """Return the function as compiled code.

    It is cached beside its source or, if that is read-only, in the user's cache folder. If neither can be written,
    every process compiles for itself.
    """
    made: Any = numba.njit(**OPTIONS)(function)
    with suppress(RuntimeError):  # no folder to keep it in
        made._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return cast(Callable[Given, Made], made)


class _Cache(FunctionCache):
    """Numba's cache, with two repairs: its key covers callees and constants, and a full disk is a warning."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        # Why not njit(cache=True): its key covers one function and its file, and our loops call loops of other files
        # (power, level, gray_at), so that after a change there it would load the old code. What Numba documents against
        # that (NUMBA_CACHE_DIR, NUMBA_CACHE_LOCATOR_CLASSES) is for a whole process, its user's own functions included.
        return *super()._index_key(sig, codegen), str(OPTIONS), _meaning(self._py_func)  # type: ignore[no-untyped-call]

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:  # the compiled code is in memory: only later processes lose time
            warnings.warn(
                f"compiled loops cannot be cached in {self.cache_path} ({error}), so every process takes some "
                "seconds to compile them; make room there, or set NUMBA_CACHE_DIR to another folder",
                stacklevel=2,
            )


def _meaning(function: Any) -> str:
    """Return all that the compiled code depends on: bytecode, constants, and the functions it calls, as one string."""
    code, known = function.__code__, function.__globals__
    parts = [code.co_code.hex(), repr(code.co_consts)]
    for name in code.co_names:
        value = known.get(name)
        if isinstance(value, Dispatcher):
            parts.append(_meaning(value.py_func))
        elif isinstance(value, int | float | str | tuple):
            parts.append(f"{name}={value!r}")
    return " ".join(parts)
