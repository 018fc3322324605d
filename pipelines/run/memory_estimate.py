"""Estimate the memory of a pipeline's batches from the `spec` of its tasks, without running it.

The estimate is an upper bound: inputs that show one plane three times (colorization's) are counted as three.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from pipelines.shards.format.manifest import Kind
from pipelines.tasks.base import CanvasSpec, Task, TensorSpec

__all__ = ["PipelineMemory", "pipeline_memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineMemory:
    """Bytes of the batches of one rank on the device.

    batch_bytes: inputs, targets and weights by task. pixels_bytes: decoded uint8 RGB of one step, held until its
    batches are made; a canvas for each size that tasks want.
    """

    batch_bytes: dict[str, int]
    pixels_bytes: int
    prefetch_batches: int
    num_makers: int = 1
    """Steps that are made at the same time: one, or one in every worker process."""

    @property
    def step_bytes(self) -> int:
        """Bytes of one prefetched step with all tasks active."""
        return sum(self.batch_bytes.values())

    @property
    def peak_bytes(self) -> int:
        """Largest number of bytes: full queue, steps being made, their pixels, and the step in use."""
        # A step holds its pixels until its batches are made, and a queue of begun steps may hold those of all of them.
        steps = self.prefetch_batches + self.num_makers + 1
        return steps * (self.step_bytes + self.pixels_bytes)


def pipeline_memory(
    tasks: Mapping[str, Task],
    batch_sizes: Mapping[Kind, int],
    task_batch_sizes: Mapping[str, int],
    canvas: CanvasSpec,
    *,
    share_decode: bool,
    prefetch_batches: int,
    num_makers: int = 1,
) -> PipelineMemory:
    """Estimate the bytes of a pipeline. `batch_sizes`, `task_batch_sizes`: samples of a kind per step on one rank, and
    those that a task takes of them."""
    batch_bytes = {
        name: sum(_tensor_bytes(spec) for spec in task.spec(task_batch_sizes[name]).values())
        for name, task in tasks.items()
    }
    sides_px = [task.canvas_px for task in tasks.values() if task.source == "image"]
    num_clips = sum(task.source == "clip" for task in tasks.values())
    # Without `share_decode` every task holds pixels of its own.
    if share_decode:
        sides_px, num_clips = sorted(set(sides_px)), min(num_clips, 1)
    clip_bytes = 3 * canvas.num_frames * canvas.clip_height_px * canvas.clip_width_px
    sample_bytes: dict[Kind, int] = {"image": sum(3 * px**2 for px in sides_px), "clip": num_clips * clip_bytes}
    pixels_bytes = sum(size * sample_bytes[kind] for kind, size in batch_sizes.items())
    return PipelineMemory(
        batch_bytes=batch_bytes,
        pixels_bytes=pixels_bytes,
        prefetch_batches=prefetch_batches,
        num_makers=num_makers,
    )


def _tensor_bytes(spec: TensorSpec) -> int:
    return prod(spec.shape) * spec.dtype.itemsize
