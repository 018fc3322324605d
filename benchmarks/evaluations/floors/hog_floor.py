"""HOG floor: accuracy of ridge regression on histograms of oriented gradients (Dalal and Triggs, 2005).

Images as the linear probe sees them, resized to a square; 9 directions, cells of 8 px, blocks of 2 x 2 cells. A trunk
that is not above it has learned no more than edges.

Letters: H, W height and width, C channels, N images, D features.
"""

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from benchmarks.evaluations.base import Context, Evaluation, Results, check_labelled
from benchmarks.evaluations.floors.ridge import Canvas, Floats, FloorConfig, run_floor

__all__ = ["EVALUATION", "HogFloorConfig", "oriented_gradients", "run"]

CELL_PX, NUM_DIRECTIONS, EPSILON = 8, 9, 1e-5


class HogFloorConfig(FloorConfig):
    """Options of the HOG floor."""

    side_px: int = Field(default=64, ge=16)
    """Side of the resized image, a multiple of 8: 64 gives 1,764 features. Cost grows with its sixth power."""

    @field_validator("side_px")
    @classmethod
    def _is_whole_cells(cls, value: int) -> int:
        if value % CELL_PX:
            raise ValueError(f"need a multiple of {CELL_PX}, the side of a cell")
        return value


def run(context: Context, config: HogFloorConfig) -> Results:
    """Return results named like the linear probe's. Raises UsageError or DataError."""
    return run_floor(context, config, lambda canvas: _descriptor(canvas, config.side_px))


def _descriptor(canvas_SS3: Canvas, side_px: int) -> Floats:
    small = cv2.resize(canvas_SS3, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return oriented_gradients(np.asarray(small, dtype=np.uint8))


def oriented_gradients(image_HWC: npt.NDArray[np.uint8]) -> Floats:
    """Return the descriptor of an image with sides of multiples of 8, (D,): as scikit-image's `hog` with L2-Hys."""
    image = image_HWC.astype(np.float64)
    # 1. Gradients of the channel in which they are largest; 0 at the border, where there is no neighbour.
    down, right = np.zeros_like(image), np.zeros_like(image)
    down[1:-1], right[:, 1:-1] = image[2:] - image[:-2], image[:, 2:] - image[:, :-2]
    size = np.hypot(down, right)
    channel = size.argmax(axis=2)[..., None]
    down, right, size = (np.take_along_axis(one, channel, axis=2)[..., 0] for one in (down, right, size))
    # 2. Their sizes, added up by direction in every cell.
    direction = (np.rad2deg(np.arctan2(down, right)) % 180 // (180 / NUM_DIRECTIONS)).astype(np.int64) % NUM_DIRECTIONS
    one_hot = (direction[..., None] == np.arange(NUM_DIRECTIONS)) * size[..., None]
    rows, columns = (side // CELL_PX for side in size.shape)
    cells = one_hot.reshape(rows, CELL_PX, columns, CELL_PX, NUM_DIRECTIONS).mean(axis=(1, 3))
    # 3. Blocks of 2 x 2 cells, of length 1, clipped at 0.2 and of length 1 again: strong edges count less.
    blocks = np.lib.stride_tricks.sliding_window_view(cells, (2, 2), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    flat = blocks.reshape(-1, 4 * NUM_DIRECTIONS)
    flat = np.minimum(flat / np.sqrt(np.square(flat).sum(axis=1, keepdims=True) + EPSILON**2), 0.2)
    flat = flat / np.sqrt(np.square(flat).sum(axis=1, keepdims=True) + EPSILON**2)
    descriptor: Floats = flat.ravel()
    return descriptor


EVALUATION = Evaluation(config_class=HogFloorConfig, run=run, check=check_labelled, needs_trunk=False)
