"""Source folders full of bad and odd files, made by hand, each with what a build must do with it.

`make_odd_inputs` writes folders, videos, tars and lists that one build takes together.
"""

import io
import json
import os
import socket
import stat
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.made.media import encoded_image, gray_frames, picture, write_video
from tests.made.odd_images import odd_images

Outcome = Literal["sample", "rejected", "ignored"]
GOOD = encoded_image(picture(61, 37, seed=5))
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@dataclass(frozen=True, kw_only=True)
class OddInput:
    """`source`: the name that sidecars and rejects show. `says`: a part of the reason, or "" for any."""

    source: str
    outcome: Outcome = "sample"
    says: str = ""
    facts: tuple[tuple[str, Any], ...] = ()


def rejected(source: str, says: str) -> OddInput:
    return OddInput(source=source, outcome="rejected", says=says)


def make_odd_inputs(folder: Path) -> tuple[list[Path], list[OddInput]]:
    """The sources to give to one build, in this order, and what must become of everything in them."""
    sources, expected = [], []
    makers = (make_images, make_names, make_special_files, make_videos, make_tars, make_lists)
    for maker in makers:
        target = folder / maker.__name__.removeprefix("make_")
        target.mkdir()
        given, found = maker(target)
        sources += given
        expected += found
    return sources, expected


def make_images(folder: Path) -> tuple[list[Path], list[OddInput]]:
    expected = []
    for name, odd in odd_images().items():
        (folder / name).write_bytes(odd.encoded)
        facts = (("original_format", odd.says),) if odd.outcome == "converted" else odd.facts
        is_sample = odd.outcome != "rejected"
        expected.append(OddInput(source=name, facts=facts) if is_sample else rejected(name, odd.says))
    return [folder], expected


