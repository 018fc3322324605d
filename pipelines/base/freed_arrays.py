"""Which arrays are gone: noted while the last view of one goes, asked about later.

The note is made by C code alone. A callback written in Python runs in the middle of whatever drops the last view, and
an interrupt that comes in it is lost: `weakref.finalize` can swallow a Ctrl-C.
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
    __slots__ = ("what",)
    what: Any


class FreedArrays(Generic[T]):
    """`watched` arrays over some memory, until no view of them is left, of NumPy's or of torch's."""

    def __init__(self) -> None:
        self._notes: dict[int, _Note] = {}
        self._gone: deque[weakref.ref[Bytes]] = deque()

    def watched(self, memory: Bytes, what: T) -> Bytes:
        """The bytes of `memory` as an array of its own; once it and all views of it are gone, `gone` gives `what`."""
        # Through a memoryview, because NumPy then takes this array for the owner: every view keeps it alive. Of a view
        # of `memory` only that would stay alive, and be given out while in use.
        root = np.frombuffer(memory.data, np.uint8)
        note = _Note(root, self._gone.append)
        note.what = what
        self._notes[id(note)] = note
        return root

    def gone(self) -> list[T]:
        """Of those whose last view is gone since this was last asked. Safe to call from several threads."""
        found = []
        while self._gone:
            try:
                note = self._gone.popleft()
            except IndexError:  # another thread was faster
                break
            found.append(self._notes.pop(id(note)).what)
        return found
