"""Records of a place: a file, the folder of a stage, the folder of a suite, or a committed file that holds several."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.results.record import RECORD_NAME, Environment, Record
from pipelines.base.errors import DataError, UsageError

__all__ = ["load_records"]


def load_records(path: Path) -> list[Record]:
    """Return all complete records at a place, sorted by kind and label.

    Raises UsageError where there is none, DataError for a file that is no complete record.
    """
    if path.is_file():
        found = list(_of_file(path))
    elif (path / RECORD_NAME).is_file():
        found = list(_of_file(path / RECORD_NAME))
    else:
        found = [one for file in sorted(path.glob(f"stages/*/{RECORD_NAME}")) for one in _of_file(file)]
    if not found:
        raise UsageError(
            f"{path}: no records. Give a record.json, the folder of a stage, the folder of a suite (that holds "
            "stages/), or a file of benchmarks/records."
        )
    return sorted(found, key=lambda one: (one.kind, one.label, one.date))


def _of_file(path: Path) -> Iterator[Record]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, need a record.")
    # A committed suite has one record of each kind, under these names.
    parts = {name: one for name, one in content.items() if name.startswith("record_")}
    for name, one in parts.items() or {"": content}.items():
        yield _record(one, f"{path}{f': {name}' if name else ''}")


def _record(content: Any, where: str) -> Record:
    try:
        known = {one.name for one in fields(Record)}
        place = Environment(**content["environment"])
        return Record(**{name: value for name, value in content.items() if name in known} | {"environment": place})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: no complete record: {error}.") from error
