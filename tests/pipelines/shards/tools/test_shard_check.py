import io
import tarfile

import pytest

from pipelines.shards.format.tar_members import DamagedTarError
from pipelines.shards.tools.shard_check import decode_problem, read_groups
from tests.made.pictures import encode, encode_clip, smooth_picture, stored_clips


def tar_of(*names: str) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    return file


def test_samples_are_grouped_as_webdataset_does() -> None:
    groups = read_groups(tar_of("a.jpg", "a.json", "a/b.c.jpg", "v1.2/x.jpg", "a.cls"))
    assert [(key, [member[0] for member in members]) for key, members in groups] == [
        ("a", ["jpg", "json"]),
        ("a/b", ["c.jpg"]),
        ("v1.2/x", ["jpg"]),
        ("a", ["cls"]),
    ]
    assert groups[0][1][1] == ("json", 3 * 512, 3, "a.json")


@pytest.mark.parametrize("keep", [0, 511, 512, 514, 1023, 1024, 1536, 2047])
def test_tar_cut_anywhere_is_damaged(keep: int) -> None:
    content = tar_of("a.jpg").getvalue()
    with pytest.raises(DamagedTarError):
        read_groups(io.BytesIO(content[:keep]))


def test_bytes_after_the_end_are_damage() -> None:
    content = tar_of("a.jpg").getvalue()
    with pytest.raises(DamagedTarError, match="something else than zeros after its end at byte 1024"):
        read_groups(io.BytesIO(content + content))
    read_groups(io.BytesIO(content + bytes(999)))


def test_images_are_decoded_in_full() -> None:
    encoded = encode(smooth_picture(1, 60, 40))
    row = {"num_frames": 1, "width": 60, "height": 40}
    assert decode_problem("image", encoded, row) is None
    assert (
        decode_problem("image", encoded, row | {"width": 40}) == "decodes to 60 x 40 px, the manifest says 40 x 40 px"
    )
    assert str(decode_problem("image", encoded[:-30], row)).startswith("cannot be decoded (")
    assert str(decode_problem("image", b"", row)).startswith("cannot be decoded (")


def test_frames_are_counted() -> None:
    (clip,) = stored_clips(1, num_frames=5)
    row = {"num_frames": 5, "width": 64, "height": 48}
    assert decode_problem("clip", clip.encoded, row) is None
    assert "decodes to 5 frames of 64 x 48 px, the" in str(
        decode_problem("clip", clip.encoded, row | {"num_frames": 4})
    )
    vp9 = encode_clip([smooth_picture(index, 64, 48) for index in range(5)], "libvpx-vp9")
    assert decode_problem("clip", vp9, row) is None
    assert str(decode_problem("clip", clip.encoded[:200], row)).startswith("cannot be decoded (")
    assert str(decode_problem("clip", b"junk", row)).startswith("cannot be decoded (")
