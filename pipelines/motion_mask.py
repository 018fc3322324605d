"""From a clip to the pixels of its first frame that move on their own. Paper sections 2 and 3.4.

Points on a grid are tracked through the stabilized clip, as in improved dense trajectories, where camera motion is what
stays in place. A dense mask from tracks alone is blurred by half the tracker's window and takes along the background
that the object runs over; so tracks only propose motions, and the pixels decide which of them, if any, they follow:
the pixel must look the same along the motion, look different in place, and the motion must not be arguable, as on a
smooth surface, where every motion fits.

Letters: T frames, H W size, N points, K motions tried for each point. Gray levels 0 to 255; lengths in pixels.
A motion is float32 (T, N, 2): how far from its place in the first frame the point is at frame t, NaN when not seen.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.camera_motion import CameraPath, camera_path, rescaled, stabilize
from pipelines.flow import FlowEngine, look_up

__all__ = ["ClipLabel", "label_clip"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

TRACK_WIDTH_PX = 160
MASK_WIDTH_PX = 320
"""Points are tracked in frames of at most the first width and pixels judged at the second: cost grows with both."""
GRID_PX = 4
NUM_NEIGHBORS = 8
PATCH_PX = 5
SMOOTH_PX = 5

MIN_CHANGE = 1.5
MAX_CHANGED_RATIO = 0.7
"""More than this share of the frame changed: a cut, a fade or a flash."""
MIN_FRAMES_SEEN = 3
MISFIT_FACTOR = 2.0
"""A track must stray this many times further than the background does from the fitted camera motion."""
MAX_GRAY_DIFFERENCE = np.uint8(10)
"""Differences are cut here: beyond it a pixel is simply another one, and must not outvote its neighbours."""

# Chosen on 48 composites, none of whose photos and cut-outs is among those the results are reported on.
STILL_COST_RATIO = 0.7
MIN_STILL_GAIN = 0.5
ARGUABLE_COST_RATIO = 0.85
MIN_ARGUABLE_GAIN = 2.0
MIN_PIXEL_GAIN = 1.0
NUM_ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLabel:
    """What moves in one clip."""

    moving: Bools
    """(H, W) of the first frame."""
    is_seen: Bools
    """(H, W): inside the camera's view for long enough to tell."""
    is_reliable: bool
    """False for a cut or where no background motion fits; `moving` is then empty."""


def label_clip(gray_THW: Bytes, engine: FlowEngine, *, threshold_px: float = 2.0, reach_px: float = 16.0) -> ClipLabel:
    """The moving pixels of the first frame. Lengths are at a width of 320 px.

    threshold_px: tracks that stray less from the camera's motion belong to the background. reach_px: how far from a
    moving track moving pixels are looked for.
    """
    small_THW = _resized(gray_THW, TRACK_WIDTH_PX)
    path = camera_path(small_THW)
    steady_THW, inside_THW = stabilize(small_THW, path.matrices)
    change_HW = _change(steady_THW, inside_THW, path.misfit_px)
    is_reliable = path.is_reliable and bool(np.mean(change_HW > MIN_CHANGE) < MAX_CHANGED_RATIO)
    is_seen_HW = inside_THW[1:].sum(axis=0) >= min(MIN_FRAMES_SEEN, len(gray_THW) - 1)
    moving_HW = np.zeros((1, 1), bool)
    if is_reliable:
        points_N2, motion_TN2 = _proposals(steady_THW, inside_THW, change_HW, engine)
        moving_HW = _moving(_resized(gray_THW, MASK_WIDTH_PX), path, points_N2, motion_TN2, threshold_px, reach_px)
    size = gray_THW.shape[1:]
    return ClipLabel(moving=_enlarged(moving_HW, size), is_seen=_enlarged(is_seen_HW, size), is_reliable=is_reliable)


def _resized(gray_THW: Bytes, width_px: int) -> Bytes:
    """The frames made no wider than `width_px`."""
    height, width = gray_THW.shape[1:]
    if width <= width_px:
        return gray_THW
    size = width_px, max(1, round(height * width_px / width))
    return np.stack([cv2.resize(gray_HW, size, interpolation=cv2.INTER_AREA) for gray_HW in gray_THW])


