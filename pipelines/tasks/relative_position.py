"""Relative position: patches of one image in; for pairs of neighbours, where the second lies seen from the first.

Cut: rows x cols patches of a canvas, in a grid with gaps (`form: pairs`: two neighbours alone).
Drawn: the grid's place; how far each patch moves; which patches are scaled down and up again.
Target: for every ordered pair of neighbouring patches, where the second lies: 0 1 2 / 3 . 4 / 5 6 7 in reading order.
Shortcuts: gap and jitter against lines across borders, gray against color fringes, resampling against sharpness; 3 x 3
patches, so that the best guess from one patch's place is right 9 times in 40.
Source: Doersch et al. 2015 and their code (grids, 96/48/7 px, all neighbours both ways); Doersch & Zisserman 2017.

Letters: B samples, G grids on one canvas, R = B * G grids (of pairs: R = B * pairs_per_image), V patches of a grid (2
of a pair), K ordered pairs of neighbours in a grid, N = R * V patches, P patch side.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator

from pipelines.targets.views.guards import PatchGuards
from pipelines.targets.views.patch_colors import (
    NUM_NOISE_STARTS,
    Cuts,
    PatchColor,
    cut_patches,
)
from pipelines.targets.views.patch_grid import (
    DIRECTIONS_XY,
    NeighbourPairs,
    PatchGrid,
    neighbour_pairs,
    paper_lengths,
)
from pipelines.targets.views.resampling import smallest_px
from pipelines.tasks.base import (
    CanvasSpec,
    Geometry,
    Rng,
    Task,
    TaskBatch,
    TaskConfig,
    TensorSpec,
    check_fits,
    scaled_px,
)

__all__ = ["RelativePosition", "RelativePositionConfig"]

Int64s = npt.NDArray[np.int64]


class RelativePositionConfig(PatchGuards, TaskConfig):
    """Lengths left out are the original's: patches of 96 px, gaps of 48, jitter of 7 where `canvas_px` of the pipeline
    is 256, and scaled with it."""

    form: Literal["grid", "pairs"] = "grid"
    """grid: every patch goes through the trunk once, and all pairs of neighbours are formed behind it. pairs: two
    neighbours alone, as two patches of the trunk's work for one answer; their place on a canvas that hardly has room
    for them gives the answer away, so give them one of twice their length (`canvas_px`)."""
    rows: int = Field(default=3, ge=3, le=8)
    """Rows of a grid. Fewer than 3 would let one patch's place tell the answer."""
    cols: int = Field(default=3, ge=3, le=8)
    """Columns of a grid."""
    grids_per_image: int = Field(default=1, ge=1, le=16)
    """Grids cut from one canvas. The trunk's cost grows with it, decoding does not. The original has 4."""
    pairs_per_image: int = Field(default=1, ge=1, le=64)
    """With `form: pairs`: pairs cut from one canvas."""
    canvas_px: int | None = Field(default=None, ge=8, le=4096)
    """Side of the canvas that patches are cut from, decoded with the pipeline's but resized on its own. Left out, as
    large as the grid (398 px where the pipeline's is 256; for several grids a patch and a gap more), or, for pairs, the
    pipeline's. Where it is the pipeline's, no second resize is needed."""
    patch_px: int | None = Field(default=None, ge=1)
    """Side of a patch. Cost of the trunk grows with its square."""
    gap_px: int | None = Field(default=None, ge=0)
    """Between two patches before jitter. Larger makes the task harder and border continuity useless."""
    jitter_px: int | None = Field(default=None, ge=0)
    """Each patch moves by up to this much on each axis; left out, at most what fits the canvas."""
    color: PatchColor = "gray"
    """Against chromatic aberration, which tells a patch's place in the image. gray: lightness, the paper's input where
    tasks are harmonized; drop: one random channel is kept, noise in the others, as in the original; project: the
    green-magenta direction removed; keep: nothing done."""
    standardize: bool = True
    """Give every patch the same mean and contrast, as the original code does; what lies more than three deviations from
    the mean is cut off. Without it, borders of both patches alone answer 28 instead of 22 % of pairs at 96 px."""
    resample_probability: float = Field(default=0.33, ge=0, le=1)
    """Chance that a patch is scaled down (to 1/9 of its side at least) and up again, as in the original code."""

    @model_validator(mode="after")
    def _check_form(self) -> "RelativePositionConfig":
        if self.form == "grid" and self.pairs_per_image > 1:
            raise ValueError(
                f"pairs_per_image = {self.pairs_per_image} belongs to form: pairs. A grid gives all its pairs "
                f"({len(neighbour_pairs(self.rows, self.cols).first)} of {self.rows} x {self.cols} patches): leave it "
                "out and set grids_per_image, or set form: pairs"
            )
        if self.form == "pairs" and self.grids_per_image > 1:
            raise ValueError(
                f"grids_per_image = {self.grids_per_image} belongs to form: grid; with form: pairs set pairs_per_image"
            )
        return self


