"""Motion segmentation: from one frame, tell which 8 x 8 px cells will move otherwise than the camera.

Cut: nothing; the input is the first frame of a clip. Frames 0, 1 and 2 make the target.
Drawn: nothing beyond the flip that all clips share.
Target: dense flow minus an affine camera motion, joined with colors by mean field; no labels.
Shortcuts: camera motion is subtracted, or "everything moves" would pay; cells that nobody can judge have weight 0.
Source: Pathak et al. 2017 as in the multi-task paper (Doersch & Zisserman 2017, sections 2 and 3.4); camera from the
    border as in Fast Object Segmentation (Papazoglou & Ferrari 2013); colors as in GrabCut (Rother et al. 2004).

The target is computed from the clip on the fly: on the CPU clip by clip (pipelines/targets/motion/motion_mask.py), on a
device for the whole batch (pipelines/targets/motion/device/), where nothing is copied to the host.

Letters: B clips, T frames, N frames that the target is computed from, H W clip size, h w = H / 8, W / 8 rounded up.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
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
Flow = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Target = tuple[Floats, Floats, np.uint8]
"""Of a clip on the CPU."""
MOVING, KNOWN = 1, 2
VERDICT_BIT = 2
"""Of a clip on a device the target is one uint8 (h, w): bits for moving and known, and from this bit on the verdict."""


class MotionSegmentationConfig(TaskConfig):
    """What is left to choose: thresholds of the mask follow from the clip itself."""

    engine: EngineName = "dis"
    """Dense flow. "farneback" has less exact borders at a similar cost. "raft" is a network that was trained with true
    flow, about a second a clip on a CPU; "nvof" is the GPU's flow unit. Masks were tuned with "dis" only. For clips on
    a device, "dis" and "farneback" are replaced by flow in torch (pipelines/targets/motion/device/torch_flow.py)."""
    device_masks: bool = True
    """Make masks of clips on a device there, all clips at once: 1 % of the cells differ from those made on the CPU.
    False copies the planes of the first three frames to the CPU and the target back, and makes them in threads, by
    `engine`."""
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
    cells with weight. Of masks made on a device, the verdict is `verdict_on_device`, and there is no known_ratio.

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
        self._flows: dict[torch.device, Flow] = {}
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
        if planes.device.type != "cpu" and self.config.device_masks:
            return self._make_on_device(planes, geometry, keys, known)
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

    def _make_on_device(
        self, planes: torch.Tensor, geometry: Geometry, keys: Sequence[str], known: CachedTargets
    ) -> TaskBatch:
        """Make the batch on the planes' device; the host waits for no value."""
        # Not at the top of the file: importing Kornia takes a second, which CPU pipelines and their workers need not
        # wait.
        from pipelines.targets.motion.device.batched_masks import mask_clips

        # 1. Masks of the clips without a cached target, all at once.
        targets: list[torch.Tensor | None] = list(known.target)
        if unknown := [row for row, target in enumerate(targets) if target is None]:
            chosen = planes if len(unknown) == len(targets) else planes[torch.tensor(unknown).to(planes.device)]
            masks = mask_clips(chosen, flow=self._flow_on(planes.device))
            packed = (
                MOVING * masks.moving + KNOWN * masks.is_known + (masks.verdict << VERDICT_BIT)[:, None, None]
            ).byte()
            for row, target in zip(unknown, packed.unbind(), strict=True):
                targets[row] = target
                if self.targets is not None and known.address[row] is not None:
                    # A copy: a view would keep the memory of the whole batch.
                    self.targets.put(known.address[row], target.clone())
        # 2. Unpacked, whether just made or cached.
        whole = torch.stack([target for target in targets if target is not None])
        return TaskBatch(
            task=self.name,
            inputs=self._inputs(planes[:, :NUM_COLORS]),
            target={"moving": (whole & MOVING).float()},
            weight=(whole & KNOWN).div(KNOWN),
            keys=tuple(keys),
            geometry=geometry,
            verdict_on_device=whole[:, 0, 0] >> VERDICT_BIT,
        )

    def _flow_on(self, device: torch.device) -> Flow:
        """Return the flow of `engine` on a device, built at first use."""
        from pipelines.targets.motion.device.flows import flow_on

        if device not in self._flows:
            self._flows[device] = flow_on(device, self.config.engine, self.config.raft_weights)
        return self._flows[device]

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
