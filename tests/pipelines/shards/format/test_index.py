import importlib.util
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.base.errors import DataError
from pipelines.shards.format.index import index_name, index_path, read_index
from pipelines.shards.format.tar_writer import Sample, TarWriter


def make_tar(path: Path, keys: tuple[str, ...] = ("a", "cat/b", "cat/bär")) -> Path:
    """A tar, and its index beside it."""
    with path.open("wb") as file:
        writer = TarWriter(file)
        for number, key in enumerate(keys):
            members = [("jpg", b"x" * (700 * number + 1)), ("cls", b"1"), ("json", b"{}")]
            writer.add(Sample(key=key, members=members, width=1, height=1))
        index_path(path).write_bytes(writer.finish().index_content)
    return path


def test_index_lists_every_member_where_tarfile_finds_it(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "s.tar")
    path = index_path(tar)
    with tarfile.open(tar) as archive:
        want = [(info.name.rpartition(".")[2], info.offset_data, info.size, info.name) for info in archive]
    assert path == tmp_path / index_name(tar.name) == tmp_path / "s.idx"
    assert [member for members in read_index(path) for member in members] == want
    assert [len(members) for members in read_index(path)] == [3, 3, 3]


def test_index_is_that_of_dali(tmp_path: Path) -> None:
    if importlib.util.find_spec("wds2idx") is None:
        pytest.skip("needs DALI's wds2idx")
    from wds2idx import IndexCreator

    tar = make_tar(tmp_path / "s.tar", ("a", "cat/b", "cat/c_d-e"))
    with IndexCreator(str(tar), str(tmp_path / "dali.idx"), verbose=False) as creator:
        creator.create_index()
    assert index_path(tar).read_text() == (tmp_path / "dali.idx").read_text()


def test_separators_of_other_alphabets_are_part_of_a_name(tmp_path: Path) -> None:
    # str.splitlines would end a line at these.
    (tmp_path / "s.idx").write_text("v1.2 1\njpg 512 3 a\u2028b\x85\x0c.jpg\n")
    assert read_index(tmp_path / "s.idx") == [[("jpg", 512, 3, "a\u2028b\x85\x0c.jpg")]]


DAMAGED = [
    *("", "v1.1 0\n", "v1.2 0\n\n", "v1.2 2\njpg 0 1 a.jpg\n", "v1.2 1\njpg 0 1\n", "v1.2 1\njpg x 1 a\n"),
    *(
        "v1.2 1",
        "v1.2 1\njpg 0 1 a.jpg",
        "v1.2 1\njpg -5 1 a\n",
        "v1.2 1\njpg 1_0 1 a\n",
        f"v1.2 1\njpg {'9' * 5000} 1 a\n",
        "v1.2 1000000000\n",
    ),
]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.idx").write_text(text)
    with pytest.raises(DataError, match=r"s\.idx: not a readable DALI index"):
        read_index(tmp_path / "s.idx")


def test_index_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s\.idx: not a readable DALI index"):
        read_index(tmp_path / "s.idx")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), patch=st.binary(max_size=6), cut=st.booleans())
def test_any_damage_is_a_data_error_or_another_index(tmp_path: Path, place: float, patch: bytes, cut: bool) -> None:
    path = index_path(make_tar(tmp_path / "s.tar"))
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + patch + (b"" if cut else whole[at + len(patch) :]))
    try:
        members = [member for sample in read_index(path) for member in sample]
    except DataError:
        return
    assert all(offset >= 0 and size >= 0 for _, offset, size, _ in members)
