import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.shards.media.videos import MAX_VIDEO_S, frames_from, probe_video
from pipelines.shards.sources.items import UnusableError
from tests.made.films import number_in, numbered, write_film
from tests.made.media import gray_frames, write_video

FRAMES = [numbered(index * 37 % 4096) for index in range(100)]
# Codec, container, B-frames, encoder options, and whether the file can be entered in the middle.
KINDS = {
    "h264 with B-frames": ("libx264", "mp4", 3, {}, True),
    "h264, open groups": ("libx264", "mkv", 3, {"x264-params": "open-gop=1"}, True),
    "h264, no B-frames": ("libx264", "mkv", 0, {}, True),
    "hevc": ("libx265", "mp4", 3, {"x265-params": "log-level=none:pools=1"}, True),
    "mpeg4": ("mpeg4", "avi", 0, {}, True),
    "mpeg4 with B-frames": ("mpeg4", "avi", 2, {}, False),
    "h264 in avi": ("libx264", "avi", 2, {}, False),
    "vp9": ("libvpx-vp9", "webm", 0, {"cpu-used": "8", "deadline": "realtime"}, True),
    "vp9 with hidden frames": (
        "libvpx-vp9",
        "webm",
        0,
        {"cpu-used": "8", "lag-in-frames": "12", "auto-alt-ref": "1"},
        True,
    ),
    "mpeg2 in ts": ("mpeg2video", "ts", 2, {}, False),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("films")
    return {
        name: str(write_film(folder / f"{name}.{suffix}", FRAMES, codec=codec, max_b_frames=b_frames, options=options))
        for name, (codec, suffix, b_frames, options, _) in KINDS.items()
    }


def read(file: object, from_s: float = 0.0, **options: int) -> list[tuple[float, int]]:
    """(time in s, number in the pixels) of every frame."""
    with frames_from(file, from_s, **options) as (_, frames):  # type: ignore[arg-type]
        return [(timed.time_s, number_in(timed.frame)) for timed in frames]


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_that_were_written_at_their_times(films: dict[str, str], name: str) -> None:
    frames = read(films[name])
    assert [number for _, number in frames] == [index * 37 % 4096 for index in range(100)]
    assert np.abs(np.array([time_s for time_s, _ in frames]) - np.arange(100) / 25).max() < 0.002


@pytest.mark.parametrize("name", KINDS)
def test_reading_from_the_middle_gives_what_the_start_gives(films: dict[str, str], name: str) -> None:
    whole = read(films[name])
    for from_s in (0.01, 0.48, 1.0, 2.39, 3.97):
        shown = [index for index, (time_s, _) in enumerate(whole) if time_s <= from_s][-1]
        assert read(films[name], from_s) == whole[shown:]


@pytest.mark.parametrize("name", KINDS)
def test_seeks_where_that_is_exact(films: dict[str, str], name: str) -> None:
    assert probe_video(films[name]).is_seekable is KINDS[name][4]


def test_seeking_reads_only_a_part_of_the_file(films: dict[str, str]) -> None:
    class Counted(io.BytesIO):
        num_read = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.num_read += len(data)
            return data

    noise = np.random.default_rng(0).integers(0, 255, (150, 96, 128, 3), np.uint8)
    path = write_film(Path(films["mpeg4"]).parent / "long.mkv", list(noise))
    content = path.read_bytes()
    late = Counted(content)
    with frames_from(late, 5.5) as (_, frames):
        next(frames)
    assert len(content) > 500_000
    assert late.num_read < len(content) / 3


@pytest.mark.parametrize("name", ["h264 with B-frames", "mpeg4", "mpeg2 in ts"])
def test_file_object_gives_what_the_path_gives(films: dict[str, str], name: str) -> None:
    content = io.BytesIO(Path(films[name]).read_bytes())
    content.seek(100)
    assert read(content, 2.0) == read(films[name], 2.0)


def test_threads_change_nothing(films: dict[str, str]) -> None:
    assert read(films["h264 with B-frames"], num_threads=3) == read(films["h264 with B-frames"])


def test_variable_rate_keeps_every_frames_own_time(tmp_path: Path) -> None:
    times_ms = np.cumsum(np.random.default_rng(0).integers(5, 200, 60)).tolist()
    film = write_film(tmp_path / "v.mkv", [numbered(ms // 10) for ms in times_ms], times_ms=times_ms)
    frames = read(str(film))
    start_s = times_ms[0] / 1000
    assert [number for _, number in frames] == [ms // 10 for ms in times_ms]
    assert (
        np.abs([time_s + start_s - ms / 1000 for (time_s, _), ms in zip(frames, times_ms, strict=True)]).max() < 0.001
    )
    assert read(str(film), 2.0) == [frame for frame in frames if frame[0] >= 2.0 or frame is shown_at(frames, 2.0)]


def shown_at(frames: list[tuple[float, int]], time_s: float) -> tuple[float, int]:
    return [frame for frame in frames if frame[0] <= time_s][-1]


def test_long_held_frame_is_found_from_its_middle(tmp_path: Path) -> None:
    film = write_film(tmp_path / "v.mkv", [numbered(n) for n in range(4)], times_ms=[0, 1000, 8000, 8100])
    assert read(str(film), 6.5) == [(1.0, 1), (8.0, 2), (8.1, 3)]


def test_first_time_may_be_negative_or_late(tmp_path: Path) -> None:
    for first_ms in (-500, 90_000):
        film = write_film(
            tmp_path / "v.mkv", FRAMES[:5], times_ms=[first_ms + 40 * n for n in range(5)], max_b_frames=0
        )
        assert [round(time_s, 3) for time_s, _ in read(str(film))] == [0.0, 0.04, 0.08, 0.12, 0.16]


def test_time_beyond_all_bounds_is_a_reason(tmp_path: Path) -> None:
    far_ms = int(MAX_VIDEO_S * 1000) + 5000
    film = write_film(tmp_path / "v.mkv", FRAMES[:4], times_ms=[0, 40, far_ms, far_ms + 40], max_b_frames=0)
    with frames_from(str(film), 0.0) as (_, frames), pytest.raises(UnusableError, match="a frame at"):
        assert len([next(frames), next(frames), next(frames)]) == 2


def test_probe_says_what_the_file_is(films: dict[str, str]) -> None:
    info = probe_video(films["h264 with B-frames"], measure_gop=True)
    assert (info.codec, info.width, info.height, info.fps) == ("h264", 64, 48, 25.0)
    assert info.duration_s == pytest.approx(4.0, abs=0.05)
    assert (info.rotation_deg, info.is_interlaced, info.is_variable_rate) == (0, False, False)
    assert abs(info.gop_frames - 12) <= 2  # type: ignore[operator]


@pytest.mark.parametrize("gop", [1, 7, 30, 1000])
def test_probe_measures_the_distance_of_keyframes(tmp_path: Path, gop: int) -> None:
    film = write_film(tmp_path / "v.mkv", [numbered(0)] * 100, codec="mpeg4", gop=gop, max_b_frames=0)
    assert probe_video(str(film)).gop_frames is None
    assert probe_video(str(film), measure_gop=True).gop_frames == min(gop, 100)


def test_probe_sees_variable_rate(tmp_path: Path) -> None:
    times_ms = np.cumsum(np.random.default_rng(0).integers(20, 60, 40)).tolist()
    film = write_film(tmp_path / "v.mkv", FRAMES[:40], times_ms=times_ms)
    assert probe_video(str(film), measure_gop=True).is_variable_rate is True


@pytest.mark.parametrize("fps", [8, 25])
def test_a_header_that_states_the_unit_of_time_is_no_rate(tmp_path: Path, fps: int) -> None:
    """As browsers' recorders write it: 1000 frames a second in the header, true times on the frames."""
    path = write_video(tmp_path / "v.avi", gray_frames([2 * index for index in range(100)]), fps=fps)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 1000
    assert probe_video(str(path)).fps == pytest.approx(fps)
    with frames_from(str(path), 1.5) as (video, frames):
        assert video.fps == pytest.approx(fps)
        assert next(frames).time_s == pytest.approx(int(1.5 * fps) / fps, abs=0.001)


def test_interlaced_video_is_noted(tmp_path: Path) -> None:
    film = write_film(
        tmp_path / "v.mkv", FRAMES[:10], max_b_frames=0, options={"x264-params": "tff=1", "flags": "+ildct+ilme"}
    )
    info = probe_video(str(film), measure_gop=True)
    assert info.is_interlaced is True


def test_duration_that_the_bytes_cannot_hold_is_not_believed(tmp_path: Path) -> None:
    film = write_film(tmp_path / "v.mkv", [numbered(0)] * 3, times_ms=[0, 40, 3_600_000], max_b_frames=0)
    assert probe_video(str(film)).duration_s is None


def held_film(path: Path, lasts_ms: list[int], codec: str = "libx264") -> Path:
    """A film whose frames are shown for so long, the last one too, as screen recorders write it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = 0
        times_ms = [0, *np.cumsum(lasts_ms).tolist()]
        lasts = iter(lasts_ms)
        for index in range(len(lasts_ms) + 1):
            frame = None
            if index < len(lasts_ms):
                frame = av.VideoFrame.from_ndarray(numbered(index), "rgb24")
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            for packet in stream.encode(frame):
                packet.duration = next(lasts)
                container.mux(packet)
    return path


@pytest.mark.parametrize(
    "lasts_ms",
    [[40, 6000], [40] * 50 + [6000], [40] * 5 + [2500] * 3, [100, 60_000], [1000], [40] * 30 + [5000, 40], [33] * 9],
    ids=str,
)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_the_last_frame_may_be_held(tmp_path: Path, lasts_ms: list[int], suffix: str) -> None:
    film = held_film(tmp_path / f"v.{suffix}", lasts_ms)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(sum(lasts_ms) / 1000, abs=0.002)
    assert [number for _, number in read(str(film))] == list(range(len(lasts_ms)))


@pytest.mark.parametrize("last_ms", [40, 6000])
def test_a_film_cut_off_before_a_held_frame_is_damaged(tmp_path: Path, last_ms: int) -> None:
    """The bytes of the last half are gone, but the header at the start still promises them."""
    film = held_film(tmp_path / "v.mp4", [40] * 100 + [last_ms])
    with av.open(str(film)) as source, av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                sink.mux(packet)
    content = (tmp_path / "f.mp4").read_bytes()
    start = content.index(b"mdat")
    (tmp_path / "cut.mp4").write_bytes(content[: start + (len(content) - start) // 2])
    with pytest.raises(UnusableError, match=r"cut off or damaged|cannot decode"):
        read(str(tmp_path / "cut.mp4"))


@pytest.mark.parametrize("measure_gop", [False, True])
def test_empty_and_foreign_files_are_refused(tmp_path: Path, measure_gop: bool) -> None:
    for content in (b"", b"\0" * 4000, b"not a video" * 100, b"\xff\xd8\xff\xe0 JPEG" * 50):
        (tmp_path / "v.mp4").write_bytes(content)
        with pytest.raises(UnusableError, match="cannot decode it"):
            probe_video(str(tmp_path / "v.mp4"), measure_gop)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(UnusableError, match="cannot decode it"):
            probe_video(str(path))


def test_sound_and_cover_art_are_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnusableError, match="no video stream"):
        probe_video(str(tmp_path / "v.mp4"))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{film}\n#EXT-X-ENDLIST\n", "v.m3u8"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{film}\n#EXT-X-ENDLIST\n", "v.mp4"),
        ("ffconcat version 1.0\nfile film.mp4\n", "v.mp4"),
    ],
)
def test_playlists_open_no_other_file(tmp_path: Path, content: str, name: str) -> None:
    film = write_film(tmp_path / "film.mp4", FRAMES[:5])
    (tmp_path / name).write_text(content.format(film=film))
    with pytest.raises(UnusableError, match="cannot decode it"):
        read(str(tmp_path / name))


def test_name_that_looks_like_a_url_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_film(tmp_path / "v.mp4", FRAMES[:5]).rename("http:v.mp4")
    assert len(read("http:v.mp4")) == 5


def test_name_that_is_no_utf8(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    write_film(tmp_path / "v.mp4", FRAMES[:5]).rename(os.fsdecode(name))
    assert len(read(os.fsdecode(name))) == 5


def test_sizes_out_of_bounds_are_refused_by_the_header(tmp_path: Path) -> None:
    def film(width: int, height: int) -> str:
        frames = [np.zeros((height, width, 3), np.uint8)] * 2
        return str(write_film(tmp_path / "v.avi", frames, codec="rawvideo", pixel_format="bgr24", max_b_frames=0))

    with pytest.raises(UnusableError, match="1 x 1 px; each side must be at least 16"):
        probe_video(film(1, 1))
    with pytest.raises(UnusableError, match="at most 16 times"):
        probe_video(film(800, 16))
    with pytest.raises(UnusableError, match="more than max_pixels = 5000"):
        probe_video(film(100, 60), max_pixels=5000)
    with pytest.raises(UnusableError, match="more than max_pixels = 5000"):
        read(film(100, 60), max_pixels=5000)


def test_size_that_grows_on_the_way_is_refused(tmp_path: Path) -> None:
    small, large = (
        write_film(tmp_path / f"{px}.h264", [np.zeros((px, px, 3), np.uint8)] * 3, max_b_frames=0).read_bytes()
        for px in (64, 256)
    )
    (tmp_path / "v.h264").write_bytes(small * 40 + large)
    with pytest.raises(UnusableError), frames_from(str(tmp_path / "v.h264"), 0.0, max_pixels=10_000) as (_, frames):
        assert all(timed.frame.width == 64 for timed in frames)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_cut_off_file_gives_the_frames_before_and_then_the_reason(tmp_path: Path, suffix: str) -> None:
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    with av.open(str(tmp_path / f"v.{suffix}"), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"  # type: ignore[union-attr]
        for pixels in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))  # type: ignore[arg-type]
        container.mux(stream.encode(None))
    content = (tmp_path / f"v.{suffix}").read_bytes()
    (tmp_path / f"v.{suffix}").write_bytes(content[: len(content) * 6 // 10])
    taken = 0
    try:
        with frames_from(str(tmp_path / f"v.{suffix}"), 0.0) as (_, frames):
            for _ in frames:
                taken += 1
        # The others' readers take a lost end for the end.
        assert suffix != "mp4"
    except UnusableError:
        pass
    assert 30 < taken < 80


def test_stream_without_a_whole_frame_is_a_reason(tmp_path: Path) -> None:
    content = bytearray(write_film(tmp_path / "v.avi", FRAMES[:6], codec="mpeg4", max_b_frames=0).read_bytes())
    start, end = content.index(b"movi"), content.index(b"idx1")
    content[start + 12 : end] = bytes(end - start - 12)
    (tmp_path / "v.avi").write_bytes(content)
    with pytest.raises(UnusableError):
        read(str(tmp_path / "v.avi"))


def test_lost_connection_is_a_reason(films: dict[str, str]) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 4000:
                raise ConnectionResetError(104, "Connection reset by peer")
            return super().read(size)

    with pytest.raises(UnusableError, match="Connection reset"):
        read(Broken(Path(films["h264, no B-frames"]).read_bytes()))
