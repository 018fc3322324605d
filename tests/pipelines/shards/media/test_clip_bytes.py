import hashlib
import io
import random
import time
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.shards.media.clip_bytes import ClipForm, DroppedClip, RawClip, encode_clip, even_size, read_clips
from pipelines.shards.sources.items import UnusableError
from tests.made.films import number_in, numbered, write_film
from tests.made.media import decoded, gray_frames, picture, write_video
from tests.made.patience import seconds_here

VIDEOS = Path(__file__).parents[4] / "../shared/data/videos"
# Pictures of these tests jump from frame to frame as no video does.
UNCUT = ClipForm(fps=10.0, cut_threshold=None)


def clips_of(file: object, form: ClipForm = UNCUT, **options: float) -> list[RawClip]:
    return [clip for clip in read_clips(file, form, **options) if isinstance(clip, RawClip)]  # type: ignore[arg-type]


def dropped_of(file: object, form: ClipForm = UNCUT) -> list[tuple[int, str]]:
    found = read_clips(file, form)  # type: ignore[arg-type]
    return [(clip.start_tick, clip.reason) for clip in found if isinstance(clip, DroppedClip)]


def numbers_in(clip: RawClip) -> list[int]:
    return [number_in(frame) for frame in clip.frames]


def digest(clip: RawClip) -> tuple[int, str]:
    pixels = b"".join(frame.to_ndarray().tobytes() for frame in clip.frames)
    return clip.start_tick, hashlib.sha256(pixels).hexdigest()


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
    form = ClipForm(codec=codec, cut_threshold=None)  # type: ignore[arg-type]
    clips = clips_of(str(video), form)
    assert [(clip.start_tick, clip.start_s) for clip in clips] == [(0, 0.0), (10, 1.0)]
    for clip in clips:
        frames = decoded(encode_clip(clip.frames, form))
        assert len(frames) == 10
        want = levels[clip.start_tick : clip.start_tick + 10]
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
    form = ClipForm(codec=codec)  # type: ignore[arg-type]
    frame = decoded(encode_clip(clips_of(str(video), form)[0].frames, form))[4]
    for y, x in ((16, 24), (16, 72), (48, 24), (48, 72)):
        assert np.abs(frame[y, x].astype(int) - colors[y, x]).max() < 8


