"""Motion segmentation: from one frame, tell which 8 x 8 px cells will move otherwise than the camera.

Cut: nothing; the input is the first frame of a clip. Frames 0, 1 and 2 make the target.
Drawn: nothing beyond the flip that all clips share.
Target: dense flow minus an affine camera motion, joined with colors by mean field; no labels.
Shortcuts: camera motion is subtracted, or "everything moves" would pay; cells that nobody can judge have weight 0.
Source: Pathak et al. 2017 as in the multi-task paper (Doersch & Zisserman 2017, sections 2 and 3.4); camera from the
    border as in Fast Object Segmentation (Papazoglou & Ferrari 2013); colors as in GrabCut (Rother et al. 2004).

The target is computed from the clip on the fly (pipelines/targets/motion/motion_mask.py), on the CPU. For clips on a
device, the planes of the first three frames are copied to the CPU and the target back; the inputs stay on the device.

Letters: B clips, T frames, N frames that the target is computed from, H W clip size, h w = H / 8, W / 8 rounded up.
"""

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator

from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores
from pipelines.decode.clip_planes import NUM_COLORS, planes_of
from pipelines.targets.color.lab import lightness
from pipelines.targets.motion.dense_flow import EngineName
from pipelines.targets.motion.flow_engines import EnginePool
from pipelines.targets.motion.motion_mask import VERDICTS, mask_clip
from pipelines.targets.motion.work_frames import CELL_PX
from pipelines.tasks.base import CanvasSpec, Geometry, Rng, Task, TaskBatch, TaskConfig, TensorSpec
from pipelines.tasks.target_cache import CachedTargets, TargetCache

__all__ = ["MotionSegmentation", "MotionSegmentationConfig"]

MIN_FRAMES = 2
MIN_SIDE_PX = 32
REMOVED_OPTIONS = ("preset", "threshold_px", "reach_px", "min_coverage")

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Target = tuple[Floats, Floats, np.uint8]


class MotionSegmentationConfig(TaskConfig):
    """What is left to choose: thresholds of the mask follow from the clip itself."""

    engine: EngineName = "dis"
    """Dense flow. "farneback" has less exact borders at a similar cost. "raft" is a network that was trained with true
    flow, about a second a clip on a CPU; "nvof" is the GPU's flow unit. Masks were tuned with "dis" only."""
    raft_weights: str = "default"
    """Of "raft": "default" downloads torchvision's, "random" tries the chain without, else the path of a file."""
    num_threads: int = Field(default=0, ge=0)
    """Clips worked on at once; 0 means as many as there are cores. The result does not depend on it."""
    remembered_clips: int = Field(default=4096, ge=0)
    """Targets kept in memory, h x w x 8 bytes each (10 kB at the paper's size; a clip has two, one for its mirror
    image), so that a small set of clips is labelled once and not in every epoch, and of a clip seen again only the
    first frame is decoded. 0 labels anew each time. The result does not depend on it."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_removed(cls, value: Any) -> Any:
        """Say what became of options of earlier versions."""
        # Before pydantic looks at it: its own message would call these options unknown, and not say why.
        if not isinstance(value, Mapping):
            return value
        if removed := [name for name in REMOVED_OPTIONS if name in value]:
            raise ValueError(
                f"{', '.join(removed)}: removed, because thresholds now follow from the clip's own noise; "
                "delete the line. Masks differ from those of earlier versions"
            )
        if value.get("engine") == "lucas_kanade":
            raise ValueError(
                "engine = 'lucas_kanade': removed, because masks are now made from dense flow; "
                "need 'dis' (the default; delete the line), 'farneback', 'raft' or 'nvof'"
            )
        return value


class MotionSegmentation(Task):
    """inputs (B, 3, H, W): the first frame. target: "moving" float32 (B, h, w), 0 or 1.

    weight (B, h, w): 0 in clips that are flat or cut, and in cells that nobody can judge: they leave the view at once,
    flicker, or the evidence is near even. geometry["verdict"], uint8 (B,), indexes `VERDICTS` of motion_mask.py and
    counts the clips left out: 0 usable, 1 no texture, 2 a cut; geometry["known_ratio"], float32 (B,), is the share of
    cells with weight.

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
                f"need at least {MIN_FRAMES} frames to see motion, 3 to see slow motion; the paper has 10."
            )
        if min(canvas.clip_height_px, canvas.clip_width_px) < MIN_SIDE_PX:
            raise UsageError(
                f"tasks.motion_segmentation: clips of {canvas.clip_height_px} x {canvas.clip_width_px} px; "
                f"need at least {MIN_SIDE_PX} px a side to find the camera's motion, the paper has 240 x 320."
            )
        self._engines = EnginePool(self.config.engine, self.config.raft_weights)  # fails now if it cannot be had
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
        targets = self._complete(planes, known)
        moving, weight, verdict = (np.stack(part) for part in zip(*targets, strict=True))
        return TaskBatch(
            task=self.name,
            inputs=self._inputs(planes[:, :NUM_COLORS]),
            target={"moving": torch.from_numpy(moving).to(pixels.device)},
            weight=torch.from_numpy(weight).to(pixels.device),
            keys=tuple(keys),
            # Into the geometry, where audits and `num_left_out` look.
            geometry={**geometry, "verdict": verdict, "known_ratio": weight.mean(axis=(1, 2))},
        )

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        height, width = self.canvas.clip_height_px, self.canvas.clip_width_px
        cells = (batch_size, -(-height // CELL_PX), -(-width // CELL_PX))
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
            # Fresh memory costs more in page faults than the division.
            room = torch.from_numpy(self.memory.empty(tuple(frame_BCHW.shape), np.float32))
            return torch.div(frame_BCHW, 255.0, out=room)
        return frame_BCHW.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)

    def _complete(self, planes_BCHW: torch.Tensor, known: CachedTargets) -> list[Target]:
        """Return all targets: those known and, several clips at a time, the others."""
        targets = list(known.target)
        unknown = [row for row, target in enumerate(targets) if target is None]
        num_threads = min(self.config.num_threads or self.num_threads or num_cores(), len(unknown))

        def complete(row: int) -> None:
            targets[row] = self._label(planes_BCHW[row], known.address[row])

        # Threads, since compiled loops hold no lock; more than clips would wait for nothing.
        if num_threads > 1:
            with ThreadPoolExecutor(num_threads) as pool:
                list(pool.map(complete, unknown))
        else:  # a thread of its own would begin with cold caches
            for row in unknown:
                complete(row)
        return targets

    def _label(self, planes_CHW: torch.Tensor, address: Hashable) -> Target:
        """Return the target of one clip; it is cached if it has an address."""
        if self.targets is None or address is None:
            return self._target(planes_CHW.cpu().numpy())
        # By now another batch may have found it.
        target: Target = self.targets.get(address) or self._target(planes_CHW.cpu().numpy())
        self.targets.put(address, target)
        return target

    def _target(self, planes_CHW: Bytes) -> Target:
        """Return moving (h, w), weight (h, w) and the verdict on one clip."""
        # An engine keeps buffers between calls, so that it serves one thread at a time.
        with self._engines.borrow() as engine:
            mask = mask_clip(planes_CHW[NUM_COLORS:], planes_CHW[:NUM_COLORS], engine)
        verdict = np.uint8(VERDICTS.index(mask.verdict))
        return mask.moving.astype(np.float32), mask.is_known.astype(np.float32), verdict
