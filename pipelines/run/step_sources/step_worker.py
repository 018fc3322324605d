"""Worker process of a pipeline: makes the steps that its parent requests, in memory shared with the parent.

step_worker_pool.py starts `serve` with one end of a pair of sockets. The worker receives a `PipelineArguments`, then
one `Request` after the other. It answers each with the new blocks of memory and a `Reply`, and ends when the other end
is closed, however that happens. Messages are pickled, which is safe here: both ends belong to this program and have no
name.
"""

import os
import pickle
import sys
import time
import traceback
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import NoReturn

import torch

from pipelines.base.errors import FourfoldError, UsageError
from pipelines.run.stage_stats import StageStats
from pipelines.run.step_chain import PipelineArguments, build_step_maker
from pipelines.run.step_maker import MadeStep, StepMaker
from pipelines.run.step_sources.shared_memory import PackedTensor, SharedMemory
from pipelines.tasks import TASKS
from pipelines.tasks.base import Geometry, TaskBatch

__all__ = ["NewBlock", "CancelRequests", "PackedBatch", "Reply", "Request", "serve"]

Span = tuple[str, float, float, str]
"""Arguments of a listener: stage, begin and end in seconds of `time.perf_counter`, thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Request for the step at a position.

    round: counts the parent's `stop` calls, so that replies to requests before a stop can be told apart. released:
    blocks whose last view in the parent is gone.
    """

    round: int
    position: Mapping[str, int]
    is_observed: bool
    released: tuple[int, ...]


class CancelRequests:
    """Message that cancels all requests that are not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBlock:
    """Announcement of a new block, sent before the first reply that uses it; its file descriptor follows."""

    number: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """Batch of a task with its tensors as places in shared memory: "inputs", "weight", and targets by name."""

    task: str
    keys: tuple[str, ...]
    geometry: Geometry
    tensors: dict[str, PackedTensor]
    target: dict[str, PackedTensor]

    @property
    def all_tensors(self) -> tuple[PackedTensor, ...]:
        return (*self.tensors.values(), *self.target.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Answer to a request: the step without its tensors, or the error that prevented it.

    stats: counts of the stages since the process started. spans: pieces of work since the last reply, if observed.
    """

    round: int
    index: int
    made: MadeStep | None
    batches: Mapping[str, PackedBatch]
    error: Exception | None
    stats: tuple[StageStats, ...]
    spans: tuple[Span, ...]


def serve(descriptor: int) -> None:
    """Answer requests until the parent closes its end of the socket, then end the process."""
    with suppress(EOFError, ConnectionError):  # the parent has closed its end, or has died
        _answer_all(Connection(descriptor))
    sys.stderr.flush()
    os._exit(0)  # skips exit handlers of libraries, which take a second to free what the system frees anyway


def _answer_all(connection: Connection) -> NoReturn:
    """Answer requests until EOFError or ConnectionError says that the other end is closed."""
    # There is about one worker per core, so threads inside an operation would compete for the same cores.
    torch.set_num_threads(1)
    memory = SharedMemory()
    try:
        maker = _build(connection.recv_bytes())
    except Exception as error:
        _refuse_all(connection, _portable(error))
    # Tasks write their batches straight into shared memory; what lies elsewhere is copied there when it is sent.
    for task in maker.tasks.values():
        task.memory = memory
    try:
        _Server(connection, maker, memory).run()
    finally:
        maker.close()


def _build(pickled_arguments: bytes) -> StepMaker:
    """Build the step maker. Raises UsageError if this process does not find a class or a task of the configuration."""
    try:
        arguments: PipelineArguments = pickle.loads(pickled_arguments)
    except (AttributeError, ImportError) as error:
        raise UsageError(
            f"num_workers: a worker process cannot load the configuration ({error}). Define its classes in a module "
            "that can be imported, or use num_workers: 0."
        ) from error
    # Here and not in the parent: the parent may have registered a task that this fresh process never imports.
    unknown = next((name for name in arguments.config.tasks if name not in TASKS), None)
    if unknown is not None:
        raise UsageError(
            f"num_workers = {arguments.num_workers}: a worker process does not know task {unknown!r}; it knows "
            f"{', '.join(TASKS)}. Register it in pipelines/tasks/__init__.py, or use num_workers: 0."
        )
    return build_step_maker(arguments)


