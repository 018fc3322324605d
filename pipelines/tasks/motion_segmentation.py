"""Motion segmentation: from one frame, tell which parts will move otherwise than the camera. Paper sections 2, 3.4.

The target is computed from the clip on the fly (pipelines/targets/motion/motion_mask.py), on the CPU, from the luma of
a few frames. Of clips on a device, that luma is copied to the CPU and the target back; the inputs stay on the device.

Letters: B clips, T frames, N frames that the target is computed from, H W clip size, h w = H / 8, W / 8 rounded up.
"""

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores
from pipelines.decode.clip_planes import NUM_COLORS, planes_of
from pipelines.kernels.compiled import compiled
from pipelines.targets.color.lab import lightness
from pipelines.targets.motion.flow import EngineName, FlowEngine, Preset
from pipelines.targets.motion.flow_engines import build_engine
from pipelines.targets.motion.motion_mask import VERDICTS, label_clip
from pipelines.tasks.base import CanvasSpec, Geometry, Rng, Task, TaskBatch, TaskConfig, TensorSpec
from pipelines.tasks.target_cache import CachedTargets, TargetCache

__all__ = ["MotionSegmentation", "MotionSegmentationConfig"]

STRIDE_PX = 8
MIN_FRAMES = 4
MIN_SIDE_PX = 32

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Target = tuple[Floats, Floats, np.uint8]


class MotionSegmentationConfig(TaskConfig):
    """Lengths are at a clip width of 320 px, and scale with the clip."""

    engine: EngineName = "lucas_kanade"
    """What tracks points. "dis" and "farneback" compute dense flow first: 3 to 6 times the cost, no better masks.
    "raft" is a network that was trained with true flow, seconds a clip on a CPU; "nvof" is the GPU's flow unit."""
    raft_weights: str = "default"
    """Of "raft": "default" downloads torchvision's, "random" tries the chain without, else the path of a file."""
    preset: Preset = "fast"
    """Quality of "dis"; "medium" costs most."""
    threshold_px: float = Field(default=2.0, gt=0.0)
    """Tracks that stray less than this from the camera's motion are background. Larger loses slow objects."""
    reach_px: float = Field(default=16.0, gt=0.0)
    """How far around a moving track moving pixels are looked for. Cost grows with it."""
    min_coverage: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of a cell's pixels that must move for the cell to count as moving."""
    num_threads: int = Field(default=0, ge=0)
    """Clips worked on at once; 0 means as many as there are cores. The result does not depend on it."""
    remembered_clips: int = Field(default=4096, ge=0)
    """Targets kept in memory, h x w x 8 bytes each (10 kB at the paper's size; a clip has two, one for its mirror
    image), so that a small set of clips is labelled once and not in every epoch, and of a clip seen again only the
    first frame is decoded. 0 labels anew each time. The result does not depend on it."""


