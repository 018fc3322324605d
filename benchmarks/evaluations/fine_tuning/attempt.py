"""Place and key of an evaluation's fine-tuning: where its checkpoint lies, and what it may be resumed by."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.content import folder_content, text_content
from pipelines.base.config import Config

__all__ = ["Attempt", "attempt_of", "data_content"]

NOT_IN_KEY = ("data", "checkpoint_every_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """`folder` keeps the checkpoint. `key`: sha256 of options, data and trunk."""

    folder: Path
    key: str


def data_content(data: Path) -> dict[str, str]:
    """Return the content of a data set, for the key of a record."""
    return {"data": folder_content(data)}


@contextmanager
def attempt_of(context: Context, kind: str, config: Config, data: Path) -> Iterator[Attempt]:
    """Yield the place of a fine-tuning. It is deleted when the block ends well, and kept to resume from otherwise."""
    options = config.model_dump(mode="json", exclude=set(NOT_IN_KEY))
    identity = [kind, options, data_content(data), context.the_trunk().content]
    key = text_content(json.dumps(identity, sort_keys=True))
    folder = context.store / "fine_tuning" / key[:16]
    yield Attempt(folder=folder, key=key)
    shutil.rmtree(folder, ignore_errors=True)
