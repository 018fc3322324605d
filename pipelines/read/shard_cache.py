"""Cache of remote shards: downloads them before the plan needs them, and deletes old ones when its disk space is full.

Shards of the window being read come first, then those of the next. Several are downloaded at a time, because an object
store limits the rate of one connection. A download that fails here is left to the reader, which tries again and reports
it. So the cache can make a pipeline faster, but can neither change its samples nor stop it.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread

from pipelines.base.errors import FourfoldError, UsageError
from pipelines.read.sample_plan import SamplePlan
from pipelines.shards.format.manifest import Kind, SampleTable, Shard
from pipelines.shards.format.shard_place import fetch, shard_places

__all__ = ["ShardCache", "open_shard_cache"]

NUM_FETCHERS = 4
STOP_S = 2.0
"""Seconds that `stop` waits for a download, which cannot be interrupted; its daemon thread is then left behind."""


@dataclass(frozen=True, slots=True)
class _Remote:
    """A remote shard: path of its local copy, the folder of its table, and the manifest's entry."""

    path: Path
    folder: Path
    shard: Shard


def open_shard_cache(
    tables: Mapping[Kind, SampleTable], plans: Mapping[Kind, SamplePlan], *, limit_bytes: int | None, window_shards: int
) -> "ShardCache | None":
    """Return the cache of the remote folders among the tables; None if all shards are on this machine.

    Raises UsageError if `limit_bytes` is less than one window of shards.
    """
    # Samples of a window are read in random order, so a smaller cache would download its shards again and again.
    remote = {kind: _remote_shards(table) for kind, table in tables.items()}
    # Without remote shards no threads are started.
    if not any(any(shards) for shards in remote.values()):
        return None
    if limit_bytes is not None:
        sizes = [_largest_window_bytes(shards, plans[kind], window_shards) for kind, shards in remote.items()]
        if sum(sizes) > limit_bytes:
            raise UsageError(
                f"cache_gib = {limit_bytes / 2**30:g}; the shards that are mixed with each other take up to "
                f"{sum(sizes) / 2**30:.3g} GiB. Raise cache_gib, or lower window_shards ({window_shards})."
            )
    return ShardCache(remote, plans, limit_bytes)


