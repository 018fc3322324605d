"""Clips with exact motion masks: a photo moved by a camera homography, and a cut-out moving over it.

Real pixels, synthetic composition. Lengths are in pixels of the first frame; clips are uint8 RGB (T, H, W, 3).
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "MadeCameraPath",
    "Composite",
    "camera_homographies",
    "cell_means",
    "compose",
    "iou",
    "random_composite",
]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STRIDE_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeCameraPath:
    """What the camera does from one frame to the next."""

    shift_px: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 0.0
    zoom: float = 1.0
    shake_px: float = 0.0
    """Standard deviation of a shift drawn anew for every frame: a hand-held camera."""
    tilt: float = 0.0
    """Perspective: change of the homography's bottom row per frame, times the frame's width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    clip: Pixels
    coverage: Floats
    """float32 (H, W) in [0, 1]: how much of each pixel of the first frame the moving object covers."""
    camera: Matrix
    """float64 (T, 3, 3): homography of the background from the first frame to frame t."""
    object_step_xy: tuple[float, float]
    """Shift of the object per frame relative to the background."""

    @property
    def mask(self) -> Bools:
        """bool (h, w): cells of the first frame at least half covered by the object."""
        return cell_means(self.coverage) >= 0.5


def cell_means(image_HW: npt.NDArray[Any]) -> Matrix:
    """Mean of every 8 x 8 cell; cells cut by the lower and right border take the mean of what they have."""
    height, width = image_HW.shape
    rows, columns = range(0, height, STRIDE_PX), range(0, width, STRIDE_PX)
    return np.array([[image_HW[y : y + STRIDE_PX, x : x + STRIDE_PX].mean() for x in columns] for y in rows])


def camera_homographies(
    path: MadeCameraPath, num_frames: int, height: int, width: int, rng: np.random.Generator
) -> Matrix:
    """First frame to frame t, float64 (T, 3, 3)."""
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


def compose(
    background: Pixels,
    cutout: Pixels | None,
    *,
    rng: np.random.Generator,
    camera: MadeCameraPath,
    object_height_px: float = 0.0,
    object_start_xy: tuple[float, float] = (0.0, 0.0),
    object_step_xy: tuple[float, float] = (0.0, 0.0),
    num_frames: int = 10,
    height: int = 240,
    width: int = 320,
    noise: float = 1.5,
) -> Composite:
    """A clip of `background` (RGB) seen by a moving camera, with `cutout` (RGBA or None) moving over it.

    `object_start_xy` is the centre of the cut-out in the first frame; `object_step_xy` its shift per frame, relative
    to the background.
    """
    scene = _cover(background, height, width, margin_ratio=0.25)
    scene_to_frame = _scene_to_frame(scene, height, width)
    frames, coverages = [], []
    homographies = camera_homographies(camera, num_frames, height, width, rng)
    for index, homography in enumerate(homographies):
        frame = _warp(scene, homography @ scene_to_frame, height, width, cv2.BORDER_REFLECT_101)
        coverage = np.zeros((height, width), np.float32)
        if cutout is not None:
            start = np.array(object_start_xy) + index * np.array(object_step_xy)
            placed, alpha = _place(cutout, homography, start, object_height_px, height, width)
            frame = frame * (1 - alpha[..., None]) + placed
            coverage = alpha
        noisy = frame + rng.normal(0.0, noise, frame.shape)
        frames.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        coverages.append(coverage)
    return Composite(clip=np.stack(frames), coverage=coverages[0], camera=homographies, object_step_xy=object_step_xy)


def random_composite(
    background: Pixels,
    cutout: Pixels | None,
    rng: np.random.Generator,
    *,
    kind: str = "all",
    height: int = 240,
    width: int = 320,
) -> Composite:
    """One clip: object 0.15 to 0.5 of the height, 1 to 6 px/frame (at 320 px width) over a camera moving by `kind`.

    `kind`: "static", "shift", "rotation", "zoom", "shake" or "all" at once.
    """
    scale = width / 320
    heading, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, 4) * scale
    camera = MadeCameraPath(
        shift_px=(speed * np.cos(heading), speed * np.sin(heading)) if kind in ("shift", "all") else (0.0, 0.0),
        rotation_deg=rng.uniform(-0.8, 0.8) if kind in ("rotation", "all") else 0.0,
        zoom=rng.uniform(0.985, 1.015) if kind in ("zoom", "all") else 1.0,
        shake_px=rng.uniform(0, 1) * scale if kind in ("shake", "all") else 0.0,
        tilt=rng.uniform(-0.004, 0.004) if kind == "all" else 0.0,
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


def iou(mask: Bools, reference: Bools) -> float:
    """Intersection over union; 1 where both are empty."""
    union = np.count_nonzero(mask | reference)
    return float(np.count_nonzero(mask & reference) / union) if union else 1.0


def _cover(image: Pixels, height: int, width: int, margin_ratio: float) -> Pixels:
    """The image resized so that it is larger than the frame by `margin_ratio`."""
    scale = (1 + margin_ratio) * max(height / image.shape[0], width / image.shape[1])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8)


def _scene_to_frame(scene: Pixels, height: int, width: int) -> Matrix:
    shift = np.eye(3)
    shift[:2, 2] = (width - scene.shape[1]) / 2, (height - scene.shape[0]) / 2
    return shift


def _warp(image: Pixels, matrix: Matrix, height: int, width: int, border: int) -> Floats:
    size = width, height
    warped = cv2.warpPerspective(image.astype(np.float32), matrix, size, flags=cv2.INTER_CUBIC, borderMode=border)
    return np.asarray(warped, np.float32)


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
