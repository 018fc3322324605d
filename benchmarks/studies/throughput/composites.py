"""Clips with exact motion masks: a photo moved by a camera homography, and a cut-out moving over it.

Real pixels, synthetic composition. Lengths are in pixels of the first frame; clips are uint8 RGB (T, H, W, 3).
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Composite", "MadeCameraPath", "camera_homographies", "cell_means", "compose", "iou", "random_composite"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Point = tuple[float, float]

STRIDE_PX = 8
MARGIN_RATIO = 0.25
"""By how much the scene is larger than the frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeCameraPath:
    """What the camera does from one frame to the next. shake_px: standard deviation of a shift drawn anew for every
    frame, as of a hand-held camera. tilt: change of the homography's bottom row, times the frame's width."""

    shift_px: Point = (0.0, 0.0)
    rotation_deg: float = 0.0
    zoom: float = 1.0
    shake_px: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """clip: the pixels. coverage: float32 (H, W) in [0, 1], how much of each pixel of the first frame the moving object
    covers. camera: float64 (T, 3, 3), homography of the background from the first frame to frame t. object_step_xy:
    shift of the object per frame relative to the background."""

    clip: Pixels
    coverage: Floats
    camera: Matrix
    object_step_xy: Point

    @property
    def mask(self) -> Bools:
        """bool (h, w): cells of the first frame at least half covered by the object."""
        return cell_means(self.coverage) >= 0.5


def cell_means(image_HW: npt.NDArray[Any]) -> Matrix:
    """Return the mean of every 8 x 8 cell; of cells cut by the border, the mean of what they have."""
    height, width = image_HW.shape
    rows, columns = range(0, height, STRIDE_PX), range(0, width, STRIDE_PX)
    return np.array([[image_HW[y : y + STRIDE_PX, x : x + STRIDE_PX].mean() for x in columns] for y in rows])


def iou(mask: Bools, reference: Bools) -> float:
    """Return intersection over union; 1 where both are empty."""
    union = np.count_nonzero(mask | reference)
    return float(np.count_nonzero(mask & reference) / union) if union else 1.0


def random_composite(
    background: Pixels,
    cutout: Pixels | None,
    rng: np.random.Generator,
    *,
    kind: str = "all",
    height: int = 240,
    width: int = 320,
) -> Composite:
    """Compose one clip: object 0.15 to 0.5 of the height, 1 to 6 px/frame (at 320 px width) over a camera moving by
    `kind`: "static", "shift", "rotation", "zoom", "shake" or "all" at once."""
    scale, moves = width / 320, {kind} if kind != "all" else {"shift", "rotation", "zoom", "shake", "all"}
    heading, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, 4) * scale
    camera = MadeCameraPath(
        shift_px=(speed * np.cos(heading), speed * np.sin(heading)) if "shift" in moves else (0.0, 0.0),
        rotation_deg=rng.uniform(-0.8, 0.8) if "rotation" in moves else 0.0,
        zoom=rng.uniform(0.985, 1.015) if "zoom" in moves else 1.0,
        shake_px=rng.uniform(0, 1) * scale if "shake" in moves else 0.0,
        tilt=rng.uniform(-0.004, 0.004) if "all" in moves else 0.0,
    )
    heading, speed = rng.uniform(0, 2 * np.pi), rng.uniform(1, 6) * scale
    return compose(
        background,
        cutout,
        rng=rng,
        camera=camera,
        object_height_px=rng.uniform(0.15, 0.5) * height,
        object_start_xy=(rng.uniform(0.2, 0.8) * width, rng.uniform(0.25, 0.75) * height),
        object_step_xy=(speed * np.cos(heading), speed * np.sin(heading)),
        height=height,
        width=width,
    )