def _enlarged(mask_HW: Bools, size: tuple[int, ...]) -> Bools:
    height, width = size
    return np.asarray(cv2.resize(mask_HW.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)


def _moving(
    gray_THW: Bytes, path: CameraPath, points_N2: Floats, motion_TN2: Floats, threshold_px: float, reach_px: float
) -> Bools:
    """(H, W): moving pixels, from points and motions of the small frames."""
    height, width = gray_THW.shape[1:]
    if not len(points_N2):
        return np.zeros((height, width), bool)
    scale = width / min(width, TRACK_WIDTH_PX)
    steady_THW, inside_THW = stabilize(gray_THW, rescaled(path.matrices, scale))
    least_px = max(threshold_px * width / MASK_WIDTH_PX, MISFIT_FACTOR * path.misfit_px * scale)
    points_N2 = (points_N2 + 0.5) * scale - 0.5
    seeds_N2, motion_TN2 = _seeds(steady_THW, points_N2, motion_TN2 * scale, least_px)
    return _grow(steady_THW, inside_THW, seeds_N2, motion_TN2, reach_px * width / MASK_WIDTH_PX)


def _change(steady_THW: Bytes, inside_THW: Bools, misfit_px: float) -> Floats:
    """(H, W): the greatest difference to the first frame, over what noise and misfit can explain."""
    smooth = [cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.0) for frame in steady_THW]
    slope_x, slope_y = (cv2.Sobel(smooth[0], cv2.CV_32F, *axes, scale=1 / 8) for axes in ((1, 0), (0, 1)))
    difference = np.stack([cv2.absdiff(frame, smooth[0]) for frame in smooth[1:]]) * inside_THW[1:]
    noise = 1.5 * float(np.median(difference[:, ::4, ::4])) + 0.5
    change = difference.max(axis=0) / (2 * noise + misfit_px * cv2.magnitude(slope_x, slope_y))
    return np.asarray(cv2.blur(change, (GRID_PX, GRID_PX)), np.float32)


