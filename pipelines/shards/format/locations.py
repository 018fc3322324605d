"""Locations that a user gives: a local path, or the URL of something that fsspec opens."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pipelines.base.errors import UsageError
from pipelines.base.paths import expanded, is_file_url, path_of_file_url

__all__ = ["Location", "as_location", "filesystem", "is_remote", "open_binary", "remote_errors"]


def as_location(value: Any) -> Any:
    """Return a URL as it is, letter for letter, and other text as a local Path.

    A file URL is percent-decoded; `~` and `$VAR` are filled in elsewhere, also in a Path. Values of other types come
    back as they are, for pydantic to refuse.
    """
    if isinstance(value, str) and is_file_url(value):
        return Path(path_of_file_url(value))
    if isinstance(value, str | Path) and not is_remote(value):
        return Path(expanded(str(value)))
    return value


class _AsLocation:
    """Schema for pydantic. It and fsspec are imported when needed, since worker processes would wait for them."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(as_location, handler(source))


Location = Annotated[Path | str, _AsLocation()]
"""A field of a config: a local Path, or the str of a URL."""


def is_remote(location: Path | str) -> bool:
    """Return whether it is a URL of something else than this machine's files."""
    return isinstance(location, str) and "://" in location and not is_file_url(location)


def filesystem(url: str) -> tuple[Any, str]:
    """Return (fsspec file system, path in it) of a URL; fsspec keeps one file system per process and protocol.

    Raises UsageError for an unknown protocol, or one whose package is missing.
    """
    import fsspec

    try:
        # Listings kept from before would hide what other machines have written since.
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        protocol = url.partition("://")[0]
        hint = "pip install 'fourfold[s3]'" if protocol in ("s3", "s3a") else "install its fsspec package"
        raise UsageError(f"{url}: cannot open it ({error}). Allowed: what fsspec opens; {hint}.") from error
    return system, path


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn whatever a file system's client raises into an OSError that names the URL."""
    try:
        yield
    except UsageError:
        raise
    except (FileNotFoundError, KeyError) as error:
        raise FileNotFoundError(errno.ENOENT, "not found", url) from error
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error) or type(error).__name__, url) from error
    except Exception as error:
        # Clients raise errors of many classes of their own; callers can handle OSError alone.
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", url) from error


def open_binary(location: Path | str, *, buffer_bytes: int = 2**16) -> io.BufferedReader:
    """Open a file to read, seekable, local or behind a URL. Opening and reading raise nothing but OSError."""
    raw = _RemoteFile(str(location)) if is_remote(location) else io.FileIO(location)
    return io.BufferedReader(raw, buffer_bytes)


class _RemoteFile(io.RawIOBase):
    """fsspec's file, with its errors as OSError; it reads ahead by itself, in blocks of megabytes."""

    def __init__(self, url: str) -> None:
        self._url = url
        with remote_errors(url):
            system, path = filesystem(url)
            self._file = system.open(path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with remote_errors(self._url):
            return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        with remote_errors(self._url):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