def _refuse_all(connection: Connection, error: Exception) -> NoReturn:
    """Answer every request with an error. The parent raises it from `next`, as if the step had failed there."""
    while True:
        message: Request | CancelRequests = connection.recv()
        if isinstance(message, Request):
            step = message.position["step"]
            connection.send(
                Reply(round=message.round, index=step, made=None, batches={}, error=error, stats=(), spans=())
            )


class _Server:
    """Loop of a worker: receive requests, make steps, answer."""

    def __init__(self, connection: Connection, maker: StepMaker, memory: SharedMemory) -> None:
        self._connection, self._maker, self._memory = connection, maker, memory
        self._requests: deque[Request] = deque()
        self._spans: list[Span] = []

    def run(self) -> NoReturn:
        # The order: 1. wait for a request; 2. count that time as waiting for room, because the parent requests a step
        # as soon as there is room for one; 3. make it; 4. answer.
        self._maker.start()
        while True:
            start_s = time.perf_counter()
            self._receive()
            room_wait_s = time.perf_counter() - start_s
            self._maker.count_room_wait(room_wait_s)
            request = self._requests.popleft()
            self._maker.observe(self._note if request.is_observed else None)
            self._answer(self._reply(request, room_wait_s))

    def _receive(self) -> None:
        """Receive all messages that have arrived; wait until there is at least one request."""
        # All of them, so that a `CancelRequests` cancels requests that arrived before it.
        while not self._requests or self._connection.poll():
            message: Request | CancelRequests = self._connection.recv()
            if isinstance(message, CancelRequests):
                self._requests.clear()
            else:
                self._memory.release(message.released)
                self._requests.append(message)

    def _reply(self, request: Request, room_wait_s: float) -> Reply:
        """Make a step. An error becomes part of the reply, so that the worker can make other steps."""
        made, batches, problem = None, {}, None
        try:
            made = self._maker.finish(self._maker.begin(request.position, room_wait_s))
            batches = {name: self._packed(batch) for name, batch in made.step.batches.items()}
            made = replace(made, step=replace(made.step, batches={}))
        except Exception as error:
            made, problem = None, _portable(error)
        # Spans go with every reply, so that the list does not grow while nobody reads it.
        spans, self._spans = tuple(self._spans), []
        return Reply(
            round=request.round,
            index=request.position["step"],
            made=made,
            batches=batches,
            error=problem,
            stats=self._maker.stats(),
            spans=spans,
        )

    def _packed(self, batch: TaskBatch) -> PackedBatch:
        own = {"inputs": batch.inputs, "weight": batch.weight}
        packed = self._memory.pack(own | {f"target {name}": tensor for name, tensor in batch.target.items()})
        return PackedBatch(
            task=batch.task,
            keys=batch.keys,
            geometry=batch.geometry,
            tensors={name: packed[name] for name in own},
            target={name: packed[f"target {name}"] for name in batch.target},
        )

    def _answer(self, reply: Reply) -> None:
        """Send new blocks, then the reply that uses them."""
        packed = [one for batch in reply.batches.values() for one in batch.all_tensors]
        for number in sorted({one.block for one in packed if one.block >= 0}):
            with self._memory.first_sent(number) as new:
                if new is not None:
                    descriptor, num_bytes = new
                    self._connection.send(NewBlock(number=number, num_bytes=num_bytes))
                    send_handle(self._connection, descriptor, None)
        self._connection.send(reply)

    def _note(self, stage: str, start_s: float, end_s: float, thread: str) -> None:
        self._spans.append((stage, start_s, end_s, thread))


def _portable(error: Exception) -> Exception:
    """Return an error that can be pickled; bugs get the traceback of this process as a note."""
    if not isinstance(error, FourfoldError):
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
    # Some exceptions can be pickled but not unpickled: their __init__ takes other arguments than they keep.
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return FourfoldError(f"A worker process failed: {type(error).__name__}: {error}")
    return error
