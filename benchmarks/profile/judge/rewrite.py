"""A folder of shards stored otherwise: smaller images, another clip codec, or just elsewhere. For trying advice out.

What is written is all that pipelines read, of the first samples of each kind and split: tars and their manifest,
without DALI's index and without the files of labels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.profile.measure.alternatives import recoded_clip, shrunk_jpeg
from pipelines.shards.format.manifest import MANIFEST_NAME, Kind, Manifest, ManifestWriter, Shard, load_manifest
from pipelines.shards.format.storage import storage_of
from pipelines.shards.format.tar_writer import Sample, TarWriter
from pipelines.shards.media.clip_bytes import Codec

__all__ = ["rewritten"]

MAX_SAMPLES = 2048


def rewritten(
    folder: Path,
    out: Path,
    *,
    short_side_px: int | None = None,
    codec: Codec | None = None,
    max_samples: int = MAX_SAMPLES,
) -> Path:
    """Write up to `max_samples` of each kind to `out`, unless it is there. Everything not named stays as it is."""
    if (out / MANIFEST_NAME).is_file():
        return out
    manifest = load_manifest(folder)
    out.mkdir(parents=True, exist_ok=True)
    left: dict[tuple[str, str], int] = {}
    with ManifestWriter(storage_of(out), manifest.labels) as writer:
        for index, shard in enumerate(manifest.shards):
            group = shard.kind, shard.split
            room = left.get(group, max_samples)
            if room <= 0:
                continue
            left[group] = room - shard.num_samples
            with (out / shard.name).open("wb") as file:
                tar = TarWriter(file)
                for sample in _samples(manifest, index, room):
                    tar.add(_changed(sample, shard.kind, short_side_px, codec))
                facts = tar.finish()
            writer.add(
                Shard(
                    name=shard.name,
                    kind=shard.kind,
                    split=shard.split,
                    num_samples=facts.samples.num_rows,
                    shard_bytes=facts.num_bytes,
                    sha256=facts.sha256,
                ),
                facts.samples,
            )
    return out


def _samples(manifest: Manifest, index: int, most: int) -> Iterator[Sample]:
    """The first samples of a shard: only the image or clip itself, which is all that pipelines read."""
    shard = manifest.shards[index]
    suffix = "jpg" if shard.kind == "image" else "mp4"
    with (manifest.folder / shard.name).open("rb") as file:
        rows: list[dict[str, Any]] = manifest.samples_of(index).slice(0, most).to_pylist()
        for row in rows:
            file.seek(row["offset"])
            content = file.read(row["size"])
            facts = {name: row[name] for name in ("width", "height", "label", "num_frames", "fps")}
            yield Sample(row["key"], [(suffix, content)], **facts)


def _changed(sample: Sample, kind: Kind, short_side_px: int | None, codec: Codec | None) -> Sample:
    content = sample.members[0][1]
    if kind == "image" and short_side_px is not None:
        small, width, height = shrunk_jpeg(content, short_side_px)
        return sample._replace(members=[("jpg", small)], width=width, height=height)
    if kind == "clip" and codec is not None:
        return sample._replace(members=[("mp4", recoded_clip(content, codec))])
    return sample
