"""Sources in, a folder of shards out: `{split}-{kind}s-{index:06d}.tar` with .idx, manifest.json, rejects.jsonl.

The sources are listed, a plan says which item goes into which shard, an engine makes the shards, and the manifest is
put together from their records. A shard gets its name when it is whole, and its record last. A build that was killed,
or is run again, keeps every shard whose rows and settings are the same, and makes the rest: the same bytes in the end,
whatever the workers, the engine and the number of interruptions.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from pipelines.base.errors import DataError, UsageError
from pipelines.base.interrupt import sigterm_as_interrupt
from pipelines.base.machine import num_cores
from pipelines.base.progress import ProgressBar, progress_bar
from pipelines.shards.format.manifest import MANIFEST_NAME
from pipelines.shards.format.storage import Storage, is_remote, storage_of
from pipelines.shards.format.table import Kind
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.making.engine_local import LocalEngine
from pipelines.shards.making.make_shard import RESUME_HINT, MadeShard, ShardJob, make_shard
from pipelines.shards.making.planning import PlannedBuild, list_build, plan_build
from pipelines.shards.making.publish import REJECTS_NAME, Totals, publish, record_names, remove_stale, write_rejects
from pipelines.shards.making.reject_budget import RejectBudget
from pipelines.shards.making.shard_plan import PlannedShard, ShardPlan
from pipelines.shards.making.shard_progress import Listener, listening
from pipelines.shards.making.shard_records import RECORD_FOLDER, load_record, record_name

__all__ = ["REJECTS_NAME", "BuildConfig", "BuildSummary", "build_shards"]

SETTINGS_NAME = f"{RECORD_FOLDER}/settings.json"
SMALL_ITEMS = 500
"""Fewer images are packed before a worker process has started."""
PRELOADED = ("pipelines.shards.making.make_shard", "pipelines.shards.media.image_bytes")
LIBRARIES: dict[Kind, tuple[str, ...]] = {"image": ("opencv-python-headless", "pillow"), "clip": ("av",)}
# Settings that builds of earlier versions do not have in their folder, and what these builds stand for.
ADDED_SETTINGS: dict[str, Any] = {"splits": {}}
# What has no influence on the bytes of the shards.
FREE_SETTINGS = {"out", "overwrite", "num_workers", "engine", "max_reject_ratio"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """Summary of a build.

    num_rows = num_images + num_videos + num_rejects + num_ignored, whatever the sources: rows of lists and datasets,
    files, members of tars. num_videos: videos that are no rejects, of which num_clips clips were taken. shards: how
    many there are now, of which `num_reused` were there before. num_empty_shards: planned, but with nothing usable in
    them. num_dropped_clips: by reason. splits: samples by split. samples_per_s: those of this run, over all of its
    seconds. warnings: one line for each sort of rows, files or labels that were left out.
    """

    num_rows: int
    num_images: int
    num_videos: int
    num_clips: int
    num_rejects: int
    num_ignored: int
    num_dropped_clips: dict[str, int]
    num_empty_shards: int
    shards: int
    num_reused: int
    bytes: int
    seconds: float
    samples_per_s: float
    labels: tuple[str, ...]
    splits: dict[str, int]
    warnings: tuple[str, ...]


class BuildEngine(Protocol):
    """Engine that makes shards on some machines, a context manager: at its end no worker is left."""

    def __enter__(self) -> "BuildEngine": ...
    def __exit__(self, *error: object) -> None: ...
    def start(self) -> None: ...
    def run(
        self, tasks: Iterator[PlannedShard], work: Callable[[PlannedShard], MadeShard], listener: Listener | None
    ) -> Iterator[MadeShard]: ...


def build_shards(config: BuildConfig) -> BuildSummary:
    """Pack all sources of a config into `config.out`; the same sources give the same bytes.

    Raises UsageError (nothing to pack, `out` holds another build or is in use) or DataError (too many rejects, a
    full disk, a lost worker). Ctrl-C and SIGTERM leave finished shards, which the next build keeps, and nothing else.
    """
    start_s = time.monotonic()
    storage = storage_of(config.out)
    # Before the folder is made: a source that is mistyped should leave nothing behind.
    listing = list_build(config)
    with ExitStack() as stack:
        # 1. One build at a time in a folder, and none over a finished build of something else.
        stack.enter_context(sigterm_as_interrupt())
        stack.enter_context(storage.lock())
        _check_same_build(config, storage)
        try:
            folder = storage.path(RECORD_FOLDER) or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            engine = stack.enter_context(_engine(config))
            # 2. The plan comes first and is complete: no shard depends on when another one is finished.
            planned = plan_build(config, folder, partial(_start_if_large, engine), listing=listing)
            stack.callback(planned.plan.close)
            # 3. The manifest last: it stands for shards that are all there.
            build = _Build(config, storage, planned)
            build.make(engine)
            totals = build.publish()
        except OSError as error:
            raise DataError(f"{error.filename or config.out}: {error.strerror or error}. {RESUME_HINT}") from error
    seconds = time.monotonic() - start_s
    listing = planned.listing
    # Counted at the two ends of the build: the source gave so many rows, the records and rejects hold so many.
    num_videos = listing.num_videos - len(totals.rejected_videos)
    if listing.num_rows != totals.num_images + num_videos + totals.num_rejects + listing.num_ignored:
        raise RuntimeError(f"{listing.num_rows} rows read, but {totals} and {listing.num_ignored} ignored")
    return BuildSummary(
        num_rows=listing.num_rows,
        num_images=totals.num_images,
        num_videos=num_videos,
        num_clips=totals.num_clips,
        num_rejects=totals.num_rejects,
        num_ignored=listing.num_ignored,
        num_dropped_clips=dict(totals.dropped),
        num_empty_shards=totals.num_empty_shards,
        shards=totals.num_shards,
        num_reused=build.num_reused,
        bytes=totals.num_bytes,
        seconds=seconds,
        samples_per_s=max(0, totals.num_images + totals.num_clips - build.num_reused_samples) / seconds,
        labels=planned.plan.labels,
        splits=dict(totals.splits),
        warnings=(*planned.warnings(), *_reject_warnings(totals)),
    )


def _reject_warnings(totals: Totals) -> Iterator[str]:
    if totals.first_reject is not None:
        first, rows = totals.first_reject, "1 row is" if totals.num_rejects == 1 else f"{totals.num_rejects} rows are"
        yield f"{rows} rejected, for example {first.source}: {first.reason}; all are listed in {REJECTS_NAME}"


class _Build:
    """A planned build: keeps the shards that are there and makes the others."""

    def __init__(self, config: BuildConfig, storage: Storage, planned: PlannedBuild) -> None:
        self.config, self.storage, self.planned = config, storage, planned
        self.num_reused = self.num_reused_samples = self._num_samples = 0
        self._names: set[str] = set()
        self._rejected_videos: set[str] = set()
        self._job = _job(config, storage, planned.plan)
        kinds = {outline.kind for outline in planned.plan.outlines}
        self._budget = RejectBudget(
            max_ratio=config.max_reject_ratio,
            num_items=planned.num_items,
            is_mixed=config.shuffle and len(kinds) == 1,
        )
        # What the listing rejected counts from the start: a list of missing files should end a build before it packs
        # any.
        self._budget.add(len(planned.listing.rejects), len(planned.listing.rejects))

    def make(self, engine: BuildEngine) -> None:
        """Make all shards that are not there. Raises DataError."""
        plan = self.planned.plan
        with progress_bar("building shards", total=plan.num_samples, unit="samples") as bar:
            # 1. What is there already is kept, whoever made it.
            todo = self._keep_finished(bar)
            if not todo:
                return
            # 2. From here on the old manifest would describe bytes that are gone.
            self.storage.remove(MANIFEST_NAME)
            # 3. Clips first: their shards take longest, and the last ones should not be left to one worker.
            todo.sort(key=lambda index: (plan.outlines[index].kind == "image", index))
            shards = (plan.shard(index) for index in todo)
            # 4. Few images are packed here before a worker has started.
            is_small = len(todo) == 1 or sum(_cost(plan, index) for index in todo) < SMALL_ITEMS
            num_processes = self.config.num_processes()
            here = self.config.engine == "local" and (is_small or num_processes == 1)
            # Threads of one shard, so that the last ones of a build of clips do not leave cores idle.
            num_busy = 1 if here else min(num_processes, len(todo))
            job = replace(self._job, num_threads=max(1, num_cores() // num_busy))
            work = partial(make_shard, job=job)
            with listening(bar.advance):
                for made in map(work, shards) if here else engine.run(shards, work, bar.advance):
                    self._names.add(made.name)
                    self._num_samples += made.num_samples
                    bar.advance(made.num_planned - made.num_told, made.shard_bytes - made.told_bytes)
                    self._count(made.num_items, made.num_rejects, made.rejected_videos, bar)

    def publish(self) -> Totals:
        """Write manifest and rejects, then remove what earlier builds left. Raises DataError if nothing is usable."""
        plan, listing = self.planned.plan, self.planned.listing
        if self._num_samples == 0:
            raise self._stopped(f"nothing of {self.planned.num_items} items is usable")
        # Settings before the manifest: without them a later build could not tell what a finished one holds.
        settings = json.dumps(_build_settings(self.config), indent=1)
        self.storage.write(SETTINGS_NAME, settings.encode())
        totals = publish(self.storage, plan, listing.rejects)
        remove_stale(self.storage, plan)
        return totals

    def _keep_finished(self, bar: ProgressBar) -> list[int]:
        """Take over the shards that are there already. Returns the indices of the others."""
        plan, recorded = self.planned.plan, record_names(self.storage)
        todo = []
        for index, outline in enumerate(plan.outlines):
            record = load_record(self.storage, outline.name) if outline.name in recorded else None
            if (
                record is not None
                and record.is_final
                and record.fingerprint == self._job.fingerprint(plan.shard(index))
            ):
                self.num_reused += record.num_samples > 0
                self.num_reused_samples += record.num_samples
                self._num_samples += record.num_samples
                self._names.add(outline.name)
                bar.skip(outline.num_samples)
                videos = () if outline.kind == "image" else tuple(reject.key for reject in record.rejects)
                self._count(outline.num_items, len(record.rejects), videos, bar)
                continue
            todo.append(index)
            if outline.name in recorded:
                # Else it would stand for the new tar, if this build were killed and the old one run again.
                self.storage.remove(MANIFEST_NAME)
                self.storage.remove(record_name(outline.name))
        return todo

    def _count(self, num_items: int, num_rejects: int, rejected_videos: Sequence[str], bar: ProgressBar) -> None:
        # A video that breaks is rejected in each shard that has a later part of it, and is one item all the same.
        num_rejects -= sum(key in self._rejected_videos for key in rejected_videos)
        self._rejected_videos.update(rejected_videos)
        self._budget.add(num_items, num_rejects)
        if self._budget.num_rejects:
            bar.show(rejects=self._budget.num_rejects)
        if self._budget.is_spent():
            raise self._stopped(
                f"more than max_reject_ratio = {self._budget.max_ratio:g} of the items cannot be used "
                f"({self._budget.num_rejects} of {self._budget.num_seen} so far, {self._budget.num_items} in all)"
            )

    def _stopped(self, what: str) -> DataError:
        # Written now, since a build that stops publishes nothing else that names them.
        listed = self.planned.listing.rejects
        first = write_rejects(self.storage, self.planned.plan, listed, self._names)
        shown = "; ".join(f"{reject.source}: {reject.reason}" for reject in first)
        return DataError(
            f"{self.config.out}: {what}{f': {shown}' if shown else ''}. Rejects are listed in {REJECTS_NAME} there. "
            "Mend or remove them, or raise max_reject_ratio; finished shards are kept."
        )


def _start_if_large(engine: BuildEngine, num_items: int) -> None:
    """Start the workers of a large build early: they need a moment, in which the rest is listed and planned."""
    if num_items >= SMALL_ITEMS:
        engine.start()


def _engine(config: BuildConfig) -> BuildEngine:
    if config.engine == "local":
        # One more than cores, if nobody says how many: a worker waits for the disk after every shard.
        return LocalEngine(config.num_workers or num_cores() + 1, preload=PRELOADED)
    from pipelines.shards.making.engine_ray import RayEngine

    return RayEngine()


def _cost(plan: ShardPlan, index: int) -> int:
    """Return the cost of a shard in images; a clip takes the time of some hundred."""
    outline = plan.outlines[index]
    return outline.num_samples * (1 if outline.kind == "image" else 100)


def _job(config: BuildConfig, storage: Storage, plan: ShardPlan) -> ShardJob:
    kinds = {outline.kind for outline in plan.outlines}
    return ShardJob(
        storage=storage,
        image_form=config.image_form() if "image" in kinds else None,
        clip_form=config.clip_form() if "clip" in kinds else None,
        labels=plan.labels,
        libraries={kind: {name: _version(name) for name in names} for kind, names in LIBRARIES.items()},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # another build of the same library, such as opencv-python
        return "unknown"


def _build_settings(config: BuildConfig) -> dict[str, Any]:
    """Return all settings that make it another build."""
    settings = config.model_dump(mode="json", exclude=FREE_SETTINGS)
    splits = {name: _resolved(sources) for name, sources in config.splits.items()}
    return settings | {"sources": _resolved(config.sources), "splits": splits}


def _resolved(sources: Sequence[Path | str]) -> list[str]:
    return [str(source) if is_remote(source) else str(Path(source).resolve()) for source in sources]


def _check_same_build(config: BuildConfig, storage: Storage) -> None:
    """Refuse to replace a finished build of other sources or settings, unless asked to."""
    if config.overwrite or storage.size(MANIFEST_NAME) is None:
        return
    given = _build_settings(config)
    try:
        have = json.loads(storage.read(SETTINGS_NAME))
    except (OSError, ValueError):
        have = {}
    have = ADDED_SETTINGS | have
    different = [f"{name} = {given[name]} (there: {have.get(name)})" for name in given if given[name] != have.get(name)]
    if different:
        raise UsageError(
            f"{config.out}: holds a finished build of something else; {'; '.join(different)}. "
            "Give another folder, or say overwrite to replace it."
        )
