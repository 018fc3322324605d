"""A clock that jumps from event to event, for processes that compute, wait, and wait for each other.

A process is a generator. It yields `Cpu(seconds)`, `Wait(seconds)` or a `TimedEvent`, and continues when that is over.
Processes that compute share the cores evenly, as threads of equal priority do. A thread runs at full speed as long as
there are cores enough, and slower by `contention` when all of them are busy.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Cpu", "EventLoop", "Process", "Queue", "TimedEvent", "Wait"]

T = TypeVar("T")
DONE_S = 1e-12


class Cpu(NamedTuple):
    seconds: float


class Wait(NamedTuple):
    seconds: float


@dataclass(slots=True, eq=False)
class TimedEvent:
    """An event that happens once; a process that waits for it afterwards continues at once."""

    has_happened: bool = False
    waiting: list["Process"] = field(default_factory=list)


Process = Generator[Cpu | Wait | TimedEvent, None, None]


class EventLoop:
    """Runner of processes. now_s: their time. busy_s: core seconds used so far."""

    def __init__(self, num_cores: float, contention: float = 1.0) -> None:
        self.now_s = self.busy_s = 0.0
        self._num_cores, self._contention = num_cores, contention
        self._ready: deque[Process] = deque()
        self._computing: list[tuple[float, Process]] = []
        self._timers: list[tuple[float, int, Process]] = []
        self._order = itertools.count()

    def start(self, process: Process) -> None:
        self._ready.append(process)

    def happen(self, event: TimedEvent) -> None:
        event.has_happened = True
        self._ready.extend(event.waiting)
        event.waiting.clear()

    def run(self, until: TimedEvent) -> None:
        """Let time pass until an event. Raises RuntimeError if nothing is left that could bring it about."""
        while not until.has_happened:
            if self._ready:
                self._resume(self._ready.popleft())
            elif self._computing or self._timers:
                self._advance()
            else:
                raise RuntimeError("every process waits for another one")

    def _resume(self, process: Process) -> None:
        wish = next(process, None)
        if isinstance(wish, Cpu):
            self._computing.append((wish.seconds, process))
        elif isinstance(wish, Wait):
            # The number breaks ties, since the heap cannot compare two generators.
            heapq.heappush(self._timers, (self.now_s + wish.seconds, next(self._order), process))
        elif isinstance(wish, TimedEvent):
            (self._ready if wish.has_happened else wish.waiting).append(process)

    def _advance(self) -> None:
        """Go to the next end of some work or wait."""
        # Nothing starts or ends before the next end, so all speeds are constant until then.
        num_busy = min(float(len(self._computing)), self._num_cores)
        speed = self._speed(num_busy)
        step_s = min((left_s / speed for left_s, _ in self._computing), default=float("inf"))
        if self._timers:
            step_s = min(step_s, self._timers[0][0] - self.now_s)
        self.now_s += step_s
        self.busy_s += step_s * num_busy
        # Rounding leaves crumbs of work that would never reach 0.
        left = [(left_s - step_s * speed, process) for left_s, process in self._computing]
        self._computing = [one for one in left if one[0] > DONE_S]
        self._ready.extend(process for left_s, process in left if left_s <= DONE_S)
        while self._timers and self._timers[0][0] <= self.now_s + DONE_S:
            self._ready.append(heapq.heappop(self._timers)[2])

    def _speed(self, num_busy: float) -> float:
        """Return CPU seconds done per second by each process that computes."""
        share = num_busy / max(len(self._computing), 1)
        # Contention comes with the cores in use: none of it with one, all of it when every core is busy.
        crowd = (num_busy - 1) / (self._num_cores - 1) if self._num_cores > 1 else 0.0
        return share / (1 + (self._contention - 1) * max(crowd, 0.0))


class Queue(Generic[T]):
    """Items in order, at most `depth` of them."""

    def __init__(self, loop: EventLoop, depth: int) -> None:
        self._loop, self._depth = loop, depth
        self._items: deque[T] = deque()
        self._changed = TimedEvent()

    def put(self, item: T) -> Process:
        while len(self._items) >= self._depth:
            # Every change wakes all that wait; the first one takes the room or the item, and the others wait again.
            yield self._changed
        self._items.append(item)
        self._announce()

    def get(self) -> Generator[Cpu | Wait | TimedEvent, None, T]:
        while not self._items:
            yield self._changed
        item = self._items.popleft()
        self._announce()
        return item

    def _announce(self) -> None:
        # The new event stands before the old one happens: a process that resumes waits for the next change.
        before, self._changed = self._changed, TimedEvent()
        self._loop.happen(before)
