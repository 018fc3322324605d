"""One planned shard in; its tar, its index and its record out. Nothing else decides about the bytes of a shard.

Runs in whatever process or machine an engine gives it to. What cannot be used is left out and recorded as a reject;
what cannot be written is an error.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.base.errors import DataError, FourfoldError
from pipelines.shards.format.clip_keys import clip_key
from pipelines.shards.format.index import index_name
from pipelines.shards.format.storage import Storage
from pipelines.shards.format.table import Kind
from pipelines.shards.format.tar_writer import Sample, TarFacts, TarWriter
from pipelines.shards.making.ordered import ordered_map
from pipelines.shards.making.shard_plan import PlannedShard
from pipelines.shards.making.shard_progress import tell
from pipelines.shards.making.shard_records import ShardRecord, fingerprint, save_record
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import Reject, SourceItem, UnusableError

if TYPE_CHECKING:
    from pipelines.shards.media.clip_bytes import ClipForm, RawClip
    from pipelines.shards.media.image_bytes import ImageForm

__all__ = ["FORMAT_VERSION", "RESUME_HINT", "ShardJob", "MadeShard", "make_shard"]

# Part of every record: raise it when the bytes of a shard change, and older shards are made again.
FORMAT_VERSION = 4
RESUME_HINT = "Make room or mend it, then run the same build again: finished shards are kept."
"""Advice in messages of a build that stops."""
TELL_EVERY_S = 0.5
_quoted = json.encoder.encode_basestring


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """Settings for making all shards of a build.

    image_form, clip_form: None if there are no shards of that kind. labels: class names. libraries: for each kind,
    what its bytes may depend on, with versions. num_threads: for encoding the clips of a shard.
    """

    storage: Storage
    image_form: "ImageForm | None"
    clip_form: "ClipForm | None"
    labels: tuple[str, ...]
    libraries: Mapping[Kind, Mapping[str, str]]
    num_threads: int = 1

    def form_of(self, kind: Kind) -> Any:
        """Return the ImageForm or ClipForm of a kind."""
        form = self.image_form if kind == "image" else self.clip_form
        if form is None:
            raise ValueError(f"no form for {kind}s, although there are some")
        return form

    def fingerprint(self, shard: PlannedShard) -> str:
        """Return the hash of all that decides the shard's bytes."""
        used = sorted(set(shard.rows.column("label").to_pylist()) - {-1})
        settings = {
            "format_version": FORMAT_VERSION,
            "form": asdict(self.form_of(shard.kind)),
            "labels": [(number, self.labels[number]) for number in used],
            "libraries": self.libraries[shard.kind],
        }
        return fingerprint(settings, shard)


class MadeShard(NamedTuple):
    """Counts of a made shard that a build needs at once; the rest is in its record.

    rejected_videos: keys; a video that is divided among shards may be rejected in several. num_planned: samples by the
    plan. num_told, told_bytes: what was reported of them already (`shard_progress.py`).
    """

    name: str
    num_planned: int
    num_samples: int
    num_items: int
    num_rejects: int
    rejected_videos: tuple[str, ...]
    shard_bytes: int
    num_told: int
    told_bytes: int


def make_shard(shard: PlannedShard, job: ShardJob) -> MadeShard:
    """Write a shard, its index and, last, its record. Raises DataError if the storage refuses."""
    # 1. Samples are made one by one as the tar asks for them: no shard is held in memory.
    left_out = _LeftOut()
    reader = ItemReader()
    samples = _images(shard, job, reader, left_out) if shard.kind == "image" else _clips(shard, job, reader, left_out)
    try:
        progress = _Progress(shard.num_samples)
        tar = _write(shard.name, progress.through(samples), job.storage)
        # 2. The record last: it stands for a whole tar and a whole index.
        save_record(job.storage, _record(shard, job, tar, left_out))
    except OSError as error:
        raise DataError(f"{job.storage.location}: {shard.name}: {error.strerror or error}. {RESUME_HINT}") from error
    finally:
        reader.close()
    # 3. An image is a sample or a reject; whatever else happened to one is a fault of this file.
    if shard.kind == "image" and tar.samples.num_rows + len(left_out.rejects) != shard.rows.num_rows:
        raise RuntimeError(f"{shard.name}: {shard.rows.num_rows} images became {tar.samples.num_rows} samples")
    return MadeShard(
        name=shard.name,
        num_planned=shard.num_samples,
        num_samples=tar.samples.num_rows,
        num_items=shard.rows.num_rows,
        num_rejects=len(left_out.rejects),
        rejected_videos=() if shard.kind == "image" else tuple(reject.key for reject in left_out.rejects),
        shard_bytes=tar.num_bytes,
        num_told=progress.num_told,
        told_bytes=progress.told_bytes,
    )


