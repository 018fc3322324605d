"""Place and key of an evaluation's fine-tuning: where its checkpoint lies, and what it may be resumed by."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.content import text_content
from benchmarks.source_code import code_digest, installed_sources
from pipelines.base.config import Config

__all__ = ["Attempt", "attempt_of"]

NOT_IN_KEY = ("data", "checkpoint_every_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """`folder` keeps the checkpoint. `key`: sha256 of options, data, trunk and the evaluation's code."""

    folder: Path
    key: str


@contextmanager
def attempt_of(context: Context, kind: str, config: Config, content: Mapping[str, str]) -> Iterator[Attempt]:
    """Yield the place of a fine-tuning on data of the given content.

    It is deleted when the block ends well, and kept to resume from otherwise.
    """
    options = config.model_dump(mode="json", exclude=set(NOT_IN_KEY))
    # Other code starts anew: half a fine-tuning of each could be told from neither.
    code = code_digest(installed_sources().digests([type(config).__module__]))
    identity = [kind, options, dict(content), context.the_trunk().content, code]
    key = text_content(json.dumps(identity, sort_keys=True))
    folder = context.store / "fine_tuning" / key[:16]
    yield Attempt(folder=folder, key=key)
    shutil.rmtree(folder, ignore_errors=True)
