"""The parent's side of `host.py`: starts the process of one loader, asks it, ends it. Leaves nothing behind."""

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.profile.loaders.contenders import CONTENDERS
from benchmarks.profile.loaders.setting import Setting
from pipelines.errors import DataError

__all__ = ["HostedLoader", "LoaderError"]

ROOT = Path(__file__).resolve().parents[3]
END_S = 20.0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LoaderError(DataError):
    """A loader that cannot be measured, and why."""


class HostedLoader:
    """One loader's process. Use as a context manager, or call `close`."""

    def __init__(self, name: str, setting: Setting, *, work: Path, timeout_s: float) -> None:
        """`work`: a folder for its log and for what its libraries leave in the home folder."""
        self.name, self._timeout_s = name, timeout_s
        work.mkdir(parents=True)
        # Not in `work`: sockets go there, whose whole paths may have no more than some hundred characters.
        self._temporary = tempfile.mkdtemp(prefix="ff-")
        self._log = work / "log.txt"
        with self._log.open("wb") as log:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.profile.loaders.host", name, json.dumps(setting.to_json())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(name, work, self._temporary),
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
            raise LoaderError(f"{do}: no answer within {self._timeout_s:.0f} s")
        line = received.readline()
        if not line:
            raise LoaderError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LoaderError(self._reason(answer))
        return answer

    def close(self) -> None:
        """End of input first, so that the loader can tidy up; then signals, also for workers that outlive it."""
        if self._process.poll() is not None and self._process.stdin is None:
            return
        workers = _descendants(self._process.pid)
        sent, received = self._pipes()
        for ending in (_close_quietly, lambda _: self._process.terminate(), lambda _: self._process.kill()):
            ending(sent)
            try:
                self._process.wait(END_S)
                break
            except subprocess.TimeoutExpired:
                continue
        received.close()
        self._process.stdin = None
        _, alive = psutil.wait_procs(workers, timeout=END_S)
        for worker in alive:
            worker.kill()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _reason(self, answer: dict[str, Any]) -> str:
        extra = CONTENDERS[self.name].extra
        message = " ".join(str(answer["error"]).split())[:300]
        if answer["is_missing"] and extra:
            return f"pip install '{extra}' ({message})"
        return message if answer["type"] in ("DataError", "UsageError") else f"{answer['type']}: {message}"

    def _last_words(self) -> str:
        try:
            code: int | str = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            code = "none yet"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process ended (exit code {code}): {lines[-1][:300] if lines else 'it said nothing'}"


def _environment(name: str, work: Path, temporary: str) -> dict[str, str]:
    (work / "home").mkdir()
    changes = {"HOME": str(work / "home"), "TMPDIR": temporary, **dict.fromkeys(ONE_THREAD, "1")}
    changes["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    if CONTENDERS[name].needs_ffmpeg:
        from benchmarks.throughput.with_spdl import PATH_VARIABLE, bundled_ffmpeg

        path = bundled_ffmpeg(work / "ffmpeg")
        changes |= {PATH_VARIABLE: path} if path else {}
    return os.environ | changes


def _descendants(process: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _close_quietly(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # unsent bytes for a process that has gone
        file.close()
