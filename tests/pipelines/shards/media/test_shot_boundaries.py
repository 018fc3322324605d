from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from pipelines.shards.media.shot_boundaries import FLASH_FRAMES, SmallFrame, mark_cuts, mismatch, motion_of, small_frame

VIDEOS = Path(__file__).parents[4] / "../shared/data/videos"
# Found by looking at every frame. kinetics_3 pans fast and has no cut.
REAL_CUTS = {
    "bikes.mp4": [30, 76, 137, 187, 242],
    "kinetics_1.mp4": [],
    "kinetics_2.mp4": [138, 219, 292],
    "kinetics_3.mp4": [],
    "hmdb_wave_1.avi": [],
    "hmdb_wave_3.avi": [19],
    "ucf_juggling_1.avi": [],
}


def scene(seed: int, height: int = 20, width: int = 32) -> SmallFrame:
    """A random picture whose contrast grows with the size of its parts, as in photos; (H, W, 3) uint8 YUV."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128.0)
    for part_px in (4, 8, 16):
        coarse = rng.uniform(-3.5, 3.5, (height // part_px + 2, width // part_px + 2, 3)) * [1, 0.3, 0.3] * part_px
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return picture.clip(0, 255).astype(np.uint8)


def shot(seed: int, count: int, step_px: int = 0, noise: float = 2.0) -> list[SmallFrame]:
    """`count` frames of one scene, with noise, the camera panning by `step_px` a frame."""
    rng = np.random.default_rng(seed + 1000)
    wide = scene(seed, width=32 + count * abs(step_px))
    views = [wide[:, step_px * index : step_px * index + 32] for index in range(count)]
    return [(view + rng.normal(0, noise, view.shape)).clip(0, 255).astype(np.uint8) for view in views]


def cuts_in(frames: list[SmallFrame], threshold: float = 1.2) -> list[int]:
    return [index for index, is_cut in mark_cuts(range(len(frames)), lambda i: frames[i], threshold) if is_cut]


def test_cut_between_scenes_is_found() -> None:
    assert cuts_in([*shot(1, 10), *shot(2, 12), *shot(3, 8)]) == [10, 22]


def test_cut_near_both_ends_is_found() -> None:
    assert cuts_in([*shot(1, 1), *shot(2, 12)]) == [1]
    assert cuts_in([*shot(1, 12), *shot(2, 1)]) == [12]


@pytest.mark.parametrize("step_px", [1, 3, 6])
def test_pan_is_no_cut(step_px: int) -> None:
    assert cuts_in(shot(4, 40, step_px)) == []


def test_cut_in_a_fast_pan_is_found() -> None:
    assert cuts_in([*shot(1, 15, 3), *shot(2, 15, 3)]) == [15]


@pytest.mark.parametrize("length", range(1, FLASH_FRAMES + 1))
def test_flash_is_no_cut(length: int) -> None:
    frames = shot(5, 20)
    for index in range(9, 9 + length):
        frames[index] = cv2.add(frames[index], (110, 0, 0, 0))
    assert cuts_in(frames) == []


def test_fade_is_no_hard_cut() -> None:
    first, last = scene(6).astype(float), scene(7).astype(float)
    frames = [(first * (1 - k / 30) + last * k / 30).astype(np.uint8) for k in range(31)]
    assert cuts_in(frames) == []


def test_dark_scenes_are_told_apart() -> None:
    dim = [(frame * 0.3).astype(np.uint8) for frame in [*shot(1, 10), *shot(2, 10)]]
    assert cuts_in(dim) == [10]


def test_noise_is_no_cut() -> None:
    assert cuts_in(shot(8, 40, noise=12)) == []


def test_another_size_is_a_cut() -> None:
    assert cuts_in([*shot(1, 6), *[frame[:16] for frame in shot(1, 6)]]) == [6]


def test_every_item_comes_out_once_in_order() -> None:
    frames = shot(1, 9)
    for count in range(10):
        assert [item for item, _ in mark_cuts(range(count), lambda i: frames[i])] == list(range(count))


def test_reads_only_a_few_frames_ahead() -> None:
    taken: list[int] = []
    frames = shot(1, 30)
    marked = mark_cuts((taken.append(i) or i for i in range(30)), lambda i: frames[i])  # type: ignore[func-returns-value]
    next(marked)
    assert len(taken) <= FLASH_FRAMES + 1


def recall_and_false(shots: list[list[SmallFrame]]) -> tuple[float, float]:
    """Share of the cuts between shots that are found, and share of the other pairs taken for cuts."""
    frames, cuts = [frame for shot in shots for frame in shot], np.cumsum([len(shot) for shot in shots])[:-1].tolist()
    found = set(cuts_in(frames))
    return len(found & set(cuts)) / len(cuts), len(found - set(cuts)) / (len(frames) - 1 - len(cuts))


def test_cuts_between_many_made_scenes() -> None:
    rng = np.random.default_rng(0)
    recall, false = recall_and_false(
        [shot(int(rng.integers(1e6)), int(rng.integers(6, 20)), int(rng.integers(0, 5))) for _ in range(100)]
    )
    assert recall >= 0.95
    assert false <= 0.01


def test_mismatch_is_zero_for_equal_and_small_for_shifted_frames() -> None:
    frame, other = scene(1), scene(2)
    assert mismatch(frame, frame) == 0
    assert mismatch(frame[:, :-2], frame[:, 2:]) < 0.5 * mismatch(frame, other)
    assert mismatch(frame, other) == pytest.approx(mismatch(other, frame))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj422p", "yuv444p", "yuv420p10le", "gray", "rgb24", "nv12"])
def test_small_frame_averages_areas(pixel_format: str) -> None:
    gray = np.kron(np.arange(32, dtype=np.uint8).reshape(4, 8) * 6 + 20, np.ones((40, 40), np.uint8))
    frame = av.VideoFrame.from_ndarray(np.repeat(gray[:, :, None], 3, 2), "rgb24").reformat(format=pixel_format)
    small = small_frame(frame, VideoReformatter())
    assert small.shape == (16, 32, 3)
    # Luma of video covers 16 to 235, that of JPEG 0 to 255.
    luma = small[2::4, 2::4, 0].astype(float)
    scale = np.polyfit(gray[20::40, 20::40].ravel(), luma.ravel(), 1)
    assert 0.8 < scale[0] < 1.2
    assert np.abs(np.polyval(scale, gray[20::40, 20::40]) - luma).max() < 3
    assert np.abs(small[..., 1:].astype(int) - 128).max() <= 3


@pytest.mark.parametrize(("width", "height", "rows"), [(640, 480, 24), (480, 640, 44), (64, 16, 8), (16, 256, 128)])
def test_small_frame_keeps_the_shape_in_whole_blocks(width: int, height: int, rows: int) -> None:
    frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), "rgb24").reformat(format="yuv420p")
    assert small_frame(frame, VideoReformatter()).shape == (rows, 32, 3)


def test_motion_tells_still_from_moving() -> None:
    still, moving = motion_of(shot(1, 10, noise=1.0)), motion_of(shot(1, 10, step_px=1, noise=1.0))
    assert still < 0.5
    assert moving > 3


def test_motion_of_equal_frames_is_zero_and_a_flickering_lamp_is_none() -> None:
    frame = scene(1) // 2
    assert motion_of([frame] * 5) < 1e-5
    assert motion_of([frame + np.uint8(8 * (index % 2)) for index in range(6)]) < 0.01


def test_slow_drift_counts() -> None:
    wide = scene(1, width=132)
    slow = [cv2.resize(wide, (132 * 8, 20))[:, k : k + 256][:, ::8] for k in range(10)]
    assert motion_of(slow) > 1


def small_frames(name: str, step: int = 1) -> list[SmallFrame]:
    if not (VIDEOS / name).exists():
        pytest.skip("the real videos are not here")
    reformatter = VideoReformatter()
    with av.open(str(VIDEOS / name), metadata_errors="replace") as container:
        return [small_frame(frame, reformatter) for frame in container.decode(video=0)][::step]


@pytest.mark.parametrize("name", sorted(REAL_CUTS))
def test_real_videos(name: str) -> None:
    assert cuts_in(small_frames(name)) == REAL_CUTS[name]


@pytest.mark.parametrize("step", [1, 3])
def test_cuts_between_real_shots(step: int) -> None:
    """Concatenated pieces of real videos; with step 3, of a third of their frame rate, all moves three times as far."""
    rng = np.random.default_rng(0)
    whole = {name: small_frames(name, step) for name, cuts in REAL_CUTS.items() if not cuts}
    shots = []
    # In a fixed round, so that neighbours are never of one video.
    for name in sorted(whole) * 25:
        length = int(rng.integers(6, 20))
        start = int(rng.integers(0, max(1, len(whole[name]) - length)))
        piece = whole[name][start : start + length]
        shots.append([cv2.resize(frame, (32, 20), interpolation=cv2.INTER_AREA) for frame in piece])
    recall, false = recall_and_false(shots)
    assert recall >= 0.95
    assert false <= 0.01
