"""Sizes that motion masks are computed at: a small work frame, nodes of 2 x 2 of its pixels, cells of 2 x 2 nodes.

A cell is 8 x 8 px of the clip. At widths up to 320 px a node is 4 x 4 px of the clip and a work pixel 2 x 2; wider
clips are shrunk more. Letters: H W size of a work frame, h w rows and columns of nodes.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["CELL_PX", "WORK_PER_NODE", "node_grid", "node_means", "shrink"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

CELL_PX = 8
MAX_WIDTH_PX = 320
"""Wider clips are shrunk to this width, so that cost does not grow; smaller objects than its cells are not found."""
NODES_PER_CELL = 2
WORK_PER_NODE = 2


def node_grid(height_px: int, width_px: int) -> tuple[int, int]:
    """Return rows and columns of nodes of a clip: two per cell, fewer where it is wider than `MAX_WIDTH_PX`."""
    scale = max(1.0, width_px / MAX_WIDTH_PX)
    rows, columns = (-(-round(side / scale) // CELL_PX) * NODES_PER_CELL for side in (height_px, width_px))
    return rows, columns


def shrink(plane: Bytes, nodes: tuple[int, int], per_node: int) -> Bytes:
    """Return a plane of the clip at `per_node` x `per_node` pixels a node, uint8.

    Cells that the clip's border cuts repeat its last pixels.
    """
    bottom, right = (-side % CELL_PX for side in plane.shape)
    if bottom or right:
        plane = np.asarray(cv2.copyMakeBorder(plane, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
    size = nodes[1] * per_node, nodes[0] * per_node
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint8)


def node_means(image_HW: npt.NDArray[Any]) -> Floats:
    """Return means (h, w[, C]) of a work frame's or a flow's values in every node."""
    height, width = image_HW.shape[:2]
    size = width // WORK_PER_NODE, height // WORK_PER_NODE
    return np.asarray(cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA), np.float32)