class MotionSegmentation(Task):
    """inputs (B, 3, H, W): the first frame. target: "moving" float32 (B, h, w), 0 or 1.

    weight (B, h, w): 0 in clips without a clear camera motion, and in cells of which nobody knows: they leave the view
    at once, or change while no track through them leads there and back. geometry["verdict"], uint8 (B,), indexes
    `VERDICTS` of motion_mask.py and counts the clips left out: 0 usable, 1 no texture, 2 a cut;
    geometry["known_ratio"], float32 (B,), is the share of cells with weight.

    Clips come as planes (pipelines/decode/clip_planes.py) or as RGB frames (B, T, H, W, 3).
    """

    name: ClassVar[str] = "motion_segmentation"
    source: ClassVar[Literal["image", "clip"]] = "clip"
    config_class: ClassVar[type[TaskConfig]] = MotionSegmentationConfig
    config: MotionSegmentationConfig

    def __init__(self, config: TaskConfig, canvas: CanvasSpec, *, lightness: bool = False) -> None:
        super().__init__(config, canvas, lightness=lightness)
        if canvas.num_frames < MIN_FRAMES:
            raise UsageError(
                f"tasks.motion_segmentation: num_frames = {canvas.num_frames}; "
                f"need at least {MIN_FRAMES} frames to tell motion from noise, the paper has 10."
            )
        if min(canvas.clip_height_px, canvas.clip_width_px) < MIN_SIDE_PX:
            raise UsageError(
                f"tasks.motion_segmentation: clips of {canvas.clip_height_px} x {canvas.clip_width_px} px; "
                f"need at least {MIN_SIDE_PX} px a side to find the camera's motion, the paper has 240 x 320."
            )
        self._engine()  # if it cannot be had, that is known now
        num_targets = self.config.remembered_clips
        self.targets = TargetCache(num_targets) if num_targets else None

    def draw(self, rng: Rng) -> Geometry:
        """Nothing is random: the target follows from the clip."""
        return {}

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        nothing = (None,) * len(keys)
        return self.make_cached(pixels, geometry, keys, CachedTargets(address=nothing, target=nothing))

    def make_cached(
        self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str], known: CachedTargets
    ) -> TaskBatch:
        planes = pixels if pixels.ndim == 4 else planes_of(pixels)
        targets = self._complete(planes[:, NUM_COLORS:], known)
        moving, weight, verdict = (np.stack(part) for part in zip(*targets, strict=True))
        return TaskBatch(
            task=self.name,
            inputs=self._inputs(planes[:, :NUM_COLORS]),
            target={"moving": torch.from_numpy(moving).to(pixels.device)},
            weight=torch.from_numpy(weight).to(pixels.device),
            keys=tuple(keys),
            geometry={**geometry, "verdict": verdict, "known_ratio": weight.mean(axis=(1, 2))},
        )

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        height, width = self.canvas.clip_height_px, self.canvas.clip_width_px
        cells = (batch_size, -(-height // STRIDE_PX), -(-width // STRIDE_PX))
        frame = (batch_size, 3, height, width)
        return {
            "inputs": TensorSpec(shape=frame, dtype=torch.float32, low=0.0, high=1.0),
            "moving": TensorSpec(shape=cells, dtype=torch.float32, low=0.0, high=1.0),
            "weight": TensorSpec(shape=cells, dtype=torch.float32, low=0.0, high=1.0),
        }

    def _inputs(self, frame_BCHW: torch.Tensor) -> torch.Tensor:
        if self.lightness:
            frame_BHWC = frame_BCHW.permute(0, 2, 3, 1).contiguous()
            return lightness(frame_BHWC).unsqueeze(1).expand(-1, 3, -1, -1)
        if frame_BCHW.device.type == "cpu":
            room = torch.from_numpy(self.memory.empty(tuple(frame_BCHW.shape), np.float32))
            return torch.div(frame_BCHW, 255.0, out=room)
        return frame_BCHW.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)

    def _complete(self, luma_BNHW: torch.Tensor, known: CachedTargets) -> list[Target]:
        """All targets: those known and, several clips at a time, the others."""
        targets = list(known.target)
        unknown = [row for row, target in enumerate(targets) if target is None]
        num_threads = min(self.config.num_threads or self.num_threads or num_cores(), len(unknown))

        def complete(row: int) -> None:
            targets[row] = self._label(luma_BNHW[row], known.address[row])

        if num_threads > 1:
            with ThreadPoolExecutor(num_threads) as pool:
                list(pool.map(complete, unknown))
        else:  # a thread of its own would begin with cold caches
            for row in unknown:
                complete(row)
        return targets

    def _label(self, luma_NHW: torch.Tensor, address: Hashable) -> Target:
        """The target of one clip, remembered if it has an address."""
        if self.targets is None or address is None:
            return self._target(luma_NHW.cpu().numpy())
        # By now another batch may have found it.
        target: Target = self.targets.get(address) or self._target(luma_NHW.cpu().numpy())
        self.targets.put(address, target)
        return target

    def _engine(self) -> FlowEngine:
        """A new one: it holds buffers and serves one thread; building one is a matter of microseconds."""
        return build_engine(self.config.engine, self.config.preset, self.config.raft_weights)

    def _target(self, gray_NHW: Bytes) -> Target:
        """moving (h, w), weight (h, w) and the verdict on one clip."""
        lengths = {"threshold_px": self.config.threshold_px, "reach_px": self.config.reach_px}
        label = label_clip(np.ascontiguousarray(gray_NHW), self._engine(), **lengths)
        verdict = VERDICTS.index(label.verdict)
        weight = (_num_true(label.is_known) >= STRIDE_PX**2 / 2) & (verdict == 0)
        moving = _num_true(label.moving) >= self.config.min_coverage * STRIDE_PX**2
        return moving.astype(np.float32), weight.astype(np.float32), np.uint8(verdict)


@compiled
def _num_true(mask_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """(h, w): how many are True in each 8 x 8 cell; cells cut by the border repeat their last pixels."""
    height, width = mask_HW.shape
    num_true = np.zeros((-(-height // STRIDE_PX), -(-width // STRIDE_PX)), np.int64)
    num_whole = width // STRIDE_PX
    for y in range(num_true.shape[0] * STRIDE_PX):
        row_W, row_w = mask_HW[min(y, height - 1)], num_true[y // STRIDE_PX]
        for cell in range(num_whole):
            for x in range(STRIDE_PX):
                row_w[cell] += row_W[cell * STRIDE_PX + x]
        for x in range(num_whole * STRIDE_PX, num_true.shape[1] * STRIDE_PX):
            row_w[num_whole] += row_W[min(x, width - 1)]
    return num_true
