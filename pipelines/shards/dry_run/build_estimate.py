"""The result of a dry run: what a build would make, how long it would take, and what it would refuse."""

from dataclasses import dataclass

from pipelines.shards.dry_run.read_speed import ReadComparison
from pipelines.shards.dry_run.source_videos import SourceVideos
from pipelines.shards.dry_run.trial import Trial
from pipelines.shards.format.table import Kind
from pipelines.shards.sources.items import Reject

__all__ = ["BuildEstimate", "GroupEstimate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEstimate:
    """Planned shards of one kind and split. num_items: images, or videos and parts of videos.

    num_samples and bytes_out are what the trial makes of the plan; bytes_in lacks files of unknown size.
    labels: images per class name; a clip has none.
    """

    kind: Kind
    split: str
    num_items: int
    num_samples: int
    num_shards: int
    bytes_in: int
    bytes_out: int
    labels: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEstimate:
    """Estimate of a build. list_s: time that listing and planning took; build_s: all of the build, estimated.

    num_workers: those that build_s is for; 1 for a Ray cluster, whose size is not known.

    rejects: what the listing refused. free_bytes: room where the shards would go, None if it is not known.
    """

    out: str
    num_workers: int
    groups: tuple[GroupEstimate, ...]
    labels: tuple[str, ...]
    num_rows: int
    num_ignored: int
    rejects: tuple[Reject, ...]
    list_s: float
    build_s: float
    free_bytes: int | None
    trials: tuple[Trial, ...]
    videos: SourceVideos | None
    reading: ReadComparison | None
    warnings: tuple[str, ...] = ()

    @property
    def bytes_out(self) -> int:
        return sum(group.bytes_out for group in self.groups)
