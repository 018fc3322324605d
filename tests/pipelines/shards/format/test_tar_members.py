"""Tar headers against `tarfile` and GNU tar, in every format; damage is an error, never a short list or a loop."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.format.tar_members import DamagedTarError, TarMember, tar_members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = ["a.jpg", "dir/b.jpg", "bär/日本.png", "d" * 60 + "/" + "e" * 90 + ".jpg"]


def made_tar(names: list[str], form: int, contents: list[bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content in zip(names, contents or [name.encode() * 9 for name in names], strict=True):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def members(content: bytes) -> list[TarMember]:
    return list(tar_members(io.BytesIO(content)))


def by_tarfile(content: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(member.name, member.offset_data, member.size) for member in tar]


def rehashed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("form", FORMATS)
def test_same_members_as_tarfile(form: str) -> None:
    content = made_tar(NAMES, FORMATS[form])
    found = members(content)
    assert [(member.name, member.offset, member.size) for member in found] == by_tarfile(content)
    assert {member.kind for member in found} == {"file"}


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_very_long_names(form: str) -> None:
    content = made_tar(["x/" * 200 + "a.jpg", "b.jpg"], FORMATS[form])
    assert [member.name for member in members(content)] == ["x/" * 200 + "a.jpg", "b.jpg"]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=150), st.binary(max_size=1200)
        ),
        max_size=4,
    ),
    st.sampled_from(["gnu", "pax"]),
)
def test_any_names_and_contents(pairs: list[tuple[str, bytes]], form: str) -> None:
    names = ["x" + name.replace("/", "_") for name, _ in pairs]
    content = made_tar(names, FORMATS[form], [data for _, data in pairs])
    assert [(m.name, content[m.offset : m.offset + m.size]) for m in members(content)] == [
        (name, data) for name, (_, data) in zip(names, pairs, strict=True)
    ]


def test_kinds() -> None:
    buffer = io.BytesIO()
    kinds = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "elsewhere"
            tar.addfile(info)
        info = tarfile.TarInfo("last")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert [member.kind for member in members(buffer.getvalue())] == ["folder", "link", "link", "other", "file"]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("form", ["gnu", "posix", "v7", "oldgnu"])
def test_tars_of_gnu_tar_with_sparse_files(tmp_path: Path, form: str) -> None:
    with (tmp_path / "holes.jpg").open("wb") as file:
        for number in range(40):  # more pieces than the first header holds
            file.seek(number * 2**16)
            file.write(b"data")
    (tmp_path / "z.jpg").write_bytes(b"after")
    sparse = [] if form == "v7" else ["--sparse"]
    command = ["tar", "cf", "x.tar", f"--format={form}", *sparse, "holes.jpg", "z.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    content = (tmp_path / "x.tar").read_bytes()
    first, last = members(content)
    assert first.kind == ("file" if form == "v7" else "sparse")
    assert (last.name, content[last.offset : last.offset + last.size]) == ("z.jpg", b"after")


def test_size_beyond_eight_gigabytes() -> None:
    for form in ("gnu", "pax"):
        info = tarfile.TarInfo("big.mp4")
        info.size = 9 * 2**30
        header = info.tobuf(FORMATS[form])
        ((member,), _) = until_damage(header)
        assert member.size == 9 * 2**30
        assert member.offset == len(header)


def until_damage(content: bytes) -> tuple[list[TarMember], str]:
    found = []
    try:
        for member in tar_members(io.BytesIO(content)):
            found.append(member)
    except DamagedTarError as error:
        return found, str(error)
    return found, "no damage"


def test_a_damaged_header_in_the_middle_is_not_the_end() -> None:
    content = bytearray(made_tar(["a.jpg", "b.jpg", "c.jpg"], tarfile.USTAR_FORMAT))
    content[1024 + 3] ^= 1
    found, damage = until_damage(bytes(content))
    assert [member.name for member in found] == ["a.jpg"]
    assert damage == "damaged header at byte 1024"


@pytest.mark.parametrize(
    ("keep_bytes", "reason"),
    [
        (0, "no end mark at byte 0"),
        (100, "cut off: 100 of 512"),
        (1024, "no end mark at byte 1024"),
        (600, "byte 1024"),
    ],
)
def test_cut_off_tars_say_where(keep_bytes: int, reason: str) -> None:
    content = made_tar(["a.jpg", "b.jpg"], tarfile.USTAR_FORMAT, [b"a" * 20, b"b"])
    with pytest.raises(DamagedTarError, match=reason):
        members(content[:keep_bytes])


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"\xff" * 12, "negative size"),
        (b"\x80" + b"\xff" * 11, "impossible size"),
        (b"12x45\0\0\0\0\0\0\0", "damaged size"),
        (b"-0000000001\0", "impossible size -1"),
    ],
)
def test_impossible_sizes(field: bytes, reason: str) -> None:
    content = bytearray(made_tar(["a.jpg"], tarfile.USTAR_FORMAT))
    content[124:136] = field
    with pytest.raises(DamagedTarError, match=reason):
        members(rehashed(content[:512]) + bytes(content[512:]))


@pytest.mark.parametrize(
    "record", [b"99 path=x\n", b"path=x\n", b"8 path=x\n", b"11 size=-9\n", b"0 a=b\n", b"\xff=\n"]
)
def test_damaged_pax_records(record: bytes) -> None:
    header = bytearray(made_tar(["pax"], tarfile.USTAR_FORMAT, [record])[:1024])
    header[156:157] = b"x"
    with pytest.raises(DamagedTarError):
        members(rehashed(header[:512]) + bytes(header[512:]) + made_tar(["a.jpg"], tarfile.USTAR_FORMAT))


def test_signed_checksums_of_old_tars() -> None:
    content = bytearray(made_tar(["b\u00e4r.jpg"], tarfile.USTAR_FORMAT))
    header = content[:512]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in header)
    assert [member.name for member in members(bytes(header) + bytes(content[512:]))] == ["bär.jpg"]


@given(st.binary(max_size=3000))
def test_garbage_is_damage(content: bytes) -> None:
    with pytest.raises(DamagedTarError):
        members(b"x" + content)


@given(st.data())
def test_flipped_bytes_never_hang_or_surprise(data: st.DataObject) -> None:
    content = bytearray(made_tar(NAMES, data.draw(st.sampled_from(list(FORMATS.values())))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = members(bytes(content))
    except DamagedTarError:
        return
    assert all(member.offset >= 512 and member.size >= 0 for member in found)
