"""Ways from encoded clips to motion masks: ours, by threads or worker processes, and the usual offline one.

Offline: dense flow of every pair of frames, one homography a pair, a threshold. Clips are uint8 RGB (T, H, W, 3);
lengths are pixels of the clip.
"""

import io
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.build import PipelineConfig, build_pipeline
from pipelines.decode.opencv import OpenCVBackend
from pipelines.shards.format.manifest import ManifestWriter, Shard
from pipelines.shards.format.storage import storage_of
from pipelines.shards.format.tar_writer import Sample, TarWriter
from pipelines.targets.motion.dense_flow import DenseFlow, DisFlow, EngineName, FarnebackFlow
from pipelines.tasks.base import CanvasSpec, TaskBatch
from pipelines.tasks.motion_segmentation import MotionSegmentation, MotionSegmentationConfig

__all__ = [
    "CANVAS",
    "OFFLINE_WAYS",
    "ClipWorkers",
    "OfflineWay",
    "batch_of_planes",
    "cells_moving",
    "clip_planes",
    "color_clips",
    "decode_only",
    "offline_residuals",
    "our_batch",
    "residual_px",
]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Views = Sequence[memoryview]

CANVAS = CanvasSpec()
POINT_STRIDE_PX = 8
INLIER_PX = 1.0
CELL_PX = 8
MAX_STEP_CLIPS = 8
SETTLE_S = 0.6
"""In which worker processes fill their queue, so that they do not work while another way is timed."""


def decode_only(encoded: Views, pool: ThreadPoolExecutor) -> None:
    """Decode every frame and make nothing of it: the limit of any way that looks at every frame."""
    list(pool.map(_decode, encoded))


def _decode(encoded: memoryview) -> None:
    with av.open(io.BytesIO(encoded), mode="r") as container:
        stream = container.streams.video[0]
        # Clips share the cores already, so that each gets one thread of the decoder.
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for _ in container.decode(stream):
            pass


def color_clips(backend: Any, encoded: Views) -> torch.Tensor:
    """Return uint8 (B, T, 240, 320, 3), what any other way starts from."""
    no_flips, size = np.zeros(len(encoded), np.bool_), (CANVAS.clip_height_px, CANVAS.clip_width_px)
    return torch.as_tensor(backend.clips(encoded, no_flips, CANVAS.num_frames, *size).pixels)


def our_batch(engine: EngineName, num_threads: int, backend: OpenCVBackend, encoded: Views) -> TaskBatch:
    """Return the task's batch as the pipeline makes it."""
    return batch_of_planes(engine, num_threads, clip_planes(backend, encoded))


def clip_planes(backend: OpenCVBackend, encoded: Views) -> torch.Tensor:
    """Return planes, uint8 (B, 6, 240, 320), as clip_planes.py describes them."""
    no_flips, size = np.zeros(len(encoded), np.bool_), (CANVAS.clip_height_px, CANVAS.clip_width_px)
    return torch.as_tensor(backend.clip_planes(encoded, no_flips, CANVAS.num_frames, *size).pixels)


def batch_of_planes(engine: EngineName, num_threads: int, planes: torch.Tensor) -> TaskBatch:
    """Return the task's batch from planes."""
    return _task(engine, num_threads).make(planes, {}, [str(index) for index in range(len(planes))])


@cache
def _task(engine: EngineName, num_threads: int) -> MotionSegmentation:
    """Return the task without a cache, so that every repeat computes the labels again."""
    config = MotionSegmentationConfig(engine=engine, num_threads=num_threads, remembered_clips=0)
    return MotionSegmentation(config, CANVAS)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineWay:
    """A flow engine and the size it works at: shrink 1 is full size, 2 half size."""

    engine: DenseFlow
    shrink: int


# Makers, because an engine serves one thread at a time.
OFFLINE_WAYS: dict[str, Callable[[], OfflineWay]] = {
    "farneback, full size, homography a pair": lambda: OfflineWay(engine=FarnebackFlow(), shrink=1),
    "dis fast, half size, homography a pair": lambda: OfflineWay(engine=DisFlow("fast"), shrink=2),
}


def offline_residuals(name: str, backend: OpenCVBackend, encoded: Views, pool: ThreadPoolExecutor) -> list[Floats]:
    """Return `residual_px` of every clip by one of OFFLINE_WAYS."""
    clips = color_clips(backend, encoded).numpy()
    return list(pool.map(lambda clip: residual_px(OFFLINE_WAYS[name](), clip), clips))


