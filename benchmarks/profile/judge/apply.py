"""A test of one piece of advice: the configuration before and after the change, in turns, and the gain in samples/s.

Advice about storage needs other shards. Then the first samples of each kind and split are stored again: as smaller
images, in another clip codec, or in another place. Only what pipelines read is written: tars and their manifest,
without DALI's index and without label files.
"""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.temporary import temporary_folder
from benchmarks.profile.judge.advice import Option
from benchmarks.profile.measure.alternatives import recoded_clip
from benchmarks.profile.measure.windows import Bench, rates_in_turns
from benchmarks.profile.profile_config import ProfileConfig, changed
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import MANIFEST_NAME, Kind, Manifest, ManifestWriter, Shard, load_manifest
from pipelines.shards.format.shard_place import fetch
from pipelines.shards.format.storage import storage_of
from pipelines.shards.format.tar_writer import Sample, TarWriter
from pipelines.shards.media.clip_bytes import Codec
from pipelines.shards.media.image_bytes import ImageForm, prepare_image

__all__ = ["Applied", "applied", "apply_option", "rewritten"]

MEMORY = Path("/dev/shm")
NUM_EPOCHS = 6
MAX_EPOCHS_S = 60.0
MAX_SAMPLES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Samples/s of every turn, before and after the change."""

    before_samples_per_s: tuple[float, ...]
    after_samples_per_s: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean samples/s of all turns, after over before. A median of turns would not see a stall that comes in every
        second one."""
        return statistics.fmean(self.after_samples_per_s) / statistics.fmean(self.before_samples_per_s)


def apply_option(config: ProfileConfig, option: Option, seconds: float, num_repeats: int) -> Applied:
    """Measure the configuration before and after the change, `num_repeats` times. Takes about `seconds`, besides
    storing shards anew."""
    is_cached = option.name == "remember"
    with (
        applied(config, option) as after_config,
        Bench(config) as before,
        Bench(after_config, is_cached=is_cached) as after,
    ):
        if is_cached:
            # The gain is that of later epochs, so nearly every clip has to be there once, mirrored and not.
            after.turn(MAX_EPOCHS_S, max_steps=NUM_EPOCHS * max(after.pipeline.pass_steps.values()))
        # In turns: a machine that others use drifts, and one after the other that drift would be part of the gain.
        rates = rates_in_turns({"before": before, "after": after}, num_repeats, seconds / num_repeats / 2)
    return Applied(before_samples_per_s=tuple(rates["before"]), after_samples_per_s=tuple(rates["after"]))


@contextmanager
def applied(config: ProfileConfig, option: Option) -> Iterator[ProfileConfig]:
    """Yield the configuration with the change; shards that are stored otherwise live as long as the block."""
    settings, stored = dict(option.settings), dict(option.stored)
    in_memory = stored.pop("in_memory", False)
    with ExitStack() as stack:
        # In a temporary folder that vanishes also when this process is killed: a copy in memory would stay there.
        if option.stored:
            folder = stack.enter_context(temporary_folder(MEMORY if in_memory and MEMORY.is_dir() else None))
        for kind in ("image", "clip") if option.stored else ():
            sources = config.pipeline.sources_of(kind)
            # Other shards replace one folder, and remote ones would have to be downloaded whole for a try.
            if len(sources) > 1 or not all(Path(source.path).is_dir() for source in sources):
                raise UsageError(
                    f"--apply: {option.name} stores {kind}s anew, and this profile has "
                    f"{', '.join(str(source.path) for source in sources)}. Allowed: one folder on this machine."
                )
            if sources:
                settings[f"pipeline.{kind}s"] = rewritten(Path(sources[0].path), folder / kind, **stored)
        yield changed(config, settings)


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
    # The manifest comes last: a folder that has one is whole, also after an interrupted run.
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
            # Shard by shard under the same names, so that the plan draws the same samples from both folders.
            with (out / shard.name).open("wb") as file:
                tar = TarWriter(file)
                for sample in _samples(manifest, index, room):
                    tar.add(_changed(sample, shard.kind, short_side_px, codec))
                facts = tar.finish()
            stored = Shard(
                name=shard.name,
                kind=shard.kind,
                split=shard.split,
                num_samples=facts.samples.num_rows,
                shard_bytes=facts.num_bytes,
                sha256=facts.sha256,
            )
            writer.add(stored, facts.samples)
    return out


def _samples(manifest: Manifest, index: int, most: int) -> Iterator[Sample]:
    """Yield the first samples of a shard: only the image or clip itself, which is all that pipelines read."""
    shard = manifest.shards[index]
    with fetch(manifest.folder, shard).open("rb") as file:
        for row in manifest.samples_of(index).slice(0, most).to_pylist():
            file.seek(row["offset"])
            content = file.read(row["size"])
            facts = {name: row[name] for name in ("width", "height", "label", "num_frames", "fps")}
            yield Sample(row["key"], [("jpg" if shard.kind == "image" else "mp4", content)], **facts)


def _changed(sample: Sample, kind: Kind, short_side_px: int | None, codec: Codec | None) -> Sample:
    content = sample.members[0][1]
    if kind == "image" and short_side_px is not None:
        made = prepare_image(content, ImageForm(short_side_px=short_side_px))
        return sample._replace(members=[("jpg", made.encoded)], width=made.width, height=made.height)
    if kind == "clip" and codec is not None:
        return sample._replace(members=[("mp4", recoded_clip(content, codec))])
    return sample
