"""The parent's side of `host.py`: starts the process of one loader, asks it, ends it. Leaves nothing behind."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.loaders.descendants import descendants, kill_workers
from benchmarks.loaders.registry import Contender
from benchmarks.loaders.setting import Setting
from pipelines.base.errors import DataError

__all__ = ["HostedLoader", "LoaderError"]

ROOT = Path(__file__).resolve().parents[2]
END_S = 10.0
"""Given to a process to end by itself before it is made to."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LoaderError(DataError):
    """A loader that cannot be measured, and why."""


class HostedLoader:
    """One loader's process. Use as a context manager, or call `close`."""

    def __init__(self, contender: Contender, setting: Setting, *, work: Path, timeout_s: float) -> None:
        """`work`: a folder for its log, temporary files, and what its libraries leave in the home folder. With a short
        path: sockets go there, whose whole paths may have no more than some hundred characters."""
        self._contender, self._timeout_s, self._hangs = contender, timeout_s, False
        work.mkdir(parents=True)
        self._log = work / "log.txt"
        told = json.dumps(asdict(contender)), json.dumps(setting.to_json())
        with self._log.open("wb") as log:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.loaders.host", *told],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(contender, work),
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its children in order
            )

    def __enter__(self) -> "HostedLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer. Raises LoaderError if there is an error, none in time, or no process any more."""
        sent, received = self._pipes()
        try:
            sent.write(json.dumps({"do": do, **request}).encode() + b"\n")
            sent.flush()
        except OSError as error:
            raise LoaderError(self._last_words()) from error
        if not select.select([received], [], [], self._timeout_s)[0]:
            self._hangs = True
            raise LoaderError(f"{do}: no answer within {self._timeout_s:.0f} s")
        line = received.readline()
        if not line:
            raise LoaderError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LoaderError(self._reason(answer))
        return answer

    def close(self) -> None:
        """End of input first, so that the loader can tidy up; then signals. One that hangs is killed; workers, too."""
        if self._process.poll() is not None and self._process.stdin is None:
            return
        workers = descendants(self._process.pid)
        sent, received = self._pipes()
        _close_quietly(sent)
        for ending in (signal.SIGKILL,) if self._hangs else (0, signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
                break
        received.close()
        self._process.stdin = None
        _, alive = psutil.wait_procs(workers, timeout=0 if self._hangs else END_S)
        kill_workers(alive)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _reason(self, answer: dict[str, Any]) -> str:
        extra = self._contender.extra
        message = " ".join(str(answer["error"]).split())[:300]
        if answer["is_missing"] and extra:
            return f"not installed: pip install '{extra}' ({message})"
        return message if answer["type"] in ("DataError", "UsageError") else f"{answer['type']}: {message}"

    def _last_words(self) -> str:
        try:
            code: int | str = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            code = "none yet"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process ended (exit code {code}): {lines[-1][:300] if lines else 'it said nothing'}"


def _environment(contender: Contender, work: Path) -> dict[str, str]:
    for folder in (work / "home", work / "t"):
        folder.mkdir()
    changes = {"HOME": str(work / "home"), "TMPDIR": str(work / "t"), **dict.fromkeys(ONE_THREAD, "1")}
    changes["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    if contender.needs_ffmpeg:
        from benchmarks.loaders.contenders.with_spdl import PATH_VARIABLE, bundled_ffmpeg

        path = bundled_ffmpeg(work / "ffmpeg")
        changes |= {PATH_VARIABLE: path} if path else {}
    return os.environ | changes


def _close_quietly(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # unsent bytes for a process that has gone
        file.close()
