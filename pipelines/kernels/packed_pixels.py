"""Pixels packed into one uint32 each, for compiled loops: red + 256 green + 65,536 blue.

One load reads a whole pixel.
"""

import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled

__all__ = ["PackedPixels", "channel_level", "pack_rgb"]

PackedPixels = npt.NDArray[np.uint32]


@compiled
def channel_level(pixel: np.uint32, channel: int) -> np.int32:
    """Return the level, 0 to 255, of red (channel 0), green (1) or blue (2)."""
    return (np.int32(pixel) >> np.int32(8 * channel)) & np.int32(255)


@compiled
def pack_rgb(red: np.int32, green: np.int32, blue: np.int32) -> np.uint32:
    """Return the packed pixel of three levels from 0 to 255."""
    return np.uint32(red | (green << np.int32(8)) | (blue << np.int32(16)))
