"""The machines of a Ray cluster: one task per shard, tasks of lost machines given to others.

Every machine must have fourfold installed, and see the sources and the output under the same names. A task is
self-contained and writes its files whole or not at all, so that running it twice does no harm.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from pipelines.base.errors import DataError, FourfoldError, UsageError
from pipelines.shards.making.engine_local import WorkItem
from pipelines.shards.making.shard_progress import Listener

__all__ = ["RayEngine"]

MAX_RETRIES = 10
"""How many lost machines or workers one shard survives."""
TASKS_PER_CPU = 2

TaskT = TypeVar("TaskT", bound=WorkItem)
Result = TypeVar("Result")


class RayEngine:
    """Ray cluster, a context manager: that of RAY_ADDRESS, or one on this machine, else one that it starts."""

    def __init__(self) -> None:
        self._ray: Any = None
        self._is_own = False

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_own:
            self._ray.shutdown()
        self._is_own = False

    def start(self) -> None:
        """Connect. Raises UsageError if Ray is not installed or the cluster does not answer."""
        if self._ray is not None:
            return
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "engine: ray: Ray is not installed. Say pip install 'fourfold[ray]', or take engine: local."
            ) from error
        self._ray = ray
        if not ray.is_initialized():
            self._connect()
            self._is_own = True

    def _connect(self) -> None:
        options = {"log_to_driver": False, "logging_level": "warning"}
        try:
            self._ray.init(address="auto", **options)
        except ConnectionError as error:
            address = os.environ.get("RAY_ADDRESS")
            if address:
                raise UsageError(
                    f"RAY_ADDRESS = {address}: no Ray cluster answers there ({error}). Start it, or unset RAY_ADDRESS."
                ) from error
            self._ray.init(include_dashboard=False, **options)

    def run(
        self, tasks: Iterable[TaskT], work: Callable[[TaskT], Result], listener: Listener | None = None
    ) -> Iterator[Result]:
        """Yield results as they are finished. `listener` is not called: other machines report no progress.

        Raises what `work` raises, or DataError if a task is lost.
        """
        self.start()
        # Only tasks whose machine or process is gone are tried again: a full disk would fail again.
        remote = self._ray.remote(num_cpus=1, max_retries=MAX_RETRIES, retry_exceptions=False)(_answer)
        shared_work = self._ray.put(work)
        source = iter(tasks)
        names: dict[Any, str] = {}
        try:
            while True:
                # A cluster may grow and shrink; twice as many tasks as it has cores keep all of them busy.
                depth = max(4, TASKS_PER_CPU * int(self._ray.cluster_resources().get("CPU", 1)))
                for task in islice(source, depth - len(names)):
                    names[remote.remote(shared_work, task)] = task.name
                if not names:
                    return
                # One at a time, so that the next task is handed out as soon as one is finished.
                finished, _ = self._ray.wait(list(names), num_returns=1)
                yield self._result(finished[0], names.pop(finished[0]))
        finally:
            for left in names:
                self._ray.cancel(left)

    def _result(self, reference: Any, name: str) -> Any:
        try:
            is_done, value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise DataError(
                f"{name}: Ray could not finish it in {MAX_RETRIES + 1} tries ({' '.join(str(error).split())[:500]}). "
                "Look at the cluster's machines; then run the same build again: finished shards are kept."
            ) from error
        if is_done:
            return value
        raise value


def _answer(work: Callable[[Any], Any], task: Any) -> tuple[bool, Any]:
    """Return (True, result) or (False, error): Ray would wrap an error in a class of its own."""
    try:
        return True, work(task)
    except FourfoldError as error:
        return False, error