def residual_px(way: OfflineWay, clip_THWC: Pixels) -> Floats:
    """Return float32 (H, W): how far a pixel moves in a frame beyond the pair's homography, mean over the clip."""
    height, width = clip_THWC.shape[1:3]
    size = width // way.shrink, height // way.shrink
    grays = [cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size) for frame in clip_THWC]
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in size))
    points_HW2 = np.stack([x, y], axis=2)
    residuals = [_residual(way.engine.pair_flow(*pair), points_HW2) for pair in itertools.pairwise(grays)]
    # In pixels of the full size again, in which the threshold is given.
    mean = np.asarray(sum(residuals) * way.shrink / len(residuals), np.float32)
    return np.asarray(cv2.resize(mean, (width, height)), np.float32)


def _residual(flow_HW2: Floats, points_HW2: Floats) -> Floats:
    thinned = slice(None, None, POINT_STRIDE_PX)
    start, step = (field[thinned, thinned].reshape(-1, 2) for field in (points_HW2, flow_HW2))
    homography, _ = cv2.findHomography(start, start + step, cv2.RANSAC, INLIER_PX)
    if homography is None:
        return np.zeros(flow_HW2.shape[:2], np.float32)
    camera_HW2 = cv2.perspectiveTransform(points_HW2, homography) - points_HW2
    return np.asarray(np.linalg.norm(flow_HW2 - camera_HW2, axis=2), np.float32)


def cells_moving(residual_HW: Floats, threshold_px: float) -> Bools:
    """Return bool (h, w): cells of 8 x 8 pixels at least half of which move. Sides are multiples of 8."""
    height, width = residual_HW.shape
    moving = (residual_HW > threshold_px).reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
    return np.asarray(moving.mean(axis=(1, 3)) >= 0.5)


class ClipWorkers:
    """A running pipeline of worker processes over shards of given clips, in their order, again and again."""

    def __init__(self, folder: Path, encoded: Views, num_workers: int) -> None:
        """`folder`: of the shards; does not exist yet."""
        # A size that divides the number of clips, so that a pass holds each of them once.
        step_clips = next(size for size in range(MAX_STEP_CLIPS, 0, -1) if len(encoded) % size == 0)
        config = PipelineConfig.model_validate(
            {
                "clips": _write_clips(folder, encoded),
                "tasks": {"motion_segmentation": {"remembered_clips": 0}},
                "clip_batch_size": step_clips,
                "num_threads": num_workers,
                "num_workers": num_workers,
                "backend": "opencv",
            }
        )
        self._num_steps, self._num_ready = len(encoded) // step_clips, config.prefetch_batches + num_workers
        # In the given order and unmirrored, as the other ways see the clips.
        self._pipeline = build_pipeline(config, seed=0, augment=False)

    def close(self) -> None:
        self._pipeline.close()

    def first_pass(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return moving and weight of all clips, as they are first made."""
        steps = [step.batches["motion_segmentation"] for step in itertools.islice(self._pipeline, self._num_steps)]
        return torch.cat([step.target["moving"] for step in steps]), torch.cat([step.weight for step in steps])

    def run(self) -> None:
        """Take as many steps as hold all clips once."""
        self._take(self._num_steps)

    def settle(self) -> None:
        """Wait until the workers are idle."""
        time.sleep(SETTLE_S)

    def use_up(self) -> None:
        """Take the steps held ready, which would cost nothing when timed."""
        self._take(self._num_ready)

    def _take(self, num_steps: int) -> None:
        for _ in itertools.islice(self._pipeline, num_steps):
            pass


def _write_clips(folder: Path, encoded: Views) -> Path:
    """Write one shard with the clips as they are."""
    name, size = "train-clips-000000.tar", {"width": CANVAS.clip_width_px, "height": CANVAS.clip_height_px}
    folder.mkdir(parents=True)
    with (folder / name).open("wb") as file:
        writer = TarWriter(file)
        for index, one in enumerate(encoded):
            members = [("mp4", bytes(one))]
            writer.add(Sample(f"clip{index:04}", members, **size, num_frames=CANVAS.num_frames, fps=10.0))
        facts = writer.finish()
    about: dict[str, Any] = {"num_samples": len(encoded), "shard_bytes": facts.num_bytes, "sha256": facts.sha256}
    with ManifestWriter(storage_of(folder), ()) as manifest:
        manifest.add(Shard(name=name, kind="clip", split="train", **about), facts.samples)
    return folder
