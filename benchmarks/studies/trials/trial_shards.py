"""Small folders of shards for the trials: images of ordinary size and much too large ones, clips in two codecs.

Content is that of benchmarks/studies/throughput/made_shards.py: noise that compresses like photos.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2

from benchmarks.profile.judge.apply import rewritten
from benchmarks.studies.throughput.made_shards import made_picture, make_shards
from pipelines.shards.build import BuildConfig, build_shards

__all__ = ["TrialShards", "make_trial_shards"]

NUM_IMAGES, NUM_CLIPS, NUM_OVERSIZED = 192, 40, 48
OVERSIZED_PX = (900, 1200)
"""3.5 times what a canvas of 256 px shows; from 4 times on, decoders reduce while they decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialShards:
    images: Path
    clips: Path
    oversized: Path
    vp9: Path


def make_trial_shards(folder: Path) -> TrialShards:
    """Make the shards, but for those that are there already."""
    both = make_shards(folder, num_images=NUM_IMAGES, num_clips=NUM_CLIPS)
    return TrialShards(
        images=both,
        clips=both,
        oversized=_oversized(folder / "oversized"),
        vp9=rewritten(both, folder / "vp9", codec="vp9"),
    )


def _oversized(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in range(NUM_OVERSIZED):
        path = folder / "images" / f"{index:04d}.jpg"
        if not path.exists():
            picture = made_picture(3000 + index % 8, *OVERSIZED_PX)
            path.write_bytes(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    build_shards(BuildConfig(sources=[folder / "images"], out=folder / "shards"))
    return folder / "shards"
