import importlib.util
import tarfile
from pathlib import Path

import pytest

from pipelines.errors import DataError
from pipelines.shards.index import index_path, read_index, write_index
from pipelines.shards.samples import Sample
from pipelines.shards.writer import TarWriter


def make_tar(path: Path, keys: tuple[str, ...] = ("a", "cat/b", "cat/bär")) -> Path:
    with path.open("wb") as file:
        writer = TarWriter(file)
        for number, key in enumerate(keys):
            members = (("jpg", b"x" * (700 * number + 1)), ("cls", b"1"), ("json", b"{}"))
            writer.add(Sample(key=key, members=members, width=1, height=1))
        writer.finish(path.name, "image", "train")
    return path


def test_index_lists_every_member_where_tarfile_finds_it(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "s.tar")
    path = write_index(tar)
    with tarfile.open(tar) as archive:
        want = [(info.name.rpartition(".")[2], info.offset_data, info.size, info.name) for info in archive]
    assert path == index_path(tar) == tmp_path / "s.idx"
    assert [member for members in read_index(path) for member in members] == want
    assert [len(members) for members in read_index(path)] == [3, 3, 3]


def test_index_is_that_of_dali(tmp_path: Path) -> None:
    if importlib.util.find_spec("wds2idx") is None:
        pytest.skip("needs DALI's wds2idx")
    from wds2idx import IndexCreator

    tar = make_tar(tmp_path / "s.tar", ("a", "cat/b", "cat/c_d-e"))
    with IndexCreator(str(tar), str(tmp_path / "dali.idx"), verbose=False) as creator:
        creator.create_index()
    assert write_index(tar).read_text() == (tmp_path / "dali.idx").read_text()


def test_damaged_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"no tar" * 500)
    with pytest.raises(DataError, match=r"s\.tar: not a readable tar"):
        write_index(tmp_path / "s.tar")


@pytest.mark.parametrize(
    "text", ["", "v1.1 0\n", "v1.2 2\njpg 0 1 a.jpg\n", "v1.2 1\njpg 0 1\n", "v1.2 1\njpg x 1 a\n"]
)
def test_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.idx").write_text(text)
    with pytest.raises(DataError, match=r"s\.idx: not a readable DALI index"):
        read_index(tmp_path / "s.idx")
