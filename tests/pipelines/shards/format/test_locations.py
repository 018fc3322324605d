"""Paths and URLs as users give them, and errors of remote file systems in one form."""

from pathlib import Path

import fsspec
import pytest
from pydantic import BaseModel

from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import Location, as_location, filesystem, is_remote, remote_errors


@pytest.mark.parametrize("url", ["nosuch://x/y", "nosuch+file://x"])
def test_unknown_protocol_names_what_is_allowed(url: str) -> None:
    with pytest.raises(UsageError, match=r"cannot open it .* Allowed"):
        filesystem(url)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("s3://bucket//a/", "s3://bucket//a/"), ("a/b", Path("a/b")), ("file:///a", Path("/a")), (Path("a"), Path("a"))],
)
def test_configs_keep_urls_letter_for_letter(given: Path | str, kept: Path | str) -> None:
    class Options(BaseModel):
        out: Location

    out = Options(out=given).out
    assert (out, type(out) is str) == (kept, type(kept) is str)
    assert is_remote(out) == isinstance(kept, str)


def test_configs_take_paths_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("DATA", "/data")
    given = ["~/a b", "$DATA/x", Path("~/x"), Path("/a b/100%.jpg").as_uri(), "s3://$DATA/~/%20", "file:///~/$DATA"]
    expected = ["/home/anna/a b", "/data/x", "/home/anna/x", "/a b/100%.jpg", "s3://$DATA/~/%20", "/~/$DATA"]
    assert [str(as_location(one)) for one in given] == expected


@pytest.mark.parametrize(
    ("raised", "expected"), [(KeyError("x"), FileNotFoundError), (RuntimeError("no route"), OSError)]
)
def test_errors_of_clients_become_os_errors(raised: Exception, expected: type[OSError]) -> None:
    with pytest.raises(expected) as caught, remote_errors("s3://b/x"):
        raise raised
    assert caught.value.filename == "s3://b/x"
    assert caught.value.strerror


def test_one_file_system_per_process() -> None:
    assert filesystem("memory://a/b")[0] is filesystem("memory://c")[0]
    assert filesystem("memory://a/b")[1] == fsspec.core.url_to_fs("memory://a/b")[1]
