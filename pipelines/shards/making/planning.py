"""A build's sources, listed and planned: what `build.py` makes and what a dry run shows."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipelines.base.machine import num_cores
from pipelines.base.progress import progress_bar
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.making.item_amounts import VideoFacts
from pipelines.shards.making.shard_plan import Planner, ShardPlan
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import SourceItem
from pipelines.shards.sources.listing import Listing, list_sources

__all__ = ["PlannedBuild", "list_build", "plan_build"]

# train, train2017, val_images, ... : words that a class has for itself, if at all.
SPLIT_LIKE = re.compile(r"(train|val|test)(ing|id|idation)?(?![a-z]).*", re.IGNORECASE)
# What labels.py makes of bytes that are no UTF-8.
WRITTEN_OUT = re.compile(r"\\(x[89a-f][0-9a-f]|ud[89a-f][0-9a-f]{2})")
MOST_SHOWN = 4
PROBES_PER_CORE = 4
"""A probe waits for the disk or the network more than it computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBuild:
    """A plan, and the listing it comes from (read to its end: counts and rejects are complete).

    num_divided: items without a split of their own, which the rule `val` divided.
    """

    plan: ShardPlan
    listing: Listing
    num_divided: int
    val: str

    @property
    def num_items(self) -> int:
        """Number of items in the sources, including those that the listing rejected."""
        return self.listing.num_items + len(self.listing.rejects)

    def warnings(self) -> Iterator[str]:
        """Yield one line for each sort of thing that a build leaves out or may get wrong, before a byte is read."""
        # What is lost first, then what may not be what was meant.
        yield from self.listing.left_out.warnings()
        if self.val != "none" and not self.num_divided:
            yield f"val = {self.val} divides nothing: every image and video has a split of its own"
        undecoded = [label for label in self.plan.labels if WRITTEN_OUT.search(label)]
        if undecoded:
            yield (
                f"{len(undecoded)} classes have names that are no UTF-8, for example {undecoded[0]}: their bytes are "
                "written out, so that no two become one"
            )
        words = sorted(label for label in self.plan.labels if SPLIT_LIKE.match(label))
        if len({SPLIT_LIKE.sub(r"\1", word.lower()) for word in words}) > 1:
            yield (
                f"classes are called {', '.join(words[:MOST_SHOWN])}; if they are splits, "
                "give each with --split NAME=SOURCE"
            )


def list_build(config: BuildConfig) -> Listing:
    """Return the listing of a build's sources, none of it read yet. Raises UsageError if a source is missing."""
    return list_sources(config.sources, splits=config.splits, labels=config.labels, columns=config.columns())


def plan_build(
    config: BuildConfig,
    folder: Path,
    on_items: Callable[[int], None] = lambda _: None,
    *,
    listing: Listing | None = None,
) -> PlannedBuild:
    """List the sources and plan their shards; the plan's file, and its temporary ones, go into `folder`.

    `on_items` is called with the number of items so far, once for each batch. Raises UsageError (a source is missing,
    nothing in it) or DataError (a damaged list or archive).
    """
    listing = listing or list_build(config)
    with (
        Planner(config.rules(), folder, probe_videos) as planner,
        progress_bar("listing sources", total=None, unit="items") as bar,
    ):
        # With `map` no batch is held while the next one is made: ten thousand items are 5 MB.
        for num_items in map(planner.add, listing.items):
            on_items(planner.num_items)
            bar.advance(num_items)
        plan = planner.finish()
        return PlannedBuild(plan=plan, listing=listing, num_divided=planner.num_divided, val=config.val)


def probe_videos(items: Sequence[SourceItem]) -> list[VideoFacts | None]:
    """Return what the headers of videos say; None where one cannot be read. Raises nothing for a damaged one."""
    # A reader for each thread: it keeps files open and moves in them.
    readers = threading.local()

    def probe(item: SourceItem) -> VideoFacts | None:
        from pipelines.shards.media.videos import probe_video

        if not hasattr(readers, "reader"):
            readers.reader = ItemReader()
        try:
            file = readers.reader.open_video(item)
        except Exception:
            return None
        try:
            return probe_video(file)
        except Exception:  # whatever it is, the worker that decodes the video will say it
            return None
        finally:
            if not isinstance(file, str):
                file.close()

    with ThreadPoolExecutor(PROBES_PER_CORE * num_cores()) as pool:
        return list(pool.map(probe, items))
