"""Choose the reduced size at which a JPEG is decoded: 1/2, 1/4 or 1/8.

The decoder shrinks in the DCT domain, where leaving out detail that a small canvas cannot show saves time.
"""

__all__ = ["jpeg_reduction"]

REDUCTIONS = (8, 4, 2)
MIN_SHRINKING = 2
"""Factor that is left to the resize. The decoder averages 2 x 2 pixels, the resize uses a wider, smoother triangle;
after decoding at twice the canvas the two differ by about one level. Larger is closer and slower."""


def jpeg_reduction(side_px: int, canvas_px: int) -> int:
    """Return the factor, 1, 2, 4 or 8, for a square of `side_px` that is shown at `canvas_px`.

    A box that starts and ends at multiples of the factor covers whole pixels of the reduced image.
    """
    return next((one for one in REDUCTIONS if side_px >= MIN_SHRINKING * one * canvas_px), 1)
