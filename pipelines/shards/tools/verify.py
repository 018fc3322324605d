"""Check whether a folder of shards is what its manifest says. Every byte is read once; the result lists problems."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipelines.base.errors import DataError
from pipelines.base.machine import num_cores
from pipelines.base.progress import progress_bar
from pipelines.shards.format.manifest import SAMPLES_NAME, Manifest, Shard, load_manifest
from pipelines.shards.format.storage import Storage, storage_of
from pipelines.shards.making.engine_local import LocalEngine
from pipelines.shards.tools.duplicate_keys import KeyCheck
from pipelines.shards.tools.shard_check import check_shard, sha256_of

__all__ = ["verify_shards"]


class _Task(NamedTuple):
    storage: Storage
    shard: Shard
    samples: pa.RecordBatch
    decode: bool

    @property
    def name(self) -> str:
        return self.shard.name


def verify_shards(location: Path | str, *, decode: bool = False, num_workers: int = 0) -> list[str]:
    """Return a line per problem, each with the file's name first; an empty list if all is well.

    Checks that every shard is there with its size and sha256, that it is a plain tar, that its .idx fits it, that
    the manifest's keys, offsets, sizes and labels are those of the tar, that no key is there twice, and that no other
    shard lies beside them. `decode`: also that every image and every frame decodes, to the size that the manifest
    says. `num_workers` 0: one per core. Memory: 8 bytes per sample, and a few shards' rows.
    Raises UsageError or DataError if there is no readable manifest.
    """
    manifest, storage = load_manifest(location), storage_of(location)
    keys, found = KeyCheck(), dict[str, list[str]]()
    num_workers = num_workers or num_cores()
    check = _in_processes if decode and num_workers > 1 else _in_threads
    with progress_bar("verifying", total=manifest.num_samples, unit="samples") as bar:
        tasks = _tasks(manifest, storage, decode, keys, found)
        for task, problems in check(tasks, min(num_workers, len(manifest.shards) or 1)):
            found |= {task.name: problems} if problems else {}
            bar.advance(task.shard.num_samples)
            bar.show(problems=sum(map(len, found.values())))
    # In the order of the manifest, whichever shard was checked first.
    of_shards = [problem for shard in manifest.shards for problem in found.get(shard.name, [])]
    return [
        *_samples_problems(manifest),
        *of_shards,
        *_doubled_keys(manifest, keys),
        *_foreign_shards(manifest, storage),
    ]


def _samples_problems(manifest: Manifest) -> list[str]:
    try:
        with manifest.samples.path.open("rb") as file:
            if sha256_of(file) == manifest.samples_sha256:
                return []
    except OSError as error:
        return [f"{SAMPLES_NAME}: cannot read it ({error.strerror})"]
    return [f"{SAMPLES_NAME}: sha256 differs from the manifest; its bytes were changed or damaged"]


def _tasks(
    manifest: Manifest, storage: Storage, decode: bool, keys: KeyCheck, found: dict[str, list[str]]
) -> Iterator[_Task]:
    """Yield a task for every shard whose rows can be read; keys go to `keys`, problems with rows to `found`."""
    for index, shard in enumerate(manifest.shards):
        try:
            samples = manifest.samples_of(index)
        except DataError as error:
            found[shard.name] = [f"{shard.name}: {error}"]
            # An empty part, so that parts keep the numbers of their shards.
            keys.add([])
            continue
        keys.add(samples.column("key").to_pylist())
        yield _Task(storage, shard, samples, decode)


def _run(task: _Task) -> tuple[str, list[str]]:
    return task.name, check_shard(task.storage, task.shard, task.samples, decode=task.decode)


def _in_threads(tasks: Iterator[_Task], num_threads: int) -> Iterator[tuple[_Task, list[str]]]:
    """Run tasks in threads, a few at a time: Python hashes outside its lock, so processes would gain nothing."""
    pending: deque[tuple[_Task, Future[tuple[str, list[str]]]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        while True:
            pending.extend((task, pool.submit(_run, task)) for task in islice(tasks, 2 * num_threads - len(pending)))
            if not pending:
                return
            task, future = pending.popleft()
            yield task, future.result()[1]


def _in_processes(tasks: Iterator[_Task], num_workers: int) -> Iterator[tuple[_Task, list[str]]]:
    """Run tasks in processes: decoders share the stderr of theirs, and can crash it, which is the shard's problem."""
    under_way: dict[str, _Task] = {}
    waiting: list[_Task] = []

    def handed_out() -> Iterator[_Task]:
        while task := waiting.pop() if waiting else next(tasks, None):
            under_way[task.name] = task
            yield task

    while True:
        try:
            with LocalEngine(num_workers, preload=[__name__]) as engine:
                for name, problems in engine.run(handed_out(), _run):
                    yield under_way.pop(name), problems
            return
        except DataError as error:
            # The engine ends all workers when one dies, and says first which task that one had.
            name = str(error).partition(": ")[0]
            if name not in under_way:
                raise
            yield under_way.pop(name), [f"{name}: decoding it ends the process (a decoder crashed, or memory ran out)"]
            # The other tasks under way were ended along with it, are not to blame, and run again.
            waiting += under_way.values()
            under_way.clear()


def _doubled_keys(manifest: Manifest, keys: KeyCheck) -> list[str]:
    doubled = keys.duplicates(lambda index: manifest.samples_of(index).column("key").to_pylist())
    if not doubled:
        return []
    return [f"{SAMPLES_NAME}: {len(doubled)} keys are there more than once: {', '.join(doubled[:3])}"]


def _foreign_shards(manifest: Manifest, storage: Storage) -> list[str]:
    known = {shard.name for shard in manifest.shards}
    try:
        names = storage.names(".tar")
    except OSError as error:
        return [f"{storage.location}: cannot be listed ({error.strerror or error})"]
    others = [name for name in names if "/" not in name and name not in known]
    return [f"{name}: not in the manifest; another build left it, or copying mixed folders" for name in others]
