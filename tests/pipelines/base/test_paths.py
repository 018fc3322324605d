"""Paths and `file:` URLs as pathlib writes them."""

import os
from pathlib import Path

import pytest

from pipelines.base.paths import expanded, is_file_url, path_of_file_url

NAMES = ["plain.jpg", "with space.jpg", "100%.jpg", "a#b?c.jpg", "%20.jpg", "bär.jpg", "日本.jpg", "a+b&c=d;e.jpg"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"caf\xe9.jpg")])
def test_urls_of_pathlib_give_its_paths(name: str) -> None:
    url = Path("/photos", name).as_uri()
    assert is_file_url(url)
    assert path_of_file_url(url) == f"/photos/{name}"


@pytest.mark.parametrize(
    ("url", "path"),
    [("file://localhost/a%20b", "/a b"), ("file://a/b", "a/b"), ("FILE:///x", "/x"), ("file:///a b", "/a b")],
)
def test_other_spellings(url: str, path: str) -> None:
    assert is_file_url(url)
    assert path_of_file_url(url) == path


def test_home_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("SET", "disk")
    monkeypatch.delenv("UNSET", raising=False)
    given = ["~", "~/a", "/$SET/x", "${SET}s/$UNSET", "a~b", "~no-such-user/x"]
    assert [expanded(one) for one in given] == [
        *("/home/anna", "/home/anna/a", "/disk/x"),
        *("disks/$UNSET", "a~b", "~no-such-user/x"),
    ]
