"""Worker processes on this machine: tasks in, results out as they are finished.

A worker is a fresh Python that imports only what it needs. Workers end when this process ends, however it ends: they
wait on a pipe that only it holds.
"""

import contextlib
import importlib
import os
import pickle
import signal
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn, Protocol, TypeVar

from pipelines.base.errors import DataError, FourfoldError
from pipelines.base.fresh_process import end, ending, start
from pipelines.shards.making.shard_progress import Listener, listening

__all__ = ["LocalEngine", "WorkItem", "serve"]

END_WAIT_S = 10.0


class WorkItem(Protocol):
    """A task for a worker; it is pickled."""

    @property
    def name(self) -> str: ...


TaskT = TypeVar("TaskT", bound=WorkItem)
Result = TypeVar("Result")


class LocalEngine:
    """Pool of worker processes, a context manager: none is left at its end. `preload`: modules to import first."""

    def __init__(self, num_workers: int, preload: Sequence[str] = ()) -> None:
        self.num_workers = num_workers
        self._preload = preload
        self._workers: list[_Worker] = []

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the workers unless they run already: they take a moment, in which this process may plan."""
        while len(self._workers) < self.num_workers:
            self._workers.append(_Worker(self._preload))

    def run(
        self, tasks: Iterable[TaskT], work: Callable[[TaskT], Result], listener: Listener | None = None
    ) -> Iterator[Result]:
        """Yield results as they are finished. Progress of the work (`shard_progress.py`) goes to `listener`.

        Can be called once: a worker for which no task is left ends at once. Raises what `work` raises, and DataError
        if a worker dies.
        """
        self.start()
        # 1. One task for each worker; a worker without one ends.
        source = iter(tasks)
        busy: dict[Any, _Worker] = {}
        for worker in self._workers:
            worker.send(work)
            if worker.take(next(source, None)):
                busy[worker.connection] = worker
        # 2. The next task to whoever answers: shards take very different times.
        while busy:
            for connection in wait(list(busy)):
                worker = busy.pop(connection)
                news, result = worker.answer()
                if news is not None:
                    busy[connection] = worker
                    if listener is not None:
                        listener(*news)
                    continue
                # The task goes out before the result is handled, so that the worker does not wait for this process.
                if worker.take(next(source, None)):
                    busy[connection] = worker
                yield result

    def close(self) -> None:
        """End all workers; those at work clear their temporary files away."""
        # All are told before one is waited for: each needs a moment.
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.wait()
        self._workers.clear()


class _Worker:
    """One worker process and the pipe to it."""

    def __init__(self, preload: Sequence[str]) -> None:
        self.connection, theirs = Pipe()
        self._process = start(serve, theirs, list(preload), stdin=subprocess.PIPE)
        self._task_name: str | None = None

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:
            self._fail()

    def take(self, task: WorkItem | None) -> bool:
        """Send a task, or end the worker if there is none. Returns whether it has work."""
        if task is None:
            self.end()
            return False
        self._task_name = task.name
        self.send(task)
        return True

    def answer(self) -> tuple[Any, Any]:
        """Return (progress, None) or (None, result). Raises what the work raised, or DataError for a dead process."""
        try:
            news, error, result = self.connection.recv()
        except (EOFError, OSError):
            self._fail()
        if news is None:
            self._task_name = None
        if error is not None:
            raise error
        return news, result

    def end(self) -> None:
        self.connection.close()  # an idle worker ends at that
        if self._task_name is not None:
            self._process.terminate()

    def wait(self) -> None:
        try:
            end(self._process, END_WAIT_S)
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _fail(self) -> NoReturn:
        how = ending(self._process, END_WAIT_S, remedy="use fewer workers")
        raise DataError(
            f"{self._task_name or 'a worker'}: the worker process that was making it {how} "
            "Run the same build again: finished shards are kept."
        )


def serve(descriptor: int, preload: Sequence[str]) -> None:
    """Run a worker: receive one callable, then tasks for it, until the pipe is closed."""
    # As an interrupt, so that a temporary file is removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt), Connection(descriptor) as connection:
        for module in preload:
            importlib.import_module(module)
        work = connection.recv()
        with listening(lambda *news: connection.send((news, None, None))):
            while True:
                connection.send_bytes(_answer(work, connection.recv()))
    # All that it made is published; to take down what was imported takes a tenth of a second.
    os._exit(0)


def _answer(work: Callable[[Any], Any], task: Any) -> bytes:
    """Return (None, None, result) or (None, what was raised, None), pickled."""
    try:
        return pickle.dumps((None, None, work(task)))
    except FourfoldError as error:
        return pickle.dumps((None, error, None))
    except Exception as error:
        # Not the error itself: it may be of a class that cannot be pickled, and its traceback would be lost.
        copy = RuntimeError(f"{task.name}: {error!r} in a worker\n{traceback.format_exc()}")
        return pickle.dumps((None, copy, None))


def _end_with_parent() -> None:
    """Exit when the parent is gone. The temporary file stays behind, and the next build removes it."""
    # Nothing is ever written to it: the read ends when the parent's end of the pipe is gone.
    os.read(0, 1)
    os._exit(1)
