"""Tell which watched arrays have been freed, so that their memory can be used again.

An array counts as freed when the last view of it is gone, whether NumPy's or torch's. Weak references note this in C
code alone. `weakref.finalize` would run a Python callback in the middle of whatever drops the last view, and a Ctrl-C
that arrives during the callback is lost.
"""

import weakref
from collections import deque
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["FreedArrays"]

T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]


class _Note(weakref.ref[Bytes]):
    """Weak reference to an array, with what the caller wants to be told when it is freed."""

    __slots__ = ("what",)
    what: Any


class FreedArrays(Generic[T]):
    """Watcher of arrays: `watched` makes one, `gone` lists those that were freed. Safe to use from several threads."""

    def __init__(self) -> None:
        self._notes: dict[int, _Note] = {}
        self._gone: deque[weakref.ref[Bytes]] = deque()

    def watched(self, memory: Bytes, what: T) -> Bytes:
        """Return the bytes of `memory` as a new array. Once it and all its views are freed, `gone` returns `what`."""
        # Through a memoryview, because NumPy then takes the new array for the owner, and every view keeps it alive.
        # Views of `memory[:]` would keep only `memory` alive, so that it was reused while still in use.
        root = np.frombuffer(memory.data, np.uint8)
        note = _Note(root, self._gone.append)
        note.what = what
        # The dict keeps the reference itself alive: a weak reference that is gone calls nothing.
        self._notes[id(note)] = note
        return root

    def gone(self) -> list[T]:
        """Return `what` of every array freed since the last call."""
        found = []
        while self._gone:
            try:
                note = self._gone.popleft()
            except IndexError:  # another thread was faster
                break
            found.append(self._notes.pop(id(note)).what)
        return found