class _Progress:
    """Reports samples that pass, every half second; no more than were planned, so that a bar does not run over."""

    def __init__(self, num_planned: int) -> None:
        self.num_told = self.told_bytes = 0
        self._num_planned = num_planned

    def through(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        num_new, new_bytes, told_s = 0, 0, time.monotonic()
        for sample in samples:
            yield sample
            num_new += 1
            new_bytes += len(sample.members[0][1])
            if time.monotonic() - told_s > TELL_EVERY_S:
                # Clips are planned by an estimated duration, and there may be more of them.
                num_new = min(num_new, self._num_planned - self.num_told)
                tell(num_new, new_bytes)
                self.num_told += num_new
                self.told_bytes += new_bytes
                num_new, new_bytes, told_s = 0, 0, time.monotonic()


class _LeftOut:
    """Rejects and dropped clips of a shard. has_unread: an item could not be read, which may be better next time."""

    def __init__(self) -> None:
        self.rejects: list[Reject] = []
        self.dropped: Counter[str] = Counter()
        self.has_unread = False

    def reject(self, item: SourceItem, error: Exception, more: str = "") -> None:
        if isinstance(error, OSError):
            self.has_unread = True
            reason = f"cannot read it ({error.strerror or error})"
        elif isinstance(error, FourfoldError):  # such as a URL that cannot be opened on this machine
            self.has_unread = True
            reason = str(error)
        elif isinstance(error, UnusableError):
            reason = str(error)
        else:  # one unforeseen file among millions must not end the build
            reason = f"unexpected {type(error).__name__} ({error})"
        self.rejects.append(Reject(key=item.key, source=item.source, reason=reason + more))


def _write(name: str, samples: Iterator[Sample], storage: Storage) -> TarFacts:
    # A tar without samples is none that readers could open: nothing is written before there is a first one.
    first = next(samples, None)
    if first is None:
        # A tar of an earlier build may stand under this name, and would pass for this shard's.
        storage.remove(name)
        storage.remove(index_name(name))
        return TarWriter.nothing()
    with storage.writing(name, sync_name=False) as file:  # the index's name takes the tar's along
        writer = TarWriter(file)
        for sample in chain([first], samples):
            writer.add(sample)
        tar = writer.finish()
    storage.write(index_name(name), tar.index_content)
    return tar


def _record(shard: PlannedShard, job: ShardJob, tar: TarFacts, left_out: _LeftOut) -> ShardRecord:
    return ShardRecord(
        name=shard.name,
        kind=shard.kind,
        split=shard.split,
        fingerprint=job.fingerprint(shard),
        num_samples=tar.samples.num_rows,
        shard_bytes=tar.num_bytes,
        sha256=tar.sha256,
        is_final=not left_out.has_unread,
        rejects=tuple(left_out.rejects),
        dropped=dict(left_out.dropped),
        samples=tar.samples,
    )


def _images(shard: PlannedShard, job: ShardJob, reader: ItemReader, left_out: _LeftOut) -> Iterator[Sample]:
    from pipelines.shards.media.image_bytes import prepare_image

    form, labels = job.form_of("image"), shard.rows.column("label").to_pylist()
    label_texts = [_quoted(name) for name in job.labels]
    for item, label in zip(shard.items(), labels, strict=True):
        try:
            encoded, extension, width, height, facts = prepare_image(reader.read(item), form)
        except Exception as error:
            left_out.reject(item, error)
            continue
        if facts or label < 0:
            named = {"label": job.labels[label]} if label >= 0 else {}
            sidecar = _json_bytes({**facts, "width": width, "height": height, "source": item.source, **named})
        else:  # the same at a tenth of the time; nearly all images come this way
            source, text = _quoted(item.source), label_texts[label]
            sidecar = f'{{"height": {height}, "label": {text}, "source": {source}, "width": {width}}}'.encode()
        members = [(extension, encoded), ("json", sidecar)]
        if label >= 0:
            # Behind the image: readers take the first member of a sample for it.
            members.insert(1, ("cls", b"%d" % label))
        yield Sample(item.key, members, width, height, label)


def _clips(shard: PlannedShard, job: ShardJob, reader: ItemReader, left_out: _LeftOut) -> Iterator[Sample]:
    # Imported here: PyAV and OpenCV take a while, and a shard of images needs only one of them.
    from pipelines.shards.media.clip_bytes import encode_clip

    form = job.form_of("clip")

    def encoded(found: "tuple[SourceItem, RawClip]") -> Sample:
        item, clip = found
        facts = clip.facts | {"source": item.source}
        return Sample(
            clip_key(item.key, clip.start_tick),
            [("mp4", encode_clip(clip.frames, form.at(facts["fps"]))), ("json", _json_bytes(facts))],
            facts["width"],
            facts["height"],
            num_frames=facts["num_frames"],
            fps=facts["fps"],
        )

    return ordered_map(encoded, _raw_clips(shard, job, reader, left_out), job.num_threads)


def _raw_clips(
    shard: PlannedShard, job: ShardJob, reader: ItemReader, left_out: _LeftOut
) -> "Iterator[tuple[SourceItem, RawClip]]":
    """Yield the decoded clips of all videos, or parts of videos, of a shard, each with its item."""
    starts_s, ends_s = (shard.rows.column(name).to_pylist() for name in ("start_s", "end_s"))
    for item, start_s, end_s in zip(shard.items(), starts_s, ends_s, strict=True):
        num_clips = 0
        try:
            for found in _clips_of(item, job, reader, start_s, None if end_s < 0 else end_s):
                if isinstance(found, str):
                    left_out.dropped[found] += 1
                else:
                    num_clips += 1
                    yield item, found
        except Exception as error:
            left_out.reject(item, error, f"; the {num_clips} clips before it are kept" if num_clips else "")


def _clips_of(
    item: SourceItem, job: ShardJob, reader: ItemReader, start_s: float, end_s: float | None
) -> "Iterator[RawClip | str]":
    """Yield the clips of one video or part of one; in place of one that is dropped, the reason."""
    from pipelines.shards.media.clip_bytes import DroppedClip, read_clips

    file = reader.open_video(item)
    try:
        for found in read_clips(file, job.form_of("clip"), start_s=start_s, end_s=end_s):
            yield found.reason if isinstance(found, DroppedClip) else found
    finally:
        if not isinstance(file, str):
            file.close()


def _json_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
