"""Motion segmentation by worker processes, from shards written of given clips, as one of the ways that are timed."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch

from pipelines.build import PipelineConfig, build_pipeline
from pipelines.shards.format.manifest import ManifestWriter, Shard
from pipelines.shards.format.storage import storage_of
from pipelines.shards.format.tar_writer import Sample, TarWriter
from pipelines.tasks.base import CanvasSpec

__all__ = ["NAME", "ClipWorkers", "write_clips"]

NAME = "fourfold, lucas_kanade, workers"
MAX_STEP_CLIPS = 8
TAR = "train-clips-000000.tar"
SETTLE_S = 0.6
"""In which they fill their queue, so that they do not work while another way is timed."""


def write_clips(folder: Path, encoded: Sequence[memoryview], canvas: CanvasSpec) -> Path:
    """A folder of one shard with the clips as they are."""
    folder.mkdir(parents=True)
    with (folder / TAR).open("wb") as file:
        writer = TarWriter(file)
        for index, one in enumerate(encoded):
            size = {"width": canvas.clip_width_px, "height": canvas.clip_height_px}
            members = [("mp4", bytes(one))]
            writer.add(Sample(f"clip{index:04}", members, **size, num_frames=canvas.num_frames, fps=10.0))
        facts = writer.finish()
    shard = Shard(
        name=TAR,
        kind="clip",
        split="train",
        num_samples=len(encoded),
        shard_bytes=facts.num_bytes,
        sha256=facts.sha256,
    )
    with ManifestWriter(storage_of(folder), ()) as manifest:
        manifest.add(shard, facts.samples)
    return folder


class ClipWorkers:
    """A running pipeline over given clips, in their order, again and again. A context manager."""

    def __init__(self, folder: Path, encoded: Sequence[memoryview], canvas: CanvasSpec, num_workers: int) -> None:
        """`folder`: does not exist yet."""
        step_clips = next(size for size in range(MAX_STEP_CLIPS, 0, -1) if len(encoded) % size == 0)
        self._num_steps = len(encoded) // step_clips
        config = PipelineConfig.model_validate(
            {
                "clips": write_clips(folder, encoded, canvas),
                "tasks": {"motion_segmentation": {"remembered_clips": 0}},
                "clip_batch_size": step_clips,
                "num_threads": num_workers,
                "num_workers": num_workers,
                "backend": "opencv",
            }
        )
        self._pipeline = build_pipeline(config, seed=0, augment=False)
        self._num_ready = config.prefetch_batches + num_workers

    def __enter__(self) -> "ClipWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipeline.close()

    def first_pass(self) -> tuple[torch.Tensor, torch.Tensor]:
        """moving and weight of all clips, as they are first made."""
        steps = [step.batches["motion_segmentation"] for step in itertools.islice(self._pipeline, self._num_steps)]
        return torch.cat([step.target["moving"] for step in steps]), torch.cat([step.weight for step in steps])

    def run(self) -> None:
        """As many steps as hold all clips once."""
        for _ in itertools.islice(self._pipeline, self._num_steps):
            pass

    def settle(self) -> None:
        """Wait until they are idle."""
        time.sleep(SETTLE_S)

    def use_up(self) -> None:
        """Take what is held ready, which would be had for nothing."""
        for _ in itertools.islice(self._pipeline, self._num_ready):
            pass
