"""The log of a run: one line of `log.jsonl` per logged step, and TensorBoard curves."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from training.weights.checkpoint import disk_errors_told

__all__ = ["LOG_NAME", "Journal", "read_log"]

LOG_NAME = "log.jsonl"


class Journal:
    """Log of a run, a context manager. Opened after `step` steps: lines of later steps (of a killed run) are dropped.

    `is_on`: write at all; of several ranks only the first does.
    """

    def __init__(self, run_dir: Path, step: int, *, is_on: bool = True) -> None:
        self._is_on = is_on
        if not is_on:
            return
        # Imported here: it takes a second, and ranks but the first do not need it.
        from torch.utils.tensorboard import SummaryWriter

        self._run_dir = run_dir
        path = run_dir / LOG_NAME
        kept = [line for line in read_log(path) if line["step"] <= step]
        with self._told():
            self._file = path.open("w", encoding="utf-8")
            for line in kept:
                self._write(line)
            self._curves = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_on:
            return
        # What could not be written is still there to be written, and fails again.
        with self._told() if error is None else suppress(OSError):
            self._curves.close()
        with self._told() if error is None else suppress(OSError):
            self._file.close()

    def log(self, line: Mapping[str, Any]) -> None:
        """Write one line. Has a "step"; nested mappings and lists of numbers become curves named a/b and a/0.

        Raises FourfoldError where the disk is full, or cannot be written to.
        """
        if not self._is_on:
            return
        with self._told():
            self._write(line)
            for name, value in _flat(line):
                if name != "step":
                    self._curves.add_scalar(name, value, line["step"])

    def _told(self) -> AbstractContextManager[None]:
        """Turn an error of the disk, of the log or of TensorBoard's thread, into one message."""
        return disk_errors_told(self._run_dir, "the log")

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _flat(value: Any, name: str = "") -> list[tuple[str, float]]:
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{name}/{key}".lstrip("/"))]
    if isinstance(value, str):
        return []
    if isinstance(value, list | tuple):
        return [pair for index, inner in enumerate(value) for pair in _flat(inner, f"{name}/{index}")]
    return [(name, float(value))]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return all whole lines; a line cut short by a kill is left out. [] without a file."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
