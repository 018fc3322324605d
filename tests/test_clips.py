from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipelines.shards.clips import ClipFormat, encode_clip, even_size, nearest_frames, read_clips, split_clips
from pipelines.shards.images import UnusableError
from tests.media import decoded, gray_frames, picture, write_video


def chosen(times_s: list[float], fps: float) -> list[int]:
    return [index for index, _ in nearest_frames(((time_s, None) for time_s in times_s), fps)]


def nearest_by_search(times_s: list[float], fps: float) -> list[int]:
    """Reference: for each tick look at all frames."""
    num_ticks = int((times_s[-1] + 0.5 / fps - times_s[0]) * fps + 1e-9) + 1
    ticks = [times_s[0] + tick / fps for tick in range(num_ticks)]
    return [min(range(len(times_s)), key=lambda i: (round(abs(times_s[i] - tick), 8), i)) for tick in ticks]


@pytest.mark.parametrize("source_fps", [8, 10, 12.5, 25, 30, 60])
@pytest.mark.parametrize("fps", [5.0, 10.0, 10.1])
@pytest.mark.parametrize("start_s", [0.0, 3.25])
def test_nearest_frame_at_even_rates(source_fps: float, start_s: float, fps: float) -> None:
    times_s = [start_s + index / source_fps for index in range(50)]
    found = chosen(times_s, fps)
    assert found == nearest_by_search(times_s, fps)[: len(found)]
    assert len(found) >= int(49 / source_fps * fps) + 1


def test_nearest_frame_at_uneven_times() -> None:
    rng = np.random.default_rng(0)
    times_s = np.cumsum(rng.uniform(0.005, 0.2, 200)).tolist()
    found = chosen(times_s, 10)
    assert found == nearest_by_search(times_s, 10)[: len(found)]


def test_rate_of_the_source_takes_every_frame_once() -> None:
    assert chosen([index / 10 for index in range(30)], 10) == list(range(30))


def test_no_frame_no_tick_and_one_frame_one_tick() -> None:
    assert chosen([], 10) == []
    assert chosen([7.0], 10)[:1] == [0]


def test_clips_are_back_to_back_and_the_short_rest_is_dropped() -> None:
    clips = list(split_clips([(index, str(index)) for index in range(7)], 3, 0.0))
    assert clips == [(0, ("0", "1", "2")), (1, ("3", "4", "5"))]


def test_clip_with_too_many_repeats_is_dropped_but_keeps_its_number() -> None:
    indices = [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8]
    clips = list(split_clips([(index, index) for index in indices], 4, 0.25))
    assert clips == [(0, (0, 1, 2, 3)), (2, (6, 7, 8, 8))]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1280, 720, (454, 256)),
        (720, 1280, (256, 454)),
        (320, 240, (320, 240)),
        (175, 143, (174, 142)),
        (256, 256, (256, 256)),
        (1, 3, (2, 2)),
    ],
)
def test_sizes_are_even_and_never_larger(width: int, height: int, expected: tuple[int, int]) -> None:
    assert even_size(width, height, 256) == expected


@pytest.mark.parametrize("codec", ["mjpeg", "vp9"])
def test_clip_holds_the_frames_of_its_second(tmp_path: Path, codec: str) -> None:
    levels = [20 + 8 * index for index in range(25)]
    video = write_video(tmp_path / "v.mp4", gray_frames(levels), fps=10)
    form = ClipFormat(codec=codec)  # type: ignore[arg-type]
    clips = list(read_clips(video, form))
    assert [(clip.index, clip.start_s) for clip in clips] == [(0, 0.0), (1, 1.0)]
    for clip in clips:
        frames = decoded(encode_clip(clip.frames, form))
        assert len(frames) == 10
        want = levels[10 * clip.index : 10 * clip.index + 10]
        assert np.abs([frame.mean() for frame in frames] - np.array(want)).max() < 4


@pytest.mark.parametrize("codec", ["mjpeg", "vp9"])
def test_colors_and_place_survive(tmp_path: Path, codec: str) -> None:
    colors = np.zeros((64, 96, 3), np.uint8)
    colors[:32, :48], colors[:32, 48:], colors[32:, :48], colors[32:, 48:] = (
        (200, 30, 30),
        (30, 200, 30),
        (30, 30, 200),
        (200, 200, 200),
    )
    video = write_video(tmp_path / "v.mp4", [colors] * 10)
    form = ClipFormat(codec=codec)  # type: ignore[arg-type]
    frame = decoded(encode_clip(next(read_clips(video, form)).frames, form))[4]
    for y, x in ((16, 24), (16, 72), (48, 24), (48, 72)):
        assert np.abs(frame[y, x].astype(int) - colors[y, x]).max() < 8


