"""What a pipeline's batches take in memory, from the promises of its tasks: nothing has to be run to know it.

An upper bound: inputs that show one plane three times (colorization's) are counted as three.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from pipelines.shards.format.manifest import Kind
from pipelines.tasks.base import CanvasSpec, Task, TensorSpec

__all__ = ["PipelineMemory", "pipeline_memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineMemory:
    """Bytes on the device of the batches, of one rank. batch_bytes: by task, inputs, targets and weights.

    pixels_bytes: decoded uint8 RGB of one step, until its tasks are made.
    """

    batch_bytes: dict[str, int]
    pixels_bytes: int
    prefetch_batches: int
    num_makers: int = 1
    """Steps in the making at a time: one, or one in every worker process."""

    @property
    def step_bytes(self) -> int:
        """One prefetched step, all tasks active."""
        return sum(self.batch_bytes.values())

    @property
    def peak_bytes(self) -> int:
        """At most: the queue full, those in the making, pixels still held, and one step at its consumer."""
        steps = self.prefetch_batches + self.num_makers + 1
        return steps * (self.step_bytes + self.pixels_bytes)


def pipeline_memory(
    tasks: Mapping[str, Task],
    batch_sizes: Mapping[Kind, int],
    canvas: CanvasSpec,
    *,
    share_decode: bool,
    prefetch_batches: int,
    num_makers: int = 1,
) -> PipelineMemory:
    """`batch_sizes`: samples of a kind per step, of one rank."""
    batch_bytes = {
        name: sum(_tensor_bytes(spec) for spec in task.spec(batch_sizes[task.source]).values())
        for name, task in tasks.items()
    }
    sample_bytes: dict[Kind, int] = {
        "image": 3 * canvas.canvas_px**2,
        "clip": 3 * canvas.num_frames * canvas.clip_height_px * canvas.clip_width_px,
    }
    pixels_bytes = 0
    for kind, size in batch_sizes.items():
        num_users = sum(task.source == kind for task in tasks.values())
        pixels_bytes += size * sample_bytes[kind] * (min(num_users, 1) if share_decode else num_users)
    return PipelineMemory(
        batch_bytes=batch_bytes,
        pixels_bytes=pixels_bytes,
        prefetch_batches=prefetch_batches,
        num_makers=num_makers,
    )


def _tensor_bytes(spec: TensorSpec) -> int:
    return prod(spec.shape) * spec.dtype.itemsize
