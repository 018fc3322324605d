"""How far a JPEG may be decoded at reduced size: 1/2, 1/4 or 1/8, inside the decoder, where it costs nothing to leave
out what a small canvas cannot show.
"""

__all__ = ["reduction"]

REDUCTIONS = (8, 4, 2)
MIN_SHRINKING = 2
"""How much is left to the resize. The decoder averages 2 x 2 pixels where the resize's triangle is wider and smoother;
after a reduction to twice the canvas about a level of that difference is left."""


def reduction(side_px: int, canvas_px: int) -> int:
    """Of a square of this side, shown at `canvas_px`: 1, 2, 4 or 8. A box that starts and ends at multiples of it is a
    box of whole pixels in the reduced image, too."""
    return next((one for one in REDUCTIONS if side_px >= MIN_SHRINKING * one * canvas_px), 1)