def compose(
    background: Pixels,
    cutout: Pixels | None,
    *,
    rng: np.random.Generator,
    camera: MadeCameraPath,
    object_height_px: float = 0.0,
    object_start_xy: Point = (0.0, 0.0),
    object_step_xy: Point = (0.0, 0.0),
    num_frames: int = 10,
    height: int = 240,
    width: int = 320,
    noise: float = 1.5,
) -> Composite:
    """Compose a clip of `background` (RGB) seen by a moving camera, with `cutout` (RGBA or None) moving over it.

    `object_start_xy` is the centre of the cut-out in the first frame; `object_step_xy` its shift per frame, relative
    to the background.
    """
    # 1. The scene is larger than the frame, so that the camera has room to move.
    scale = (1 + MARGIN_RATIO) * max(height / background.shape[0], width / background.shape[1])
    size = round(background.shape[1] * scale), round(background.shape[0] * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scene = np.asarray(cv2.resize(background, size, interpolation=method), np.float32)
    to_frame, homographies = np.eye(3), camera_homographies(camera, num_frames, height, width, rng)
    to_frame[:2, 2] = (width - size[0]) / 2, (height - size[1]) / 2
    # 2. Frame by frame: background, object over it, noise of a sensor.
    frames, coverages = [], []
    bicubic: dict[str, Any] = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REFLECT_101}
    for index, homography in enumerate(homographies):
        frame = np.asarray(cv2.warpPerspective(scene, homography @ to_frame, (width, height), **bicubic), np.float32)
        coverage = np.zeros((height, width), np.float32)
        if cutout is not None:
            start = np.array(object_start_xy) + index * np.array(object_step_xy)
            placed, coverage = _place(cutout, homography, start, object_height_px, height, width)
            frame = frame * (1 - coverage[..., None]) + placed
        noisy = frame + rng.normal(0.0, noise, frame.shape)
        frames.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        coverages.append(coverage)
    return Composite(clip=np.stack(frames), coverage=coverages[0], camera=homographies, object_step_xy=object_step_xy)


def camera_homographies(
    path: MadeCameraPath, num_frames: int, height: int, width: int, rng: np.random.Generator
) -> Matrix:
    """Return homographies from the first frame to frame t, float64 (T, 3, 3)."""
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1.0]])
    angle = np.deg2rad(path.rotation_deg)
    cos, sin = path.zoom * np.cos(angle), path.zoom * np.sin(angle)
    step = np.array([[cos, -sin, path.shift_px[0]], [sin, cos, path.shift_px[1]], [path.tilt / width, 0, 1.0]])
    step = centre @ step @ np.linalg.inv(centre)
    result = [np.eye(3)]
    for _ in range(num_frames - 1):
        shake = np.eye(3)
        shake[:2, 2] = rng.normal(0.0, path.shake_px, 2)
        result.append(shake @ step @ result[-1])
    return np.stack(result)


def _place(
    cutout: Pixels, homography: Matrix, centre_xy: Matrix, object_height_px: float, height: int, width: int
) -> tuple[Floats, Floats]:
    """Colour times alpha, float32 (H, W, 3), and alpha, float32 (H, W), of the cut-out in one frame."""
    rows = np.flatnonzero(cutout[..., 3].max(axis=1) > 127)
    columns = np.flatnonzero(cutout[..., 3].max(axis=0) > 127)
    trimmed = cutout[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    scale = object_height_px / trimmed.shape[0]
    size = max(1, round(trimmed.shape[1] * scale)), max(1, round(trimmed.shape[0] * scale))
    alpha = trimmed[..., 3:] / 255
    premultiplied = np.concatenate([trimmed[..., :3] * alpha, alpha], axis=-1)
    resized = cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    shift = np.eye(3)
    shift[:2, 2] = centre_xy - (np.array(size) - 1) / 2
    warped = cv2.warpPerspective(resized, homography @ shift, (width, height), flags=cv2.INTER_LINEAR)
    placed = np.asarray(warped, np.float32)
    return placed[..., :3], np.clip(placed[..., 3], 0, 1)
