"""The parent's side of a child process: start it, ask it, end it. Leaves no process behind, also after a kill."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.harness.child_main import descendants, kill_all
from pipelines.base.errors import DataError

__all__ = ["ROOT", "Child", "ChildError", "start_python"]

ROOT = Path(__file__).resolve().parents[2]
END_S = 10.0
"""Time for a child to end by itself before it is made to."""


class ChildError(DataError):
    """A request that failed in a child process, and why. is_missing: something is not installed."""

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


def start_python(
    target: str, arguments: Mapping[str, Any], *, environment: Mapping[str, str] | None = None, **streams: Any
) -> "subprocess.Popen[bytes]":
    """Start a fresh Python that calls `target`, "module:function", with `arguments` (values that JSON knows).

    It ends with this process, or once its input ends. `streams`: stdin, stdout, stderr as of Popen.
    """
    # The child must import this very checkout, wherever either of the two was started.
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.harness.child_main", target, json.dumps(dict(arguments))],
        env=os.environ | {"PYTHONPATH": paths} | dict(environment or {}),
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C is for the parent, which then ends its children in order
        **streams,
    )


class Child:
    """A fresh Python that calls one function of ours and answers requests. A context manager."""

    def __init__(
        self,
        target: str,
        arguments: Mapping[str, Any],
        *,
        folder: Path,
        timeout_s: float = 3600.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`target` and `arguments`: see `start_python`. `folder`: made here, for its log and its temporary files;
        sockets go there, so its path must be short (`short_parent`)."""
        (folder / "t").mkdir(parents=True)
        self._log, self._timeout_s, self._hangs = folder / "log.txt", timeout_s, False
        own = {"TMPDIR": str(folder / "t"), **(environment or {})}
        pipe = subprocess.PIPE
        with self._log.open("wb") as log:
            self.process = start_python(target, arguments, environment=own, stdin=pipe, stdout=pipe, stderr=log)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Return the answer. Raises ChildError for an error, no answer within `timeout_s`, or a process that ended."""
        sent, received = self._pipes()
        try:
            sent.write(json.dumps({"do": do, **request}).encode() + b"\n")
            sent.flush()
        except OSError as error:
            raise ChildError(self._last_words()) from error
        if not select.select([received], [], [], self._timeout_s)[0]:
            # For `close`: a child that hangs does not see the end of its input, and waiting for that would be lost
            # time.
            self._hangs = True
            raise ChildError(f"{do}: no answer within {self._timeout_s:.0f} s")
        line = received.readline()
        if not line:
            raise ChildError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            message = " ".join(str(answer["error"]).split())[:300]
            is_ours = answer["type"] in ("DataError", "UsageError") or answer["is_missing"]
            raise ChildError(
                message if is_ours else f"{answer['type']}: {message}", is_missing=bool(answer["is_missing"])
            )
        return answer

    def close(self) -> None:
        """End the child and its descendants: end of input first, so that it can tidy up, then signals."""
        if self.process.poll() is not None and self.process.stdin is None:
            return
        # Listed while the child lives: afterwards its workers cannot be found through it.
        workers = descendants(self.process.pid)
        sent, received = self._pipes()
        with contextlib.suppress(OSError):  # unsent bytes for a process that has ended
            sent.close()
        # Signal 0 does nothing: first the closed input is to end it.
        for ending in (signal.SIGKILL,) if self._hangs else (0, signal.SIGTERM, signal.SIGKILL):
            self.process.send_signal(ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_S)
                break
        received.close()
        # Marks the child as closed, since `close` may be called twice.
        self.process.stdin = None
        _, alive = psutil.wait_procs(workers, timeout=0 if self._hangs else END_S)
        kill_all(alive)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def _last_words(self) -> str:
        try:
            code: int | str = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            code = "none yet"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process ended (exit code {code}): {lines[-1][:300] if lines else 'it said nothing'}"