class RelativePosition(Task):
    """inputs (R, V, 3, P, P). Of grids, target "position" int64 (R, K), 0 to 7, and "pair_first", "pair_second" (R, K),
    which patches a pair is of; weight (R, K). Of pairs, inputs (R, 2, 3, P, P), "position" and weight (R,)."""

    name: ClassVar[str] = "relative_position"
    source: ClassVar[Literal["image", "clip"]] = "image"
    config_class: ClassVar[type[TaskConfig]] = RelativePositionConfig
    config: RelativePositionConfig

    def __init__(self, config: TaskConfig, canvas: CanvasSpec, *, lightness: bool = False) -> None:
        super().__init__(config, canvas, lightness=lightness)
        self.is_grid = self.config.form == "grid"
        self.grid, self._canvas_px = self._fitted_grid() if self.is_grid else self._fitted_pair()
        fix = "Lower patch_px, gap_px or jitter_px, or raise canvas_px."
        check_fits(self.name, self.grid.needed_px, self._canvas_px, fix)

    @property
    def canvas_px(self) -> int:
        return self._canvas_px

    @property
    def patch_px(self) -> int:
        return self.grid.patch_px

    @property
    def examples_per_sample(self) -> int:
        return self.config.grids_per_image if self.is_grid else self.config.pairs_per_image

    @property
    def color(self) -> PatchColor:
        """What is done to colors; harmonized input replaces it by lightness."""
        return "gray" if self.lightness else self.config.color

    @property
    def pairs(self) -> NeighbourPairs:
        """The questions of one example; the position of `form: pairs` is drawn and stands in the geometry."""
        if self.is_grid:
            return neighbour_pairs(self.grid.rows, self.grid.cols)
        return NeighbourPairs(first=np.array([0]), second=np.array([1]), position=np.array([-1]))

    def places(self, geometry: Geometry) -> tuple[Int64s, Int64s]:
        """Where the first patch of every pair lies, and the label: int64 (M, 2) corners (x, y) and (M,), of a batch's
        geometry. For `pair_geometry.place_leak`."""
        pairs, corner_xy = self.pairs, geometry["corner_xy"]
        # Pairs of one grid share its labels, pairs of `form: pairs` have drawn theirs.
        first_xy = corner_xy[:, :, pairs.first].reshape(-1, 2).astype(np.int64)
        if not self.is_grid:
            return first_xy, geometry["position"].reshape(-1)
        return first_xy, np.tile(pairs.position, len(first_xy) // len(pairs.position))

    def _fitted_grid(self) -> tuple[PatchGrid, int]:
        """The grid and the side of its canvas; of the two the one that is given decides."""
        config, scale_px = self.config, self.canvas.canvas_px
        cells, side = max(config.rows, config.cols), config.canvas_px
        # 1. The original's lengths; on a canvas that is given, in the proportion that fits it.
        if side is None:
            patch_px, gap_px, jitter_px = (scaled_px(one, scale_px) for one in (96, 48, 7))
        else:
            patch_px, gap_px, jitter_px = paper_lengths(side, scale_px, cells)
        # 2. What is given wins; lengths that are left out share the room that the patches leave, the gap before the
        # jitter.
        patch_px = config.patch_px or patch_px
        if config.gap_px is not None:
            gap_px = config.gap_px
        elif side is not None:
            gap_px = max(0, min(gap_px, (side - cells * patch_px) // (cells - 1)))
        if config.jitter_px is not None:
            jitter_px = config.jitter_px
        elif side is not None:
            jitter_px = max(0, min(jitter_px, (side - cells * patch_px - (cells - 1) * gap_px) // 2))
        grid = PatchGrid(rows=config.rows, cols=config.cols, patch_px=patch_px, gap_px=gap_px, jitter_px=jitter_px)
        if side is None:
            # Several grids of one image must not lie on each other: the original moves each by up to a patch and a gap.
            side = grid.needed_px + (patch_px + gap_px if config.grids_per_image > 1 else 0)
        return grid, side

    def _fitted_pair(self) -> tuple[PatchGrid, int]:
        """As if of a grid of 2 x 2: a pair may lie along either axis."""
        config, scale_px = self.config, self.canvas.canvas_px
        side = config.canvas_px or scale_px
        patch_px = config.patch_px or scaled_px(96, scale_px)
        gap_px = scaled_px(48, scale_px) if config.gap_px is None else config.gap_px
        jitter_px = config.jitter_px
        if jitter_px is None:
            jitter_px = max(0, min(scaled_px(7, scale_px), (side - 2 * patch_px - gap_px) // 2))
        return PatchGrid(rows=2, cols=2, patch_px=patch_px, gap_px=gap_px, jitter_px=jitter_px), side

    def draw(self, rng: Rng) -> Geometry:
        """corner_xy (G, V, 2), top left corners; resample_px (G, V), side that a patch is scaled down to, P for none;
        for color drop, channel and noise_start (G, V); for jpeg_quality, that (G, V).

        Places come first, so that no other option moves a patch. Of pairs, position (pairs,) comes before them, and
        channel and noise_start are always drawn.
        """
        if not self.is_grid:
            return self._draw_pairs(rng)
        # In the order of the docstring: a draw that came in between would change all later ones.
        shape = (self.config.grids_per_image, self.grid.num_patches)
        corner_xy = self.grid.draw(rng, self.canvas_px, self.config.grids_per_image)
        geometry: Geometry = {"corner_xy": corner_xy.astype(np.int32), "resample_px": self._resample_px(rng, shape)}
        if self.color == "drop":
            geometry["channel"] = rng.integers(0, 3, shape)
            geometry["noise_start"] = rng.integers(0, NUM_NOISE_STARTS, shape)
        return geometry | self.config.draw(rng, shape)

    def _draw_pairs(self, rng: Rng) -> Geometry:
        pairs = (self.config.pairs_per_image, 2)
        # The direction before the place: the room for a pair depends on it.
        position = rng.integers(0, len(DIRECTIONS_XY), pairs[:1])
        corner_xy = self._pair_corners(rng, DIRECTIONS_XY[position])
        return {
            "position": position,
            "corner_xy": corner_xy.astype(np.int32),
            "channel": rng.integers(0, 3, pairs),
            "noise_start": rng.integers(0, NUM_NOISE_STARTS, pairs),
            "resample_px": self._resample_px(rng, pairs),
            **self.config.draw(rng, pairs),
        }

    def _pair_corners(self, rng: Rng, direction_xy: Int64s) -> Int64s:
        """The pair's place is uniform over the canvas on each axis; then each patch jitters on its own."""
        grid = self.grid
        step_px = direction_xy * (grid.patch_px + grid.gap_px)
        # Room for the jitter is left on both sides, so that no patch leaves the canvas.
        room_px = self.canvas_px - grid.patch_px - np.abs(step_px) - grid.jitter_px
        first = rng.integers(grid.jitter_px, room_px + 1)
        # `first` is the smaller corner on each axis; the first patch is the larger one where the second lies left or
        # above.
        centre = first - np.minimum(step_px, 0)
        corner_xy = np.stack([centre, centre + step_px], axis=-2)
        pairs = (self.config.pairs_per_image, 2, 2)
        return np.asarray(corner_xy + rng.integers(-grid.jitter_px, grid.jitter_px + 1, pairs), np.int64)

    def _resample_px(self, rng: Rng, shape: tuple[int, int]) -> Int64s:
        """Side to which a patch is scaled down, its area uniform; P where it is left alone."""
        smallest, largest = smallest_px(self.patch_px), max(self.patch_px - 1, 1)
        # Drawn for all patches, also those left alone: the chance must not move what is drawn after it.
        side = np.sqrt(rng.random(shape) * (largest**2 - smallest**2) + smallest**2)
        is_resampled = rng.random(shape) < self.config.resample_probability
        return np.where(is_resampled, np.rint(side).astype(np.int64), self.patch_px)

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        cuts = Cuts.of(geometry)
        standardize = self.config.standardize
        inputs = cut_patches(pixels, cuts, self.color, self.patch_px, self.memory, standardize=standardize)
        num_rows, num_patches = len(keys) * self.examples_per_sample, geometry["corner_xy"].shape[2]
        target = self._target(geometry, num_rows, pixels.device)
        return TaskBatch(
            task=self.name,
            inputs=inputs.view(num_rows, num_patches, 3, self.patch_px, self.patch_px),
            target=target,
            weight=torch.ones(target["position"].shape, device=pixels.device),
            keys=tuple(keys),
            geometry=geometry,
        )

    def _target(self, geometry: Geometry, num_rows: int, device: torch.device) -> dict[str, torch.Tensor]:
        if not self.is_grid:
            position = np.ascontiguousarray(geometry["position"].reshape(-1))
            return {"position": torch.from_numpy(position).to(device)}
        # The same for every grid, so once in memory.
        pairs = self.pairs
        numbers = {"position": pairs.position, "pair_first": pairs.first, "pair_second": pairs.second}
        return {name: torch.from_numpy(one).to(device).expand(num_rows, -1) for name, one in numbers.items()}

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        rows, side = batch_size * self.examples_per_sample, self.patch_px
        num_patches = self.grid.num_patches if self.is_grid else 2
        asked = (rows, len(self.pairs.first)) if self.is_grid else (rows,)
        spec = {
            "inputs": TensorSpec(shape=(rows, num_patches, 3, side, side), dtype=torch.float32, low=0, high=1),
            "position": TensorSpec(shape=asked, dtype=torch.int64, low=0, high=len(DIRECTIONS_XY) - 1),
            "weight": TensorSpec(shape=asked, dtype=torch.float32, low=0, high=1),
        }
        if self.is_grid:
            which = TensorSpec(shape=asked, dtype=torch.int64, low=0, high=num_patches - 1)
            spec |= {"pair_first": which, "pair_second": which}
        return spec