def test_faster_source_is_thinned_to_the_rate(tmp_path: Path) -> None:
    levels = [20 + 4 * index for index in range(50)]
    video = write_video(tmp_path / "v.mp4", gray_frames(levels), fps=25)
    clips = list(read_clips(video, ClipFormat()))
    means = [frame.to_ndarray(format="gray").mean() for clip in clips for frame in clip.frames]
    want = [levels[index] for index in nearest_by_search([index / 25 for index in range(50)], 10)]
    assert np.abs(np.array(means) - want[:20]).max() < 2


def test_variable_frame_rate_goes_by_timestamps(tmp_path: Path) -> None:
    times_ms = [0, 90, 210, 300, 390, 500, 610, 640, 700, 790, 905]
    video = write_video(tmp_path / "v.mp4", gray_frames([20 * (i + 1) for i in range(11)]), times_ms=times_ms)
    (clip,) = read_clips(video, ClipFormat())
    means = [round(float(frame.to_ndarray(format="gray").mean()) / 20) - 1 for frame in clip.frames]
    assert means == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]


def test_source_slower_than_the_rate_gives_no_clip(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", gray_frames(list(range(20, 240, 5))), fps=5)
    assert list(read_clips(video, ClipFormat())) == []
    assert list(read_clips(video, ClipFormat(max_repeat_ratio=0.5))) != []


def test_reading_can_start_at_a_clip(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", gray_frames([5 * index for index in range(45)]))
    whole = list(read_clips(video, ClipFormat()))
    rest = list(read_clips(video, ClipFormat(), first_clip=2))
    assert [clip.index for clip in rest] == [2, 3]
    assert [encode_clip(clip.frames, ClipFormat()) for clip in rest] == [
        encode_clip(clip.frames, ClipFormat()) for clip in whole[2:]
    ]


def test_non_square_pixels_become_square_without_enlarging(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", gray_frames([100] * 10, 176, 144), aspect=Fraction(12, 11))
    frame = next(read_clips(video, ClipFormat(short_side_px=128))).frames[0]
    assert abs(frame.width / frame.height - 4 / 3) < 0.03
    assert frame.width <= 176
    assert frame.height <= 144


def test_phone_video_is_turned_upright(tmp_path: Path) -> None:
    colors = np.zeros((48, 64, 3), np.uint8)
    colors[:, :32] = 220
    path = write_video(tmp_path / "v.mp4", [colors] * 10)
    data = path.read_bytes()
    ints = [value.to_bytes(4, "big", signed=True) for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 0x40000000)]
    turned = [value.to_bytes(4, "big", signed=True) for value in (0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 0x40000000)]
    at = data.index(b"tkhd")
    place = data.index(b"".join(ints), at)
    path.write_bytes(data[:place] + b"".join(turned) + data[place + 36 :])
    frame = next(read_clips(path, ClipFormat())).frames[0].to_ndarray(format="gray")
    assert frame.shape == (64, 48)
    # The matrix asks for a quarter turn clockwise: the bright left half comes to the top.
    assert frame[:28].mean() > 180
    assert frame[36:].mean() < 60


@pytest.mark.parametrize("codec", ["mjpeg", "vp9"])
def test_same_frames_same_bytes(codec: str) -> None:
    import av

    form = ClipFormat(codec=codec)  # type: ignore[arg-type]
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    frames = [
        av.VideoFrame.from_ndarray(picture(seed=index), "rgb24").reformat(format=pixel_format) for index in range(10)
    ]
    assert encode_clip(frames, form) == encode_clip(frames, form)


def test_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(UnusableError, match="cannot decode it"):
        list(read_clips(tmp_path / "v.mp4", ClipFormat()))


def test_file_without_a_video_stream_is_refused(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnusableError, match="no video stream"):
        list(read_clips(tmp_path / "v.mp4", ClipFormat()))


def test_clips_before_a_break_are_kept(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", [picture(seed=index) for index in range(60)], codec="mjpeg")
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    clips = []
    try:
        for clip in read_clips(video, ClipFormat()):
            clips.append(clip.index)
    except UnusableError:
        pass
    assert clips[:2] == [0, 1]


def test_dali_decodes_every_frame(tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def, types

    video = write_video(tmp_path / "v.mp4", gray_frames([20 + 20 * index for index in range(10)], 70, 50))
    for codec in ("mjpeg", "vp9"):
        form = ClipFormat(codec=codec)  # type: ignore[arg-type]
        encoded = encode_clip(next(read_clips(video, form)).frames, form)

        @pipeline_def(batch_size=1, num_threads=1, device_id=None)
        def decode(data: bytes = encoded) -> object:
            return fn.decoders.video(
                fn.external_source(source=lambda: [np.frombuffer(data, np.uint8)], dtype=types.UINT8, ndim=1),
                device="cpu",
            )

        (out,) = decode().run()
        frames = out.at(0)
        assert frames.shape == (10, 50, 70, 3)
        assert np.abs(frames.mean(axis=(1, 2, 3)) - (20 + 20 * np.arange(10))).max() < 3