@pytest.mark.parametrize("codec", ["mjpeg", "vp9"])
def test_larger_quantizer_is_fewer_bytes(tmp_path: Path, codec: str) -> None:
    video = write_video(tmp_path / "v.mp4", [picture(seed=index) for index in range(10)])
    fine, default, coarse = (ClipForm(codec=codec, quality=quality) for quality in (2, None, 31))  # type: ignore[arg-type]
    sizes = [len(encode_clip(clips_of(str(video), form)[0].frames, form)) for form in (fine, default, coarse)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_faster_source_is_thinned_to_the_rate(tmp_path: Path) -> None:
    film = write_film(tmp_path / "v.mp4", [numbered(index) for index in range(50)])
    # Frames at 0, 2.5 (the earlier of 2 and 3), 5, 7.5, ...
    want = [5 * (tick // 2) + 2 * (tick % 2) for tick in range(20)]
    assert [number for clip in clips_of(str(film)) for number in numbers_in(clip)] == want


def test_variable_frame_rate_goes_by_timestamps(tmp_path: Path) -> None:
    """Every frame carries its own time, in units of 10 ms: at each tick the nearest one must be found."""
    times_ms = np.cumsum(np.random.default_rng(0).integers(5, 150, 120)).tolist()
    film = write_film(tmp_path / "v.mkv", [numbered(ms // 10) for ms in times_ms], times_ms=times_ms)
    clips = clips_of(str(film), ClipForm(fps=10.0, cut_threshold=None, max_repeat_ratio=1.0))
    assert len(clips) >= 6
    for clip in clips:
        ticks_ms = [times_ms[0] + 100 * (clip.start_tick + k) for k in range(10)]
        want = [min(times_ms, key=lambda ms: (abs(ms - tick_ms), ms)) // 10 for tick_ms in ticks_ms]
        assert numbers_in(clip) == want


@pytest.mark.parametrize("fps", [5, 10, 20])
def test_a_slower_video_keeps_its_own_rate(tmp_path: Path, fps: int) -> None:
    film = str(write_film(tmp_path / "v.mp4", [numbered(index) for index in range(25)], fps=fps))
    form = ClipForm(cut_threshold=None)
    clips = clips_of(film, form)
    # Every frame once, none twice.
    assert [number for clip in clips for number in numbers_in(clip)] == list(range(20))
    assert [(clip.start_tick, clip.start_s, clip.facts["fps"]) for clip in clips] == [
        (0, 0.0, fps),
        (10, 10 / fps, fps),
    ]
    # The stored clip runs at that rate, too.
    with av.open(io.BytesIO(encode_clip(clips[0].frames, form.at(fps)))) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([k / fps for k in range(10)])


@pytest.mark.parametrize("stride_s", [None, 0.5, 1.3])
def test_ranges_of_a_slower_video_tile_it(tmp_path: Path, stride_s: float | None) -> None:
    film = str(write_film(tmp_path / "v.mp4", [numbered(index) for index in range(120)], fps=12))
    form = ClipForm(stride_s=stride_s, cut_threshold=None)
    step_s = form.at(12).stride_ticks / 12
    ranges = [(first * step_s, (first + 2) * step_s + 10 / 12) for first in range(0, 24, 3)]
    parts = [digest(clip) for start_s, end_s in ranges for clip in clips_of(film, form, start_s=start_s, end_s=end_s)]
    assert parts == [digest(clip) for clip in clips_of(film, form)]
    assert len(parts) >= 7


def test_a_rate_that_no_header_states_is_taken_as_it_is() -> None:
    assert ClipForm().at(None) == ClipForm()
    assert ClipForm().at(1000.0).fps == 24.0
    assert ClipForm().at(1e-9).fps == 0.01


def test_repeated_frames_are_dropped_and_counted(tmp_path: Path) -> None:
    """By its header 10 frames a second; but each picture of its second half is held for 0.4 s."""
    times_ms = [40 * index for index in range(50)] + [2000 + 400 * index for index in range(20)]
    film = str(write_film(tmp_path / "v.mp4", [numbered(index) for index in range(70)], times_ms=times_ms))
    form = ClipForm(cut_threshold=None, fps=5.0)
    assert [clip.start_tick for clip in clips_of(film, form)] == [0]
    assert {reason for _, reason in dropped_of(film, form)} == {"repeats"}
    assert len(clips_of(film, replace(form, max_repeat_ratio=0.5))) > 1


def test_stride_and_number_of_frames(tmp_path: Path) -> None:
    film = str(write_film(tmp_path / "v.mp4", [numbered(index) for index in range(60)], fps=10))
    thin = clips_of(film, ClipForm(num_frames=5, stride_s=2.0, cut_threshold=None))
    assert [numbers_in(clip) for clip in thin] == [list(range(start, start + 5)) for start in (0, 20, 40)]
    dense = clips_of(film, ClipForm(num_frames=20, stride_s=1.0, cut_threshold=None))
    assert [clip.start_tick for clip in dense] == [0, 10, 20, 30, 40]
    assert numbers_in(dense[3]) == list(range(30, 50))
    assert encode_clip(dense[0].frames, UNCUT) == encode_clip(dense[0].frames, UNCUT)


@pytest.mark.parametrize(
    ("name", "codec", "max_b_frames"),
    [("v.mp4", "libx264", 3), ("v.avi", "mpeg4", 0), ("v.avi", "mpeg4", 2), ("v.webm", "libvpx-vp9", 0)],
)
@pytest.mark.parametrize("stride_s", [None, 0.5, 1.3])
def test_ranges_tile_the_video(
    tmp_path: Path, name: str, codec: str, max_b_frames: int, stride_s: float | None
) -> None:
    film = write_film(
        tmp_path / name, [numbered(index) for index in range(200)], codec=codec, max_b_frames=max_b_frames
    )
    form = ClipForm(stride_s=stride_s, cut_threshold=None)
    whole = [digest(clip) for clip in clips_of(str(film), form)]
    step_s = form.stride_ticks / form.fps
    parts: list[tuple[int, str]] = []
    for first in range(0, 24, 3):
        end_s = (first + 2) * step_s + form.num_frames / form.fps
        parts += [digest(clip) for clip in clips_of(str(film), form, start_s=first * step_s, end_s=end_s)]
    assert parts == whole
    assert len(whole) >= 5


def test_ranges_of_variable_rate_tile_the_video(tmp_path: Path) -> None:
    times_ms = np.cumsum(np.random.default_rng(1).integers(5, 150, 150)).tolist()
    film = str(write_film(tmp_path / "v.mkv", [numbered(ms // 10) for ms in times_ms], times_ms=times_ms))
    form = ClipForm(fps=10.0, cut_threshold=None, max_repeat_ratio=1.0)
    parts = [clip for start in range(0, 14, 2) for clip in clips_of(film, form, start_s=start, end_s=start + 2)]
    assert [digest(clip) for clip in parts] == [digest(clip) for clip in clips_of(film, form)]


def test_range_beyond_the_end_is_empty(tmp_path: Path) -> None:
    film = str(write_film(tmp_path / "v.mp4", [numbered(index) for index in range(50)]))
    assert clips_of(film, start_s=40.0) == clips_of(film, start_s=1.5) == []


def shots(*lengths: int) -> list[np.ndarray]:
    """Smooth pictures, one for each shot, panning by two pixels a frame."""
    frames = []
    for seed, length in enumerate(lengths):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 255, (6, 10 + length // 4, 3), np.uint8)
        wide = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
        frames += [np.ascontiguousarray(wide[:, 2 * k : 2 * k + 128]) for k in range(length)]
    return frames


def test_no_clip_spans_a_cut_and_the_grid_starts_again_after_it(tmp_path: Path) -> None:
    film = str(write_film(tmp_path / "v.mp4", shots(35, 40, 25), fps=10))
    assert [clip.start_tick for clip in clips_of(film, ClipForm())] == [0, 10, 20, 35, 45, 55, 65, 75, 85]
    assert dropped_of(film, ClipForm()) == [(30, "cut"), (95, "cut")][:1]
    assert [clip.start_tick for clip in clips_of(film)] == list(range(0, 100, 10))


def test_cuts_are_the_same_in_a_range(tmp_path: Path) -> None:
    film = str(write_film(tmp_path / "v.mp4", shots(61, 40), fps=10))
    for start_s in (3.0, 5.0, 6.0):
        starts = [clip.start_tick for clip in clips_of(film, ClipForm(), start_s=start_s)]
        assert [start for start in starts if start > 60] == [61, 71, 81, 91]
        assert all(start + 10 <= 61 or start >= 61 for start in starts)


def test_still_clips_are_dropped_above_a_threshold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = [(shots(1)[0] * 0.9 + rng.normal(8, 3, (96, 128, 3))).clip(0, 255).astype(np.uint8) for _ in range(20)]
    film = str(write_film(tmp_path / "v.mp4", still + shots(20), fps=10))
    kept = clips_of(film)
    assert [clip.start_tick for clip in kept] == [0, 10, 20, 30]
    assert max(clip.facts["motion"] for clip in kept[:2]) < 0.5 < 3 < min(clip.facts["motion"] for clip in kept[2:])
    form = ClipForm(cut_threshold=None, min_motion=0.5)
    assert [clip.start_tick for clip in clips_of(film, form)] == [20, 30]
    assert dropped_of(film, form) == [(0, "static"), (10, "static")]


def test_facts_of_a_clip(tmp_path: Path) -> None:
    film = str(write_film(tmp_path / "v.mp4", [numbered(index) for index in range(50)]))
    facts = clips_of(film, ClipForm(fps=10.0, cut_threshold=None, short_side_px=32))[1].facts
    assert facts.pop("motion") > 0
    assert facts == {
        "num_frames": 10,
        "fps": 10.0,
        "width": 42,
        "height": 32,
        "codec": "mjpeg",
        "start_s": 1.0,
        "source_fps": 25.0,
        "is_interlaced": False,
        "rotation_deg": 0,
    }


def test_interlaced_video_is_noted(tmp_path: Path) -> None:
    options = {"x264-params": "tff=1", "flags": "+ildct+ilme"}
    film = write_film(tmp_path / "v.mkv", [numbered(1)] * 30, max_b_frames=0, options=options)
    assert clips_of(str(film))[0].facts["is_interlaced"] is True


def test_non_square_pixels_become_square_without_enlarging(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", gray_frames([100] * 10, 176, 144), aspect=Fraction(12, 11))
    frame = clips_of(str(video), ClipForm(short_side_px=128))[0].frames[0]
    assert abs(frame.width / frame.height - 4 / 3) < 0.03
    assert frame.width <= 176
    assert frame.height <= 144


def test_absurd_pixel_shape_is_taken_as_square(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", gray_frames([100] * 10, 176, 144), aspect=Fraction(200, 1))
    frame = clips_of(str(video))[0].frames[0]
    assert (frame.width, frame.height) == (176, 144)


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
    frame = clips_of(str(path), ClipForm())[0].frames[0].to_ndarray(format="gray")
    assert frame.shape == (64, 48)
    # The matrix asks for a quarter turn clockwise: the bright left half comes to the top.
    assert frame[:28].mean() > 180
    assert frame[36:].mean() < 60


def test_size_that_changes_on_the_way_starts_another_shot(tmp_path: Path) -> None:
    parts = [
        write_film(tmp_path / f"{px}.h264", [numbered(7).repeat(px // 48, 0).repeat(px // 48, 1)] * 15, max_b_frames=0)
        for px in (48, 96)
    ]
    (tmp_path / "v.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    form = ClipForm(num_frames=4, fps=25.0, cut_threshold=None)
    sizes = [
        {(frame.width, frame.height) for frame in clip.frames} for clip in clips_of(str(tmp_path / "v.h264"), form)
    ]
    assert sizes == [{(64, 48)}] * 3 + [{(128, 96)}] * 3


@pytest.mark.parametrize("codec", ["mjpeg", "vp9"])
def test_same_frames_same_bytes(codec: str) -> None:
    form = ClipForm(codec=codec)  # type: ignore[arg-type]
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    frames = [
        av.VideoFrame.from_ndarray(picture(seed=index), "rgb24").reformat(format=pixel_format) for index in range(10)
    ]
    assert encode_clip(frames, form) == encode_clip(frames, form)


@pytest.mark.parametrize(
    "wrong", [{"num_frames": 0}, {"fps": 0.0}, {"fps": 1e-9}, {"stride_s": 0.0}, {"quality": 99}, {"quality": 0}]
)
def test_impossible_forms_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClipForm(**wrong)  # type: ignore[arg-type]


def test_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(UnusableError, match="cannot decode it"):
        list(read_clips(str(tmp_path / "v.mp4"), ClipForm()))


@pytest.mark.parametrize("num_frames", [1, 9])
def test_video_too_short_for_a_clip_is_refused(tmp_path: Path, num_frames: int) -> None:
    film = write_film(tmp_path / "v.mp4", [numbered(index) for index in range(num_frames)], fps=10)
    with pytest.raises(UnusableError, match=r"no clip of 10 frames at 10 fps in it \(needs 0.9 s\)"):
        list(read_clips(str(film), ClipForm()))


def test_jump_of_hours_is_a_hole_that_no_clip_spans(tmp_path: Path) -> None:
    times_ms = [100 * index for index in range(15)] + [36_000_000 + 100 * index for index in range(20)]
    film = str(write_film(tmp_path / "v.mkv", [numbered(index) for index in range(35)], times_ms=times_ms))
    assert [(clip.start_tick, numbers_in(clip)[0]) for clip in clips_of(film)] == [(0, 0), (360000, 15), (360010, 25)]
    assert dropped_of(film) == [(10, "repeats")]


def test_clips_before_a_break_are_kept(tmp_path: Path) -> None:
    """The break is the very next frame after a clip: looking ahead for cuts must not lose the clip."""
    film = write_film(tmp_path / "v.mkv", shots(60), codec="mjpeg", pixel_format="yuvj420p", fps=10, max_b_frames=0)
    content = film.read_bytes()
    starts = [at for at in range(len(content)) if content.startswith(b"\xff\xd8", at)]
    assert len(starts) == 60
    film.write_bytes(content[: starts[20]] + bytes(starts[21] - starts[20]) + content[starts[21] :])
    clips = read_clips(str(film), ClipForm())
    assert [next(clips).start_tick, next(clips).start_tick] == [0, 10]
    with pytest.raises(UnusableError, match="cannot decode it"):
        next(clips)


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "libx264"), ("v.avi", "mpeg4"), ("v.webm", "libvpx-vp9")])
def test_bit_flips_give_clips_or_a_reason(tmp_path: Path, name: str, codec: str) -> None:
    content = write_film(tmp_path / name, shots(20, 20), codec=codec, fps=10).read_bytes()
    form = ClipForm(num_frames=4)
    for seed in range(34):
        rng = random.Random(seed)
        damaged = bytearray(content)
        # Every other file is hit in its first bytes, where sizes, rates and times are.
        reach = len(content) if seed % 2 else 600
        for _ in range(rng.choice((1, 4, 30))):
            damaged[rng.randrange(reach)] ^= 1 << rng.randrange(8)
        start_s, began_s = rng.choice((0.0, 2.0)), time.monotonic()
        with suppress(UnusableError):
            for clip in read_clips(io.BytesIO(damaged), form, start_s=start_s):
                if isinstance(clip, RawClip):
                    assert len(encode_clip(clip.frames, form)) > 0
        assert time.monotonic() - began_s < seconds_here(20)


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone.mp4", "hmdb_wave_1.avi", "ucf_juggling_1.avi"])
def test_ranges_of_real_videos_tile(name: str) -> None:
    if not (VIDEOS / name).exists():
        pytest.skip("the real videos are not here")
    form, file = ClipForm(fps=10.0, short_side_px=64, cut_threshold=None), str(VIDEOS / name)
    parts = [clip for start in range(0, 10, 2) for clip in clips_of(file, form, start_s=start, end_s=start + 2)]
    assert [digest(clip) for clip in parts] == [digest(clip) for clip in clips_of(file, form)]


def test_dali_decodes_every_frame(tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def, types

    video = write_video(tmp_path / "v.mp4", gray_frames([20 + 20 * index for index in range(10)], 70, 50))
    for codec in ("mjpeg", "vp9"):
        form = ClipForm(codec=codec)  # type: ignore[arg-type]
        encoded = encode_clip(clips_of(str(video), form)[0].frames, form)

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


@pytest.mark.parametrize("num_pictures", [1, 2])
def test_a_gif_too_short_for_a_clip_says_that_it_counts_as_video(tmp_path: Path, num_pictures: int) -> None:
    pictures = [Image.new("RGB", (32, 24), color) for color in ("red", "blue")[:num_pictures]]
    pictures[0].save(tmp_path / "still.gif", save_all=True, append_images=pictures[1:], duration=40)
    with pytest.raises(UnusableError, match=r"no clip of 10 frames.*; .gif counts as video, so save .* as PNG"):
        list(read_clips(str(tmp_path / "still.gif"), UNCUT))
