"""A copy of the project's own sources, in which a test can plant a change."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.source_code import PACKAGES, ROOT


def copy_sources(folder: Path) -> Path:
    """Copy every module to `folder` and return it."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            copy = folder / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return folder


@contextmanager
def planted(path: Path, text: str) -> Iterator[None]:
    """Append text to a file for the time of a `with`."""
    before = path.read_text()
    path.write_text(before + text)
    try:
        yield
    finally:
        path.write_text(before)