def _proposals(steady_THW: Bytes, inside_THW: Bools, change_HW: Floats, engine: FlowEngine) -> tuple[Floats, Floats]:
    """The best textured point (N, 2) of every grid square in which something changed, and its motion."""
    height, width = (size // GRID_PX for size in change_HW.shape)
    texture = cv2.cornerMinEigenVal(steady_THW[0], 5, ksize=3)[: height * GRID_PX, : width * GRID_PX]
    squares = texture.reshape(height, GRID_PX, width, GRID_PX).swapaxes(1, 2).reshape(height, width, GRID_PX**2)
    best = squares.argmax(axis=2)
    rows, columns = np.indices(best.shape)
    y, x = rows * GRID_PX + best // GRID_PX, columns * GRID_PX + best % GRID_PX
    has_changed = change_HW[y, x] > MIN_CHANGE
    y, x = y[has_changed], x[has_changed]
    points_N2 = np.stack([x, y], axis=1).astype(np.float32)
    motion_TN2 = engine.tracks(steady_THW, points_N2) - points_N2
    motion_TN2[~inside_THW[:, y, x]] = np.nan
    return points_N2, motion_TN2


def _seeds(steady_THW: Bytes, points_N2: Floats, motion_TN2: Floats, threshold_px: float) -> tuple[Floats, Floats]:
    """The points that surely move, over the whole clip or over its first frames only, and their motion."""
    found_points, found_motion = [points_N2[:0]], [motion_TN2[:, :0]]
    # Limbs turn and faces change within a second; half of it still shows that they move.
    for num_frames in (len(steady_THW), len(steady_THW) // 2):
        is_seed_N, best_TN2 = _judge(steady_THW[:num_frames], points_N2, motion_TN2[:num_frames], threshold_px)
        later = np.full_like(motion_TN2[num_frames:, is_seed_N], np.nan)
        found_points.append(points_N2[is_seed_N])
        found_motion.append(np.concatenate([best_TN2[:, is_seed_N], later]))
        points_N2, motion_TN2 = points_N2[~is_seed_N], motion_TN2[:, ~is_seed_N]
    return np.concatenate(found_points), np.concatenate(found_motion, axis=1)


def _judge(steady_THW: Bytes, points_N2: Floats, motion_TN2: Floats, threshold_px: float) -> tuple[Bools, Floats]:
    """Which points surely move, and the motion of each: its own or, where that fits better, a neighbour's."""
    if not len(points_N2):
        return np.zeros(0, bool), motion_TN2
    distance_NN = ((points_N2[:, None] - points_N2) ** 2).sum(axis=2)
    near_NK = np.argsort(distance_NN, axis=1, kind="stable")[:, : NUM_NEIGHBORS + 1]
    cost_NK = _patch_cost(steady_THW, points_N2, motion_TN2[:, near_NK])
    motion_TN2 = motion_TN2[:, near_NK[np.arange(len(cost_NK)), cost_NK.argmin(axis=1)]]
    cost_N = cost_NK.min(axis=1)
    still_N = _patch_cost(steady_THW, points_N2, motion_TN2[:, :, None] * 0)[:, 0]
    # What the first frame alone costs along the motion: near nothing on a smooth surface, where nothing can be told.
    first_THW = np.broadcast_to(steady_THW[:1], steady_THW.shape)
    arguable_N = _patch_cost(first_THW, points_N2, motion_TN2[:, :, None])[:, 0]
    far_N = np.nanmax(np.linalg.norm(motion_TN2, axis=2), axis=0, initial=0.0) > threshold_px
    is_better_N = (cost_N < STILL_COST_RATIO * still_N) & (still_N - cost_N > MIN_STILL_GAIN)
    is_clear_N = (cost_N < ARGUABLE_COST_RATIO * arguable_N) & (arguable_N - cost_N > MIN_ARGUABLE_GAIN)
    return far_N & is_better_N & is_clear_N, motion_TN2


def _patch_cost(frames_THW: Bytes, points_N2: Floats, motion_TNK2: Floats) -> Floats:
    """(N, K): mean difference of a point's patch in the first frame to that along a motion; high if rarely seen."""
    side = np.arange(PATCH_PX, dtype=np.float32) - PATCH_PX // 2
    x_P, y_P = (axis.ravel() for axis in np.meshgrid(side, side))
    shape = motion_TNK2.shape[1:3]
    first_N1 = points_N2[:, None]
    wanted = np.tile(_patches(frames_THW[0], first_N1, x_P, y_P), shape[1])
    is_seen_TNK = np.isfinite(motion_TNK2[..., 0])
    place_TNK2 = first_N1 + np.where(is_seen_TNK[..., None], motion_TNK2, 0)
    total = np.zeros(shape, np.float32)
    for frame_HW, place_NK2, is_seen_NK in zip(frames_THW[1:], place_TNK2[1:], is_seen_TNK[1:], strict=True):
        difference = _difference(_patches(frame_HW, place_NK2, x_P, y_P), wanted)
        total += difference.reshape(*shape, -1).sum(axis=2, dtype=np.float32) * is_seen_NK
    count = is_seen_TNK[1:].sum(axis=0)
    return np.where(count >= MIN_FRAMES_SEEN, total / len(x_P) / np.maximum(count, 1), MAX_GRAY_DIFFERENCE)


def _patches(frame_HW: Bytes, centre_NK2: Floats, x_P: Floats, y_P: Floats) -> Bytes:
    """(N, K * P): the patches around K places of each of N points."""
    map_x, map_y = (
        (centre_NK2[..., axis, None] + offset_P).reshape(len(centre_NK2), -1)
        for axis, offset_P in enumerate((x_P, y_P))
    )
    patches = cv2.remap(frame_HW, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(patches, np.uint8)


def _difference(one: Bytes, other: Bytes) -> Bytes:
    return np.minimum(cv2.absdiff(one, other), MAX_GRAY_DIFFERENCE)


def _grow(steady_THW: Bytes, inside_THW: Bools, seeds_N2: Floats, motion_TN2: Floats, reach_px: float) -> Bools:
    """(H, W): pixels near a seed that follow the nearest seed's motion rather than stay."""
    height, width = steady_THW.shape[1:]
    moving = np.zeros((height, width), bool)
    if not len(seeds_N2):
        return moving
    low = np.floor(seeds_N2.min(axis=0) - reach_px).astype(int).clip(0)
    high = np.ceil(seeds_N2.max(axis=0) + reach_px + 1).astype(int).clip(max=(width, height))
    window = slice(low[1], high[1]), slice(low[0], high[0])
    nearest_HW, distance_HW = _nearest(seeds_N2 - low, tuple(high - low))
    is_known_TN = np.isfinite(motion_TN2[..., 0])
    motion_THW2 = np.where(is_known_TN[..., None], motion_TN2, 0)[:, nearest_HW]
    is_seen_THW = inside_THW[(slice(None), *window)] & is_known_TN[:, nearest_HW]
    gain_THW = _gains(steady_THW, window, motion_THW2)
    moving[window] = _decide(gain_THW, is_seen_THW[1:], motion_THW2[1:], distance_HW < reach_px)
    return moving


def _nearest(seeds_N2: Floats, size: tuple[int, int]) -> tuple[npt.NDArray[np.int64], Floats]:
    """For every pixel of a (width, height) window, the index of the nearest seed and the distance to it."""
    width, height = size
    x, y = np.rint(seeds_N2).astype(int).clip(0, (width - 1, height - 1)).T
    blank = np.full((height, width), 255, np.uint8)
    blank[y, x] = 0
    distance, region = cv2.distanceTransformWithLabels(blank, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    seed_of_region = np.zeros(region.max() + 1, np.int64)
    seed_of_region[region[y, x]] = np.arange(len(x))
    return seed_of_region[region], np.asarray(distance, np.float32)


def _gains(steady_THW: Bytes, window: tuple[slice, slice], motion_THW2: Floats) -> npt.NDArray[np.int16]:
    """(T-1, H, W) of the window: by how much moving explains a pixel of frame t better than staying."""
    first_HW = steady_THW[0][window]
    place_HW2 = _places(window)
    gains = np.empty((len(steady_THW) - 1, *first_HW.shape), np.int16)
    for frame_HW, motion_HW2, gain_HW in zip(steady_THW[1:], motion_THW2[1:], gains, strict=True):
        found = look_up(frame_HW, place_HW2 + motion_HW2)
        staying = _difference(frame_HW[window], first_HW)
        moving = _difference(found, first_HW)
        cv2.subtract(staying, moving, gain_HW, dtype=cv2.CV_16S)
    return gains


def _places(window: tuple[slice, slice]) -> Floats:
    """(H, W, 2): x and y of every pixel of a window."""
    y, x = np.mgrid[window]
    return np.stack([x, y], axis=2).astype(np.float32)


def _decide(gain_THW: npt.NDArray[np.int16], is_seen_THW: Bools, motion_THW2: Floats, is_near_HW: Bools) -> Bools:
    """Pixels that gain by moving, judged again without the frames in which the object of the last round covers them."""
    height, width = is_near_HW.shape
    came_from_THW2 = _places((slice(height), slice(width))) - motion_THW2
    is_open_THW = is_seen_THW
    moving = np.zeros(is_near_HW.shape, bool)
    for round_index in range(NUM_ROUNDS + 1):
        if round_index:
            object_HW = moving.astype(np.uint8)
            covered = [look_up(object_HW, maps_HW2, cv2.INTER_NEAREST) for maps_HW2 in came_from_THW2]
            is_open_THW = is_seen_THW & (np.stack(covered) == 0)
        gain_HW = _mean_where(gain_THW, is_open_THW, _mean_where(gain_THW, is_seen_THW, np.float32(0.0)))
        moving = (cv2.blur(gain_HW, (SMOOTH_PX, SMOOTH_PX)) > MIN_PIXEL_GAIN) & is_near_HW
    return moving


def _mean_where(values_THW: npt.NDArray[np.int16], mask_THW: Bools, otherwise: Floats | np.float32) -> Floats:
    count = mask_THW.sum(axis=0)
    mean = (values_THW * mask_THW).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, mean, otherwise).astype(np.float32)