NAMES = (
    *("кошка_猫_🐈.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "new\nline.jpg", "tab\tescape\x1b[31m.jpg"),
    *(" spaces .jpg", "quote\"'.jpg", "-dash.jpg", "%41.jpg", "a;b&$(c)`d`.jpg", "back\\slash.jpg", "a.b.c.d.jpg"),
    *("Case.jpg", "case.jpg", "CASE.JPG", "same.jpg", "same.png", "same.webp", "same_2.jpg", "two..dots.jpg"),
    *("__meta__.jpg", "con.jpg", "*.jpg", "?.jpg", "{}.jpg", "@.jpg", "#.jpg", "LOUD.JPEG", "x" * 251 + ".jpg"),
    *(
        "猫" * 83 + ".jpg",
        "folder.jpg/inside.jpg",
        "__x__/inside.jpg",
        "/".join(["deep_folder_name"] * 30) + "/end.jpg",
    ),
)
IGNORED_NAMES = (
    ".hidden.jpg",
    "._mac.jpg",
    ".git/inside.jpg",
    "Thumbs.db",
    "no_suffix",
    "jpg",
    "notes.txt",
    "list.csv",
)


def make_names(folder: Path) -> tuple[list[Path], list[OddInput]]:
    expected = []
    for index, name in enumerate((*NAMES, *IGNORED_NAMES)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(picture(20 + index, 20, seed=index)))
        expected.append(OddInput(source=name, outcome="sample" if name in NAMES else "ignored"))
    (folder / "empty folder").mkdir()
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/bad_\xff_utf8.jpg")).write_bytes(GOOD)
    except OSError:  # macOS allows UTF-8 only
        return [folder], expected
    return [folder], [*expected, OddInput(source="bad_?_utf8.jpg")]


def make_special_files(folder: Path) -> tuple[list[Path], list[OddInput]]:
    good = folder / "good.jpg"
    good.write_bytes(GOOD)
    os.mkfifo(folder / "fifo.jpg")
    os.mknod(folder / "socket.jpg", stat.S_IFSOCK | 0o600)
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "itself.jpg").symlink_to("itself.jpg")
    (folder / "link.jpg").symlink_to("good.jpg")
    (folder / "loop").mkdir()
    (folder / "loop" / "again").symlink_to("..", target_is_directory=True)
    (folder / "loop" / "circle").symlink_to("circle")
    with (folder / "three_gigabytes_of_hole.jpg").open("wb") as file:
        file.truncate(3 * 2**30)
    unreadable = folder / "unreadable.jpg"
    unreadable.write_bytes(GOOD)
    unreadable.chmod(0)
    return [folder], [
        OddInput(source="good.jpg"),
        OddInput(source="link.jpg"),
        OddInput(source="loop/circle", outcome="ignored"),
        rejected("fifo.jpg", "not a regular file"),
        rejected("socket.jpg", "not a regular file"),
        rejected("device.jpg", "not a regular file"),
        rejected("dangling.jpg", "No such file"),
        rejected("itself.jpg", "symbolic links"),
        rejected("three_gigabytes_of_hole.jpg", "bytes; at most"),
        OddInput(source="unreadable.jpg") if IS_ROOT else rejected("unreadable.jpg", "Permission denied"),
    ]


def make_videos(folder: Path) -> tuple[list[Path], list[OddInput]]:
    """Clips need 4 frames at 10 fps, so 0.3 s."""
    frames = gray_frames(list(range(0, 240, 12)))
    whole = write_video(folder / "whole.mp4", frames)
    write_video(folder / "variable_rate.mkv", frames, times_ms=[100 * i + 13 * (i % 3) for i in range(20)])
    write_video(folder / "motion_jpeg.avi", frames, codec="mjpeg")
    write_video(folder / "anamorphic.mp4", frames, aspect=Fraction(4, 3))
    write_video(folder / "odd_size.mkv", gray_frames(list(range(0, 240, 12)), 33, 17), codec="ffv1")
    write_video(folder / "one_pixel.mkv", gray_frames(list(range(0, 240, 12)), 1, 1), codec="ffv1")
    write_video(folder / "one_frame.mp4", frames[:1])
    write_video(folder / "three_frames.mp4", frames[:3])
    (folder / "rotated.mp4").write_bytes(_rotated(whole.read_bytes()))
    (folder / "movie_inside.jpg").write_bytes(whole.read_bytes())
    _write_audio(folder / "audio_only.mp4")
    _write_frameless(folder / "no_frames.mkv")
    content = whole.read_bytes()
    bad = {
        "zero_bytes.mp4": b"",
        "text.mp4": b"just text\n" * 99,
        "random.mkv": np.random.default_rng(0).bytes(5000),
        "index_missing.mp4": content[: content.rindex(b"moov") - 4],
        "photo_inside.mp4": GOOD,
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "playlist_of_a_good_file.mp4": f"ffconcat version 1.0\nfile {whole}\n".encode(),
        "still.gif": odd_images()["gif_inside.jpg"].encoded,
    }
    for name, one in bad.items():
        (folder / name).write_bytes(one)
    good = ("whole.mp4", "variable_rate.mkv", "motion_jpeg.avi", "anamorphic.mp4", "odd_size.mkv", "rotated.mp4")
    return [folder], [
        *(OddInput(source=name) for name in good),
        *(rejected(name, "") for name in bad),
        rejected("movie_inside.jpg", "MP4"),
        rejected("audio_only.mp4", "no video stream"),
        rejected("no_frames.mkv", ""),
        rejected("one_frame.mp4", "no clip"),
        rejected("three_frames.mp4", "no clip"),
        rejected("one_pixel.mkv", "px"),
    ]


def make_tars(folder: Path) -> tuple[list[Path], list[OddInput]]:
    whole = _tar(_member("first.jpg", GOOD), _member("second.jpg", GOOD), _member("third.jpg", GOOD))
    tars = {
        "members.tar": _tar(*_odd_members(), tar_format=tarfile.PAX_FORMAT),
        "gnu.tar": _tar(_member("long/" * 40 + "gnu.jpg", GOOD), tar_format=tarfile.GNU_FORMAT),
        "cut_in_second.tar": whole[: 512 + -(-len(GOOD) // 512) * 512 + 512 + 100],
        "no_end_mark.tar": whole[: 3 * (512 + -(-len(GOOD) // 512) * 512)],
        "bad_header.tar": _flipped(whole, 512 + -(-len(GOOD) // 512) * 512 + 3),
        "nonsense.tar": b"this is no tar at all " * 99,
        "zero_bytes.tar": b"",
        "nothing_inside.tar": bytes(10240),
        "claims_too_much.tar": _claiming("huge.jpg", 2**35) + GOOD,
    }
    for name, content in tars.items():
        (folder / name).write_bytes(content)
    expected = [
        OddInput(source=f"gnu.tar/{'long/' * 40}gnu.jpg"),
        OddInput(source="cut_in_second.tar/first.jpg"),
        rejected("cut_in_second.tar/second.jpg", "tar ends inside it"),
        rejected("cut_in_second.tar", "damaged tar (cut off"),
        *(OddInput(source=f"no_end_mark.tar/{name}.jpg") for name in ("first", "second", "third")),
        rejected("no_end_mark.tar", "no end mark"),
        OddInput(source="bad_header.tar/first.jpg"),
        rejected("bad_header.tar", "damaged header"),
        rejected("nonsense.tar", "no tar header"),
        rejected("zero_bytes.tar", "damaged tar"),
        rejected("claims_too_much.tar/huge.jpg", ""),
        rejected("claims_too_much.tar", "damaged tar"),
    ]
    return [folder / name for name in tars], [*expected, *_expected_members()]


def _odd_members() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name in ("ok.jpg", "ok.jpg", "../escape.jpg", "/absolute.jpg", "a/../../b.jpg", "./dot.jpg", ".hidden.jpg"):
        yield _member(name, GOOD)
    for name in ("кот.jpg", "new\nline.jpg", "y" * 200 + ".jpg", "photo.json.jpg"):
        yield _member(name, GOOD)
    for name in ("zero.jpg", "ok.cls"):
        yield _member(name, b"")
    yield _member("broken.json", b"{broken")
    yield _member("broken.jpg", GOOD)
    yield _member("bomb.png", odd_images()["bomb.png"].encoded)
    yield _member("inner.tar", _tar(_member("inside.jpg", GOOD)))
    for kind, name in (
        *((tarfile.SYMTYPE, "symbolic.jpg"), (tarfile.LNKTYPE, "hard.jpg"), (tarfile.CHRTYPE, "device.jpg")),
        *((tarfile.FIFOTYPE, "fifo.jpg"), (tarfile.DIRTYPE, "folder.jpg"), (tarfile.BLKTYPE, "notes.txt")),
    ):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/hostname"
        yield member, b""


def _expected_members() -> list[OddInput]:
    good = ("ok.jpg", "dot.jpg", "кот.jpg", "new\nline.jpg", "y" * 200 + ".jpg", "photo.json.jpg", "broken.jpg")
    return [
        *(OddInput(source=f"members.tar/{name}") for name in good),
        *(
            rejected(f"members.tar/{name}", "unsafe name")
            for name in ("../escape.jpg", "/absolute.jpg", "a/../../b.jpg")
        ),
        *(rejected(f"members.tar/{name}", "a link") for name in ("symbolic.jpg", "hard.jpg")),
        *(rejected(f"members.tar/{name}", "not a regular file") for name in ("device.jpg", "fifo.jpg")),
        rejected("members.tar/zero.jpg", "empty file"),
        rejected("members.tar/bomb.png", "more than max_pixels"),
        *(OddInput(source=f"members.tar/{name}", outcome="ignored") for name in ("inner.tar", ".hidden.jpg")),
    ]


def make_lists(folder: Path) -> tuple[list[Path], list[OddInput]]:
    names = [f"listed_{index}.jpg" for index in range(9)]
    for name in (*names, "with, comma.jpg", 'with "quotes".jpg'):
        (folder / name).write_bytes(GOOD)
    with socket.socket() as closed:  # a port where nothing answers
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    rows = [
        *("listed_0.jpg,cat", '"with, comma.jpg",dog', '"with ""quotes"".jpg",dog', "", "listed_1.jpg", ",cat"),
        *("gone.jpg,cat", "listed_2.txt,cat", f"{folder}/listed_2.jpg,cat", f"file://{folder}/listed_3.jpg,cat"),
        *(f"../{folder.name}/listed_4.jpg,cat", f"http://127.0.0.1:{port}/x.jpg,cat", "nosuch://x/y.jpg,cat"),
        *("http://[bad/x.jpg,cat", "listed_5.jpg,cat,too,many", "nul\0byte.jpg,cat"),
    ]
    (folder / "rows.csv").write_bytes(("\ufefffile,label\r\n" + "\r\n".join(rows) + "\r\n").encode())
    lines = ['{"path": "listed_6.jpg"}', "{broken", "[1, 2]", '{"path": 7}', '{"path": null}', '{"path": "gone.png"}']
    lines += ["", '{"path": "listed_7.jpg", "split": "../up"}', json.dumps({"path": "a" * 5000 + ".jpg"})]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    table = pa.table({"image": ["listed_7.jpg", None, "gone.webp"], "label": [1.0, None, 2.0]})
    pq.write_table(table, folder / "rows.parquet")
    (folder / "rows.txt").write_bytes(b"listed_8.jpg\r\n\r\nno_suffix\r\n")
    good = [*(f"listed_{index}.jpg" for index in (0, 1, 6, 7, 8)), "with, comma.jpg", 'with "quotes".jpg']
    below = str(folder).strip("/")
    return [folder / f"rows.{suffix}" for suffix in ("csv", "jsonl", "parquet", "txt")], [
        *(OddInput(source=name) for name in good),
        *(OddInput(source=f"{below}/listed_{index}.jpg") for index in (2, 3)),
        OddInput(source=f"{folder.name}/listed_4.jpg"),
        *(rejected(name, "No such file") for name in ("gone.jpg", "gone.png", "gone.webp")),
        rejected("rows.csv:7", "no path in this row"),
        rejected("rows.csv:9 listed_2.txt", "neither an image nor a video"),
        rejected(f"127.0.0.1:{port}/x.jpg", ""),
        rejected("x/y.jpg", ""),
        rejected("rows.csv:15 http://[bad/x.jpg", ""),
        rejected("rows.csv:16 listed_5.jpg", "4 values for 2 columns"),
        rejected("rows.csv:17 nul\0byte.jpg", "null byte"),
        rejected("rows.jsonl:2", "not valid JSON"),
        rejected("rows.jsonl:3", "not a JSON object"),
        rejected("rows.jsonl:5", "no path in this row"),
        rejected("rows.jsonl:4 7", "is not a text"),
        rejected("rows.jsonl:8 listed_7.jpg", "split"),
        rejected("a" * 5000 + ".jpg", ""),
        rejected("rows.parquet:2", "no path in this row"),
        rejected("rows.txt:3 no_suffix", "neither an image nor a video"),
    ]


def _member(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def _tar(*members: tuple[tarfile.TarInfo, bytes], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _claiming(name: str, num_bytes: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = num_bytes
    return member.tobuf(tarfile.GNU_FORMAT)


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _rotated(mp4: bytes) -> bytes:
    """The same file with a quarter turn in its track header, as phones write it."""
    place = mp4.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    return mp4[:place] + matrix + mp4[place + len(matrix) :]


def _write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_frameless(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
