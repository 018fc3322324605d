"""Small folders of shards for the trials: images of ordinary size and much too large ones, clips.

Content is that of benchmarks/studies/throughput/made_shards.py: noise that compresses like photos.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.throughput.made_shards import jpeg, made_picture, make_shards
from pipelines.shards.build import BuildConfig, build_shards

__all__ = ["TrialShards", "make_trial_shards"]

NUM_IMAGES, NUM_CLIPS, NUM_OVERSIZED = 192, 40, 48
NUM_DIFFERENT_OVERSIZED = 8
OVERSIZED_PX = (900, 1200)
"""3.5 times what a canvas of 256 px shows; from 4 times on, decoders reduce while they decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialShards:
    images: Path
    clips: Path
    oversized: Path


def make_trial_shards(folder: Path) -> TrialShards:
    """Make all shards below `folder`."""
    both = make_shards(folder, num_images=NUM_IMAGES, num_clips=NUM_CLIPS)
    return TrialShards(images=both, clips=both, oversized=_oversized(folder / "oversized"))


def _oversized(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    pictures = [jpeg(made_picture(3000 + number, *OVERSIZED_PX)) for number in range(NUM_DIFFERENT_OVERSIZED)]
    for index in range(NUM_OVERSIZED):
        (folder / "images" / f"{index:04d}.jpg").write_bytes(pictures[index % len(pictures)])
    build_shards(BuildConfig(sources=[folder / "images"], out=folder / "shards"))
    return folder / "shards"
