"""Local paths as people write them: `~`, `$VAR` and `file://` URLs in, plain paths out. Looks at no file."""

import os
from urllib.parse import unquote_to_bytes

__all__ = ["FILE_URL", "expanded", "is_file_url", "path_of_file_url"]

FILE_URL = "file://"


def expanded(path: str) -> str:
    """Return a path with `~`, `~user`, `$VAR` and `${VAR}` filled in; an unknown user or variable stays as it is."""
    return os.path.expanduser(os.path.expandvars(path))


def is_file_url(text: str) -> bool:
    """Whether text is a `file:` URL, whatever its case."""
    return text[: len(FILE_URL)].lower() == FILE_URL


def path_of_file_url(url: str) -> str:
    """Return the path of a `file:` URL, percent-decoded as `pathlib.Path.as_uri` encodes it.

    `file:///a`, `file://localhost/a` and (no standard, but written) `file://a` give /a, /a and a. Bytes that are no
    UTF-8 become the surrogates that `os.fsdecode` makes of them.
    """
    path = url[len(FILE_URL) :]
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    return os.fsdecode(unquote_to_bytes(path))