class ShardCache:
    """Background downloader: call `advance` before every batch, `stop` at the end.

    Threads start with the first call.
    """

    def __init__(
        self, remote: Mapping[Kind, Sequence[_Remote | None]], plans: Mapping[Kind, SamplePlan], limit_bytes: int | None
    ) -> None:
        self._remote, self._plans, self._limit_bytes = remote, plans, limit_bytes
        self._folders = {one.path.parent for shards in remote.values() for one in shards if one}
        self._changed = Condition()
        self._batches: dict[Kind, int] = {}
        self._waiting: deque[_Remote] = deque()
        self._now: frozenset[Path] = frozenset()
        self._then: frozenset[Path] = frozenset()
        self._coming: dict[Path, int] = {}
        self._is_stopped = False
        self._threads: list[Thread] = []

    def advance(self, batches: Mapping[Kind, int]) -> None:
        """Queue the shards that the next batches need. Returns at once.

        `batches`: index by kind. Kinds that are not named stay where they were: they may be read by others.
        """
        self._batches = {**self._batches, **batches}
        now, then = self._ahead(self._batches)
        paths = frozenset(one.path for one in now), frozenset(one.path for one in then)
        # Windows last for many batches: most calls find nothing new.
        if paths == (self._now, self._then) and self._threads:
            return
        with self._changed:
            self._now, self._then = paths
            self._waiting = deque(one for one in dict.fromkeys([*now, *then]) if one.path not in self._coming)
            self._changed.notify_all()
        if not self._threads:
            for number in range(NUM_FETCHERS):
                self._threads.append(Thread(target=self._run, name=f"fourfold-fetch-{number}", daemon=True))
                self._threads[-1].start()

    def stop(self) -> None:
        """End the threads, but wait no longer than STOP_S for a download. Safe to call twice."""
        with self._changed:
            self._is_stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(STOP_S)

    def used_bytes(self) -> int:
        """Return the bytes of all shards in the cache."""
        return sum(size for _, size, _ in self._stored())

    def _ahead(self, batches: Mapping[Kind, int]) -> tuple[list[_Remote], list[_Remote]]:
        """Return the remote shards of the windows being read, and of the windows after them."""
        now: list[_Remote] = []
        then: list[_Remote] = []
        for kind, batch_index in batches.items():
            for shards, found in zip(self._plans[kind].shards_ahead(batch_index), (now, then), strict=True):
                found += [one for one in (self._remote[kind][index] for index in shards.tolist()) if one]
        return now, then

    def _run(self) -> None:
        """Download until `stop`; the work of one thread."""
        while (one := self._next()) is not None:
            try:
                fetch(one.folder, one.shard)
            except (FourfoldError, OSError):
                pass  # the reader tries again, and reports the error with its sample
            finally:
                self._arrived(one)

    def _next(self) -> _Remote | None:
        """Wait for the next shard to download and for room on the disk; None after `stop`."""
        with self._changed:
            while not self._is_stopped:
                while self._waiting and self._waiting[0].path.exists():
                    self._waiting.popleft()
                # In the order of the queue even if a later shard would fit: the first one is needed first.
                if self._waiting and self._has_room(self._waiting[0]):
                    one = self._waiting.popleft()
                    self._coming[one.path] = one.shard.shard_bytes
                    return one
                self._changed.wait()
            return None

    def _arrived(self, one: _Remote) -> None:
        """Count a download as ended, whether it succeeded or not."""
        with self._changed:
            del self._coming[one.path]
            # A download that began for the last window may end after its shards were replaced by those of the next, and
            # then the cache is over its limit.
            self._trim(0, self._now)
            self._changed.notify_all()

    def _has_room(self, one: _Remote) -> bool:
        """Make room for a shard, and return whether it may be downloaded now."""
        # A shard of the current window does not wait for room: the reader would download it anyway.
        is_needed_now = one.path in self._now
        return (
            self._trim(one.shard.shard_bytes, self._now if is_needed_now else self._now | self._then) or is_needed_now
        )

    def _trim(self, more_bytes: int, kept: frozenset[Path]) -> bool:
        """Delete shards not in `kept`, least recently used first, until `more_bytes` fit; return whether they do."""
        if self._limit_bytes is None:
            return True
        # Shards that are being downloaded count, but cannot be deleted.
        stored = sorted(one for one in self._stored() if one[2] not in self._coming)
        used_bytes = sum(size for _, size, _ in stored) + sum(self._coming.values())
        over_bytes = used_bytes + more_bytes - self._limit_bytes
        for _, size, path in stored:
            if over_bytes <= 0:
                break
            if path not in kept:
                path.unlink(missing_ok=True)
                over_bytes -= size
        return over_bytes <= 0

    def _stored(self) -> list[tuple[float, int, Path]]:
        """Return time of last use, bytes and path of every shard in the cache."""
        found = []
        for path in (path for folder in self._folders for path in folder.glob("*.tar")):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue  # another process has dropped it
            found.append((facts.st_mtime, facts.st_size, path))
        return found


def _remote_shards(table: SampleTable) -> list[_Remote | None]:
    """Return the remote shard of each shard of a table; None for shards that lie on this machine."""
    places = shard_places(table.folder, table.shards)
    return [
        None if place.url is None else _Remote(place.path, table.folder, shard)
        for place, shard in zip(places, table.shards, strict=True)
    ]


def _largest_window_bytes(shards: Sequence[_Remote | None], plan: SamplePlan, window_shards: int) -> int:
    """Return the bytes of the largest window that can occur, summed over the sources."""
    total_bytes, first = 0, 0
    for order in plan.orders:
        part = shards[first : first + order.num_shards]
        sizes = sorted((one.shard.shard_bytes for one in part if one), reverse=True)
        total_bytes += sum(sizes[:window_shards])
        first += order.num_shards
    return total_bytes
