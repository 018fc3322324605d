import pytest

from pipelines.decode.jpeg_reduction import jpeg_reduction


@pytest.mark.parametrize(
    ("side_px", "expected"),
    [(1, 1), (511, 1), (512, 1), (1023, 1), (1024, 2), (2047, 2), (2048, 4), (4096, 8)],
)
def test_twice_the_canvas_is_left_to_the_resize(side_px: int, expected: int) -> None:
    assert jpeg_reduction(side_px, 256) == expected
