"""From two frames of a clip to the cells of its first frame that move otherwise than the camera. Paper sections 2, 3.4.

Dense flow minus the camera's motion tells roughly what moves (pair_motion.py); colors, edges and how well the camera
alone explains a pixel tell where it ends. Both are joined on a grid of nodes of 4 x 4 pixels: colors of the moving part
and of its surroundings are learned from the clip itself (color_model.py), and mean field smooths (mean_field.py).

Letters: H W size of the clip, h w rows and columns of nodes and, in results, of cells of 8 x 8 pixels; T frames.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.targets.motion.camera_fit import TRUSTED_SLOPE, border_closeness, trust
from pipelines.targets.motion.color_model import color_bins, color_odds, node_colors
from pipelines.targets.motion.dense_flow import DenseFlow
from pipelines.targets.motion.mean_field import MARGIN, neighbour_ties, opinion_grid, smooth_odds
from pipelines.targets.motion.pair_motion import PairMotion, measure_clearest_motion, otsu_threshold
from pipelines.targets.motion.work_frames import CELL_PX, WORK_PER_NODE, node_grid, node_means, shrink

__all__ = ["SETTINGS", "VERDICTS", "ClipMask", "MaskSettings", "Verdict", "mask_clip"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Verdict = Literal["usable", "no_texture", "cut"]
VERDICTS: tuple[Verdict, ...] = ("usable", "no_texture", "cut")

MIN_SLOPE = 16.0
MIN_TEXTURE_RATIO = 0.02
"""A clip needs this share of nodes with such slopes, in gray levels a pixel times 8, or nothing can be followed."""
MAX_MISFIT = 10.0
MAX_MISFIT_RATIO = 0.5
"""If more of the frame is found nowhere in the later one, that is a cut, a fade or a flash."""
NEAR_NODES = 25
"""Still colors are learned from within about this many nodes of the moving part, which must be told from them."""
CORE_NODES = 3
VISIBLE_SLOPE = 16.0
"""Slopes, in gray levels a pixel times 8, at which half of a difference counts."""
MIN_NOISE_PX = 0.05
MAX_LOG_ODDS = 3.0
"""Of any single kind of evidence, so that none decides alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSettings:
    """Settings of the mask, chosen on DAVIS and composites together (benchmarks/records/MOTION.md)."""

    motion_power: float = 1.5
    """Exponent of the share of a difference that flow explains, as a factor of the stray motion."""
    threshold_ratio: float = 0.9
    """Threshold of stray motion, as a share of Otsu's."""
    max_noise_ratio: float = 8.0
    """Greatest threshold, as a multiple of the median stray motion: a few wild values must not hide what is slow."""
    change_weight: float = 0.9
    """Weight of differences that the camera leaves unexplained, relative to stray motion."""
    flat_ratio: float = 0.7
    """By how much less flat areas count: their flow is a guess, and they look the same wherever they move."""
    border_cost: float = 1.5
    """Log odds against motion at the border."""
    color_weight: float = 1.0
    smoothness: float = 2.0
    """See `neighbour_ties`."""
    num_rounds: int = 3
    """Times that colors are learned. Cost grows with it."""
    num_sweeps: int = 8
    """Of mean field in each round."""
    unknown_above: float = -3.0
    unknown_below: float = 0.5
    """Between these log odds a cell gets no weight: 22 to 55 of 100 such cells of DAVIS move."""
    least_px: float = 0.1
    """Least threshold of stray motion, in work pixels: noise alone would be split in two as well."""
    least_change: float = 8.0
    """Least threshold of differences, in gray levels, for the same reason."""
    min_change_ratio: float = 1.1
    """How much worse than the flow the camera must explain a moving region."""
    slow_px: float = 1.25
    """If the moving part strays less by the next frame, in work pixels, the frame after it is used instead."""


