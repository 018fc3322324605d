"""All eight ways to show a frame, against FFmpeg where it is installed and against NumPy everywhere."""

import shutil
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from pipelines.shards.media.clip_bytes import ClipForm, RawClip, read_clips
from pipelines.shards.media.frame_turn import Turn, turn_of, turned
from pipelines.shards.media.videos import probe_video
from tests.made.films import numbered, write_film

Pixels = npt.NDArray[np.uint8]
ONE = 1 << 16
# Rows (x to x, x to y), (y to x, y to y); the turn; what it does to rows and columns of pixels.
SHOWN = {
    "as it is": ((1, 0, 0, 1), Turn(0, False), lambda pixels: pixels),
    "clockwise": ((0, 1, -1, 0), Turn(90, False), lambda pixels: pixels.swapaxes(0, 1)[:, ::-1]),
    "upside down": ((-1, 0, 0, -1), Turn(180, False), lambda pixels: pixels[::-1, ::-1]),
    "counterclockwise": ((0, -1, 1, 0), Turn(270, False), lambda pixels: pixels.swapaxes(0, 1)[::-1]),
    "mirrored, left to right": ((-1, 0, 0, 1), Turn(0, True), lambda pixels: pixels[:, ::-1]),
    "mirrored, top to bottom": ((1, 0, 0, -1), Turn(180, True), lambda pixels: pixels[::-1]),
    "mirrored at the diagonal": ((0, 1, 1, 0), Turn(90, True), lambda pixels: pixels.swapaxes(0, 1)),
    "mirrored at the other": ((0, -1, -1, 0), Turn(270, True), lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1]),
}


def film_shown(path: Path, matrix: tuple[int, int, int, int], scale: float = 1.0) -> Path:
    """An MP4 whose track has this display matrix, put into its bytes."""
    frames = [numbered(0b000000000001 + (index << 8)) for index in range(12)]
    film = write_film(path, frames, fps=10, max_b_frames=0)
    content = bytearray(film.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(value * ONE * scale) for value in matrix)
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    film.write_bytes(content)
    return film


def first_frame(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def first_clip(path: Path) -> RawClip:
    clip = next(read_clips(str(path), ClipForm(num_frames=5)))
    assert isinstance(clip, RawClip)
    return clip


@pytest.mark.parametrize("name", SHOWN)
def test_clips_are_shown_as_the_matrix_says(tmp_path: Path, name: str) -> None:
    matrix, turn, shown = SHOWN[name]
    film = film_shown(tmp_path / "v.mp4", matrix)
    frame = first_frame(film)
    assert turn_of(frame) == turn
    stored = frame.to_ndarray(format="rgb24").astype(int)
    np.testing.assert_array_equal(turned(stored, turn), shown(stored))
    clip = first_clip(film)
    assert np.abs(clip.frames[0].to_ndarray(format="rgb24") - shown(stored)).mean() < 4
    assert clip.facts["rotation_deg"] == turn.rotation_deg == probe_video(str(film), measure_gop=True).rotation_deg
    assert clip.facts.get("is_mirrored", False) is turn.is_mirrored


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("name", SHOWN)
def test_clips_are_shown_as_ffmpeg_shows_them(tmp_path: Path, name: str) -> None:
    film = film_shown(tmp_path / "v.mp4", SHOWN[name][0])
    clip = first_clip(film).frames[0]
    command = ["ffmpeg", "-v", "error", "-i", str(film), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    pixels = np.frombuffer(shown, np.uint8).reshape(clip.height, clip.width, 3)
    assert np.abs(clip.to_ndarray(format="rgb24").astype(int) - pixels).mean() < 4


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_scale_of_a_matrix_is_no_turn(tmp_path: Path, scale: float) -> None:
    assert turn_of(first_frame(film_shown(tmp_path / "v.mp4", (0, -1, -1, 0), scale))) == Turn(270, True)


def test_a_frame_without_a_matrix_is_upright() -> None:
    assert turn_of(av.VideoFrame(16, 16, "gray")).is_none
