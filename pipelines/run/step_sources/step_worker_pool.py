"""Make steps ahead in worker processes, each a whole step at a time.

Threads of one process take turns at Python's lock (GIL): two threads that make batches spend a quarter of their time on
that, and sixteen are hardly faster than eight. Processes have a lock each. Batches come back in shared memory, without
a copy.

A step depends on its position alone, so any worker can make it: it goes to the one with the fewest requests.
"""

import atexit
import os
import pickle
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle

from pipelines.base.errors import FourfoldError, UsageError
from pipelines.base.fresh_process import end, ending, start
from pipelines.run.stage_stats import Listener, StageStats, sum_stats
from pipelines.run.step_chain import PipelineArguments
from pipelines.run.step_maker import MadeStep, StepMaker
from pipelines.run.step_sources.shared_memory import MappedBlocks
from pipelines.run.step_sources.step_worker import CancelRequests, NewBlock, PackedBatch, Reply, Request, serve
from pipelines.tasks.base import TaskBatch

__all__ = ["StepWorkerPool"]

END_S = 5.0
"""Seconds that a process in the middle of a step gets to end by itself before it is killed."""


class StepWorkerPool:
    """Pool of worker processes that hold `depth` steps ready and make one each. Batches are on the CPU.

    Methods are those of `stream.StepSource`. Processes start with the first `start`.
    """

    def __init__(self, arguments: PipelineArguments, maker: StepMaker, *, depth: int, is_pinned: bool = False) -> None:
        """`maker`: a maker of the same steps. It makes none, but knows their order and downloads remote shards.
        is_pinned: batches lie in page-locked memory, from which a GPU copies without waiting."""
        self._arguments, self._maker, self._is_pinned = arguments, maker, is_pinned
        self._num_ahead = depth + arguments.num_workers
        self._workers: list[_Worker] = []
        self._round = 0
        self._asked_for: dict[str, int] = {}
        self._index = 0
        self._replies: dict[int, MadeStep | Exception] = {}
        self._listener: Listener | None = None
        self._last_stats = maker.stats()
        self._pid = os.getpid()

    def start(self, position: Mapping[str, int]) -> None:
        self._refuse_fork()
        if not self._workers:
            self._workers = [
                _Worker(self._arguments, number, is_pinned=self._is_pinned)
                for number in range(self._arguments.num_workers)
            ]
            atexit.register(self.close)
        # Two places: the next step to request, and the next step to hand out.
        self._asked_for, self._index = dict(position), position["step"]
        self._ask()

    def get(self) -> MadeStep:
        self._refuse_fork()
        # 1. Take what has arrived and request more, so that workers are busy while this process waits.
        self._receive(timeout_s=0)
        self._ask()
        # 2. Wait for the next step of the stream. Later ones may arrive before it; they are kept.
        while self._index not in self._replies:
            self._receive(timeout_s=None)
        found = self._replies.pop(self._index)
        if isinstance(found, Exception):
            self._replies[self._index] = found  # again at every later call
            raise found
        # 3. There is room for one more step.
        self._index += 1
        self._ask()
        return found

    def is_ready(self) -> bool:
        self._receive(timeout_s=0)
        return self._index in self._replies

    def stop(self) -> None:
        # Replies that are on their way belong to the round before, and are dropped when they arrive.
        if os.getpid() != self._pid:
            return
        self._round += 1
        self._replies.clear()
        for worker in self._workers:
            worker.cancel()

    def stats(self) -> tuple[StageStats, ...]:
        return sum_stats([worker.stats or self._last_stats for worker in self._workers] or [self._last_stats])

    def observe(self, listener: Listener | None) -> None:
        self._listener = listener

    def close(self) -> None:
        if os.getpid() != self._pid:
            return  # the workers belong to the parent of this fork, which may still use them
        self._last_stats = self.stats()
        self.stop()
        atexit.unregister(self.close)
        # Close all connections before waiting for the first process: they end at the same time.
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.end()
        self._workers = []
        self._maker.close()

    def _refuse_fork(self) -> None:
        """Raise FourfoldError in a fork: two processes that read one connection would each get half of the replies."""
        if os.getpid() != self._pid:
            raise FourfoldError(
                "The worker processes of this pipeline belong to the process that this one was forked from. Build the "
                "pipeline after the fork."
            )

    def _ask(self) -> None:
        """Request steps until enough are on their way."""
        while self._asked_for["step"] < self._index + self._num_ahead:
            self._maker.fetch_ahead(self._asked_for)
            # The fewest open requests: a slow step then delays only the steps of its own worker.
            worker = min(self._workers, key=lambda one: one.num_asked)
            worker.ask(self._round, self._asked_for, is_observed=self._listener is not None)
            self._asked_for = self._maker.after(self._asked_for)

    def _receive(self, timeout_s: float | None) -> None:
        """Receive the messages that have arrived; wait up to `timeout_s` seconds for the first, None without end."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout_s):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            reply = worker.receive()
            if reply is not None:
                self._take(worker, reply)

    def _take(self, worker: "_Worker", reply: Reply) -> None:
        """Store a reply, unless it answers a request from before a `stop`."""
        if self._listener is not None:
            for stage, start_s, end_s, thread in reply.spans:
                self._listener(stage, start_s, end_s, f"{worker.name} {thread}")
        # Also for a reply of an earlier round: its tensors are dropped here, and so its blocks are released.
        batches = {name: worker.unpacked(packed) for name, packed in reply.batches.items()}
        if reply.round != self._round:
            return
        worker.num_asked -= 1
        if reply.made is None:
            self._replies[reply.index] = reply.error or FourfoldError("a worker process sent nothing")
        else:
            self._replies[reply.index] = replace(reply.made, step=replace(reply.made.step, batches=batches))


class _Worker:
    """Handle of one worker process: its connection, the blocks it shares, and its open requests."""

    def __init__(self, arguments: PipelineArguments, number: int, *, is_pinned: bool) -> None:
        self.name = f"worker-{number}"
        self.num_asked = 0
        self.stats: tuple[StageStats, ...] = ()
        self._memory = MappedBlocks(is_pinned=is_pinned)
        pickled_arguments = _pickled(arguments)
        self.connection, theirs = Pipe()
        self._process = start(serve, theirs, stdin=subprocess.DEVNULL)
        self._send(pickled_arguments)

    def ask(self, number: int, position: Mapping[str, int], *, is_observed: bool) -> None:
        """Request a step of round `number`. Raises FourfoldError if the process has died."""
        released = self._memory.released()
        request = Request(round=number, position=dict(position), is_observed=is_observed, released=released)
        self._send(pickle.dumps(request))
        self.num_asked += 1

    def cancel(self) -> None:
        """Cancel all requests."""
        # A process that has died is reported at its next request, not by a `stop` that needs nothing from it.
        self.num_asked = 0
        with suppress(FourfoldError):
            self._send(pickle.dumps(CancelRequests()))

    def receive(self) -> Reply | None:
        """Receive one message; return it if it is a reply, None for a new block. Raises FourfoldError if it died."""
        try:
            message = self.connection.recv()
            if isinstance(message, NewBlock):
                # The file descriptor follows its message on the same connection, so it must be taken before the next
                # one.
                self._memory.add(message.number, recv_handle(self.connection), message.num_bytes)
                return None
        except (EOFError, OSError) as error:
            raise self._death() from error
        assert isinstance(message, Reply)
        self.stats = message.stats
        return message

    def unpacked(self, packed: PackedBatch) -> TaskBatch:
        """Return the batch with tensors that are views into shared memory."""
        tensors = self._memory.unpack({**packed.tensors, **{f"target {k}": v for k, v in packed.target.items()}})
        target = {name: tensors[f"target {name}"] for name in packed.target}
        return TaskBatch(
            task=packed.task,
            inputs=tensors["inputs"],
            target=target,
            weight=tensors["weight"],
            keys=packed.keys,
            geometry=packed.geometry,
        )

    def hang_up(self) -> None:
        """Close the connection, upon which the process ends."""
        self.connection.close()

    def end(self) -> None:
        """Wait END_S for the process, then kill it."""
        end(self._process, END_S)
        self._memory.close()

    def _send(self, pickled: bytes) -> None:
        try:
            self.connection.send_bytes(pickled)
        except OSError as error:
            raise self._death() from error

    def _death(self) -> FourfoldError:
        """Return the error that says how the process ended."""
        remedy = "lower num_workers, batch_size or prefetch_batches"
        how = ending(self._process, END_S, remedy=remedy)
        return FourfoldError(f"Worker process {self._process.pid} {how} What it said is above. Start again.")


def _pickled(arguments: PipelineArguments) -> bytes:
    try:
        return pickle.dumps(arguments)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"num_workers = {arguments.num_workers}: a worker process cannot be sent the configuration "
            f"({error}). Define its classes in a module that can be imported, or use num_workers: 0."
        ) from error