SETTINGS = MaskSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMask:
    """Mask of one clip, in cells of 8 x 8 px of its first frame; cells cut by the border count as whole ones."""

    moving: Bools
    """(h, w). Empty unless the verdict is "usable"."""
    is_known: Bools
    """(h, w): sure enough to learn from."""
    verdict: Verdict
    """"no_texture": too flat to find any motion. "cut": a cut, a fade or a flash."""


def mask_clip(gray_THW: Bytes, color_3HW: Bytes, engine: DenseFlow, settings: MaskSettings = SETTINGS) -> ClipMask:
    """Find the moving cells of the first frame.

    gray_THW: uint8, T = 2 or 3: the first frame, the next one and, for slow motion, the one after it.
    color_3HW: uint8, red, green and blue of the first frame.
    """
    # 1. A flat clip is left out before any flow is computed.
    height, width = gray_THW.shape[1:]
    cells = -(-height // CELL_PX), -(-width // CELL_PX)
    nodes = node_grid(height, width)
    first_HW = shrink(gray_THW[0], nodes, WORK_PER_NODE)
    texture_hw = _texture(first_HW)
    if np.mean(texture_hw > MIN_SLOPE) < MIN_TEXTURE_RATIO:
        return _left_out(cells, "no_texture")
    # 2. Motion comes before color: a cut shows in it, and it starts the color model.
    motion = measure_clearest_motion(first_HW, gray_THW[1:], trust(texture_hw), engine, settings.slow_px)
    if np.mean(motion.misfit_hw > MAX_MISFIT) > MAX_MISFIT_RATIO:
        return _left_out(cells, "cut")
    odds_hw = _segment(_motion_odds(motion, texture_hw, settings), node_colors(color_3HW, nodes), settings)
    # 3. From nodes to cells.
    return _cell_mask(odds_hw, motion, cells, settings)


def _left_out(cells: tuple[int, int], verdict: Verdict) -> ClipMask:
    """Return an empty mask, no cell of which is known."""
    nothing = np.zeros(cells, np.bool_)
    return ClipMask(moving=nothing, is_known=nothing, verdict=verdict)


def _texture(first_HW: Bytes) -> Floats:
    """Return the mean slope (h, w) of every node, in gray levels a pixel times 8."""
    slope_x, slope_y = (cv2.Sobel(first_HW, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))
    return node_means(cv2.magnitude(slope_x, slope_y))


def _motion_odds(motion: PairMotion, texture_hw: Floats, settings: MaskSettings) -> Floats:
    """Return log odds (h, w) that a node moves, from the two frames' motion alone."""
    # 1. Stray motion counts where the flow explains the later frame better than the camera does.
    explained_hw = (motion.change_hw + 0.5) / (motion.change_hw + motion.misfit_hw + 1)
    evidence_hw = np.asarray(motion.stray_hw * explained_hw**settings.motion_power, np.float32)
    most = settings.max_noise_ratio * max(float(np.median(motion.stray_hw)), MIN_NOISE_PX)
    threshold = max(min(settings.threshold_ratio * otsu_threshold(evidence_hw), most), settings.least_px)
    odds_hw = np.clip(np.log((evidence_hw + 1e-6) / (threshold + 1e-6)), -MAX_LOG_ODDS, MAX_LOG_ODDS)
    # Signs that flat areas move are worth less, and so are signs that they stay.
    odds_hw = _less_where_flat(odds_hw, odds_hw > 0, texture_hw, TRUSTED_SLOPE, settings.flat_ratio)
    # 2. Differences are sharper than flow, which is blurred by its patches.
    least = max(otsu_threshold(motion.change_hw), settings.least_change)
    change_hw = np.clip(np.log((motion.change_hw + 1) / (least + 1)), -MAX_LOG_ODDS, MAX_LOG_ODDS)
    change_hw = _less_where_flat(change_hw, change_hw < 0, texture_hw, VISIBLE_SLOPE, settings.flat_ratio)
    odds_hw += settings.change_weight * change_hw
    # 3. Objects are in the middle more often than at the border.
    odds_hw -= settings.border_cost * border_closeness(*odds_hw.shape)
    return np.asarray(odds_hw, np.float32)


def _less_where_flat(odds_hw: Floats, where_hw: Bools, texture_hw: Floats, slope: float, ratio: float) -> Floats:
    """Return log odds, some of them less by up to `ratio`: by half of that at slopes of `slope`."""
    flat_hw = slope**2 / (texture_hw * texture_hw + slope**2)
    return np.asarray(np.where(where_hw, odds_hw * (1 - ratio * flat_hw), odds_hw), np.float32)


def _segment(motion_hw: Floats, colors_hw3: Floats, settings: MaskSettings) -> Floats:
    """Return log odds (h, w) that a node moves, from its motion, its color and its neighbours."""
    ties = neighbour_ties(colors_hw3, settings.smoothness)
    bins_hw = color_bins(colors_hw3)
    opinions = opinion_grid(motion_hw)
    inner_hw = opinions[MARGIN:-MARGIN, MARGIN:-MARGIN]
    odds_hw = motion_hw
    for _ in range(settings.num_rounds):
        # 1. Moving colors from the core of what moves, still ones from its surroundings.
        share_hw = 0.5 + 0.5 * inner_hw
        core_hw = share_hw * cv2.blur(share_hw, (CORE_NODES, CORE_NODES)) ** 2
        near_hw = np.minimum(1, cv2.blur(share_hw, (NEAR_NODES, NEAR_NODES)) * (NEAR_NODES / 4)) + 0.02
        of_color_hw = color_odds(bins_hw, core_hw, (1 - share_hw) * near_hw)[bins_hw]
        # 2. Motion stays the evidence of every round; only color changes.
        color_hw = settings.color_weight * np.clip(of_color_hw, -MAX_LOG_ODDS, MAX_LOG_ODDS)
        odds_hw = smooth_odds(motion_hw + color_hw, ties, opinions, settings.num_sweeps)
    return odds_hw


def _cell_mask(odds_hw: Floats, motion: PairMotion, cells: tuple[int, int], settings: MaskSettings) -> ClipMask:
    """Return the mask of cells, from log odds of nodes."""
    # 1. Regions that flicker move for nobody: their share is 0, and their odds even, which makes them unknown.
    flickers_hw = _flickers(odds_hw, motion, settings)
    share_hw = np.where(flickers_hw, np.float32(0), 0.5 + 0.5 * np.tanh(odds_hw / 2))
    is_moving_hw = _to_cells(share_hw, cells) >= 0.5
    # 2. Even odds are unknown, and so is what is still but leaves the view at once.
    odds_hw = _to_cells(np.where(flickers_hw, np.float32(0), odds_hw), cells)
    is_unsure_hw = (odds_hw > settings.unknown_above) & (odds_hw < settings.unknown_below)
    is_seen_hw = _to_cells(motion.in_view_hw, cells) >= 0.5
    return ClipMask(moving=is_moving_hw, is_known=~is_unsure_hw & (is_moving_hw | is_seen_hw), verdict="usable")


def _to_cells(values_hw: npt.NDArray[Any], cells: tuple[int, int]) -> Floats:
    """Return the mean of each cell's nodes; between nodes where cells are smaller, in wide clips."""
    is_smaller = cells[0] <= values_hw.shape[0]
    way = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values_hw, cells[::-1], interpolation=way), np.float32)


def _flickers(odds_hw: Floats, motion: PairMotion, settings: MaskSettings) -> Bools:
    """Return which nodes (h, w) lie in a region of likely motion that flow explains no better than the camera does."""
    num_regions, region_hw = cv2.connectedComponents((odds_hw > 0).astype(np.uint8), connectivity=8)
    change, misfit = (
        np.bincount(region_hw.ravel(), difference_hw.ravel(), num_regions)
        for difference_hw in (motion.change_hw, motion.misfit_hw)
    )
    is_explained = change > settings.min_change_ratio * misfit
    is_explained[0] = True  # region 0 is what stays
    return np.asarray(~is_explained[region_hw], np.bool_)
