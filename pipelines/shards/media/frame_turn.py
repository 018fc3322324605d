"""Turns of video frames: quarter turns and a mirror, from the display matrix that a file carries.

Phones store frames as the sensor sees them and a matrix that turns them. Front cameras mirror as well, which an angle
alone cannot say. Players, FFmpeg among them, apply the whole matrix, and so does this.
"""

import struct
from typing import Any, Final, NamedTuple

import av
import numpy as np
import numpy.typing as npt

__all__ = ["Turn", "turn_of", "turned"]

MATRIX_BYTES: Final = 36


class Turn(NamedTuple):
    """Turn that makes a frame upright: first clockwise by 0, 90, 180 or 270 degrees, then a mirror, left to right."""

    rotation_deg: int = 0
    is_mirrored: bool = False

    @property
    def is_none(self) -> bool:
        """Whether the frame is upright as it is."""
        return self == NONE


NONE: Final = Turn()


def turn_of(frame: av.VideoFrame) -> Turn:
    """Return the turn of a frame, rounded to quarters; none for a frame without a matrix."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")  # the library's stubs do not know that it has bytes
    return NONE if matrix is None else _turn(bytes(matrix))


def _turn(matrix: bytes) -> Turn:
    """Return the turn of nine 32-bit numbers: a matrix that a point (x, y, 1) is multiplied with from the left."""
    if len(matrix) < MATRIX_BYTES:
        return NONE
    x_to_x, x_to_y, _, y_to_x, y_to_y = struct.unpack_from("=5i", matrix)
    # A mirror changes the sign of the determinant, a turn does not.
    is_mirrored = x_to_x * y_to_y - x_to_y * y_to_x < 0
    # A mirror after the turn changes the sign of x; without it, only the turn is left.
    sign = -1 if is_mirrored else 1
    angle_deg = np.degrees(np.arctan2(x_to_y - sign * y_to_x, sign * x_to_x + y_to_y))
    return Turn(round(angle_deg / 90) % 4 * 90, is_mirrored)


def turned(pixels: npt.NDArray[Any], turn: Turn) -> npt.NDArray[Any]:
    """Turn pixels (H, W, C) upright: (H, W, C), or (W, H, C) after an odd number of quarter turns. A view."""
    upright = np.rot90(pixels, -(turn.rotation_deg // 90))
    return upright[:, ::-1] if turn.is_mirrored else upright
